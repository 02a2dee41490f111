"""Plans the work of every layer for one forward pass, and records what the layers read.

`make_plan` ties a `Request`, which counts in the samples' own positions, to the padded tensors of the pass.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from interp.errors import EditError
from interp.tracing.attention.edit_cells import Cells, Change, Live, Patch
from interp.tracing.attention.rows import Block, Heads
from interp.tracing.encoding.batch import Layout
from interp.tracing.layers.decoder_layers import CrossLayout, Shape
from interp.tracing.layers.request import (
    Applied,
    HeadAblation,
    LayerValues,
    Request,
    Selection,
)
from interp.tracing.site import LayerKind

__all__ = ["HeadWrite", "LayerPlan", "Plan", "ReadBlock", "Recorder", "head_writes", "make_plan"]


@dataclass(frozen=True, eq=False)
class ReadBlock:
    """A block to compute for read number `read`, and the columns of it to keep."""

    read: int
    block: Block
    keys: Int[Tensor, "sample key"]
    reduce: bool


@dataclass(frozen=True, eq=False)
class LayerPlan:
    """The work of one layer in one kind of pass: the prompt's, or that of a generated token.

    Attributes:
        reads: The blocks to read.
        changes: The edits of the layer, in order.
        edits: The blocks to recompute, each under every change; none with `mask_first`.
        mask_first: Whether the changes go into the mask of the model's own attention, because most rows lose keys and
            nothing else changes.
        unsure: Whether only computing the rows shows which of them change; rows that do not change are left as they
            are.
        whole: The block that covers every row and head, if one does: the model's own attention is then not needed.
        outputs: What replaces heads' outputs after all changes.
    """

    reads: tuple[ReadBlock, ...] = ()
    changes: tuple[Change, ...] = ()
    edits: tuple[Block, ...] = ()
    mask_first: bool = False
    unsure: bool = False
    whole: Block | None = None
    outputs: tuple[HeadWrite, ...] = ()


@dataclass(frozen=True, eq=False)
class Plan:
    """The layers that have work to do in the prompt's pass, and in the pass of each generated token."""

    prefill: dict[int, LayerPlan] = field(default_factory=dict)
    decode: dict[int, LayerPlan] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class _Places:
    """Index tensors of one read or edit, shared by all its layers."""

    heads: dict[int, tuple[int, ...]]
    rows: Int[Tensor, "sample row"]
    cells: tuple[Int[Tensor, " cell"], Int[Tensor, " cell"]]


@dataclass(frozen=True, eq=False)
class _Read(_Places):
    number: int
    keys: Int[Tensor, "sample key"]
    reduce: bool


@dataclass(frozen=True, eq=False)
class _Edited(_Places):
    applied: Applied
    queries: Bool[Tensor, "sample query"]
    keys: Bool[Tensor, "sample key"]
    live: Live | None


def make_plan(request: Request, layout: Layout, shape: Shape, lives: list[Live] | None = None) -> Plan:
    """The plan of a request in a layout. Rows before the layout's first must not be among its rows.

    Args:
        request: What is read and edited.
        layout: Where each sample's tokens are in the pass.
        shape: The model's.
        lives: Receives which generated tokens belong to the answer; None where all of them do.
    """
    plan = Plan()
    layouts: dict[LayerKind, tuple[Layout, Shape]] = {"attention": (layout, shape)}
    if shape.linear:
        layouts["linear"] = (layout, shape.of_linear())
    if shape.has_cross:
        layouts["cross"] = (CrossLayout.of(layout, request.n_cross), shape)
    for kind, (keyed, of_kind) in layouts.items():
        reads = [
            (n, one)
            for n, one in enumerate(request.selections)
            if isinstance(one, Selection) and one.kind == kind
        ]
        applied = [one for one in request.applied if one.kind == kind]
        for device in dict.fromkeys(shape.devices or (shape.device,)):
            own = replace(of_kind, device=device)
            plan.prefill.update(
                _Prompt(keyed, own).layers(
                    [(number, one) for number, one in reads if any(len(q) for q in one.queries)],
                    [one for one in applied if any(len(q) for q in one.queries)],
                )
            )
            plan.decode.update(
                _Generated(keyed, own, lives).layers(
                    [(number, one) for number, one in reads if one.decodes],
                    [one for one in applied if one.decodes and _comes(one, lives)],
                )
            )
    writes = head_writes(request.ablations, layout, shape)
    for plans, of_layers in zip((plan.prefill, plan.decode), writes, strict=True):
        plans.update({i: replace(plans.get(i, LayerPlan()), outputs=own) for i, own in of_layers.items()})
    return plan


def _comes(applied: Applied, lives: list[Live] | None) -> bool:
    """Whether tokens come that an edit of generated tokens applies to."""
    return lives is not None or applied.edit.stage_of_tokens != "reasoning"


class _Maker(ABC):
    """Builds each index tensor once, for all the layers on the shape's device that use it."""

    def __init__(self, layout: Layout, shape: Shape) -> None:
        self.layout = layout
        self.shape = shape
        self._arranged: dict[tuple[int, ...], Heads] = {}
        self._flags: dict[tuple[int, ...], Bool[Tensor, " head"]] = {}

    @abstractmethod
    def rows(self, part: Selection | Applied) -> list[Int[np.ndarray, " _"]]:
        """The query rows of each sample in this kind of pass."""

    @property
    @abstractmethod
    def n_queries(self) -> int:
        """Query rows of the pass, padding included."""

    def layers(
        self, selections: Sequence[tuple[int, Selection]], applied: Sequence[Applied]
    ) -> dict[int, LayerPlan]:
        """The plan of each layer that has work."""
        reads = [self._read(number, selection) for number, selection in selections]
        edits = [self._edited(one) for one in applied]
        kinds: dict[
            tuple[tuple[int, ...] | None, ...], LayerPlan
        ] = {}  # layers that only read the same share theirs
        plans = {}
        for layer in sorted({layer for part in (*reads, *edits) for layer in part.heads}):
            if self.shape.devices and self.shape.devices[layer] != self.shape.device:
                continue
            if any(layer in edit.heads for edit in edits):
                plans[layer] = self._layer(layer, reads, edits)
                continue
            kind = tuple(read.heads.get(layer) for read in reads)
            if kind not in kinds:
                kinds[kind] = self._layer(layer, reads, ())
            plans[layer] = kinds[kind]
        return plans

    def _layer(self, layer: int, reads: Sequence[_Read], edits: Sequence[_Edited]) -> LayerPlan:
        mine = [read for read in reads if layer in read.heads]
        edited = [edit for edit in edits if layer in edit.heads]
        changes = tuple(self._change(edit, layer) for edit in edited)
        mask_first = self._mask_first(changes, edited)
        blocks = () if mask_first else tuple(self._block(edit, layer) for edit in edited)
        windowed = bool(self.shape.windows) and self.shape.windows[layer] is not None
        unsure = windowed or any(change.edit.unsure or change.cells.live is not None for change in changes)
        return LayerPlan(
            reads=tuple(ReadBlock(r.number, self._block(r, layer), r.keys, r.reduce) for r in mine),
            changes=changes,
            edits=blocks,
            mask_first=mask_first,
            unsure=unsure,
            whole=next((block for block in blocks if not unsure and self._covers(block)), None),
        )

    def _read(self, number: int, selection: Selection) -> _Read:
        keys = self._padded(self.layout.keys(selection.keys))
        rows = self._indexed(self.rows(selection))
        return _Read(selection.heads, *rows, number, keys, selection.reduce)

    def _edited(self, applied: Applied) -> _Edited:
        """An edit's rows, and its rows and columns as masks over the padded tensors."""
        rows, keys = self.rows(applied), self.layout.keys(applied.keys)
        queries, columns = self._flagged(rows, self.n_queries), self._flagged(keys, self.layout.n_keys)
        live = self.live(applied, queries)
        queries = queries if live is None else live.queries
        return _Edited(applied.heads, *self._indexed(rows), applied, queries, columns, live)

    def live(self, applied: Applied, queries: Bool[Tensor, "sample query"]) -> Live | None:
        """What says from token to token which of an edit's rows are meant; None where all always are."""
        return None

    def _block(self, places: _Places, layer: int) -> Block:
        return Block(places.rows, places.cells, self._heads(places.heads[layer]))

    def _change(self, edited: _Edited, layer: int) -> Change:
        heads = edited.heads[layer]
        flags = None if len(heads) == self.shape.n_heads else self._flags_of(heads)
        cells = Cells(flags, edited.queries, edited.keys, edited.live)
        values = edited.applied.values
        patch = None if values is None else self._patch(edited.applied, layer, values)
        return Change(edited.applied.edit, cells, patch)

    def _patch(self, applied: Applied, layer: int, values: Sequence[LayerValues]) -> Patch:
        """A layer's given values as one padded tensor, and the way from padded rows and columns into it."""
        own = [one[layer] for one in values]
        sizes = np.max([one.shape for one in own], axis=0)
        filled = np.stack(
            [np.pad(x, [(0, n - m) for n, m in zip(sizes, x.shape, strict=True)]) for x in own], 1
        )
        heads = np.zeros(self.shape.n_heads, np.int64)
        heads[list(applied.heads[layer])] = np.arange(len(applied.heads[layer]))
        rows, keys = self.rows(applied), self.layout.keys(applied.keys)
        device = self.shape.device
        return Patch(
            torch.from_numpy(filled).to(device),
            torch.from_numpy(heads).to(device),
            self._numbered(rows, self.n_queries),
            self._numbered(keys, self.layout.n_keys),
            torch.tensor([len(one) for one in own], device=device),
        )

    def _mask_first(self, changes: Sequence[Change], edited: Sequence[_Edited]) -> bool:
        """Whether edits are cheaper as a mask: only knockouts before the softmax, all heads, most rows."""
        suited = all(change.hides and change.cells.heads is None for change in changes)
        widest = max((edit.rows.shape[1] for edit in edited), default=0)
        return self.shape.takes_masks and suited and widest > self.n_queries // 2

    def _covers(self, block: Block) -> bool:
        """Whether a block is every row of every sample, padding included, and every head in order."""
        heads, cells = block.heads, block.cells[0]
        in_order = heads.back is None and len(heads.index) == self.shape.n_heads
        return in_order and len(cells) == self.layout.n_samples * self.n_queries

    def _heads(self, heads: tuple[int, ...]) -> Heads:
        if heads not in self._arranged:
            shape = self.shape
            self._arranged[heads] = Heads.of(heads, shape.n_heads, shape.n_key_value_heads, shape.device)
        return self._arranged[heads]

    def _flags_of(self, heads: tuple[int, ...]) -> Bool[Tensor, " head"]:
        if heads not in self._flags:
            self._flags[heads] = self._flagged([np.array(heads)], self.shape.n_heads)[0]
        return self._flags[heads]

    def _indexed(self, rows: Sequence[Int[np.ndarray, " _"]]) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        """Each sample's rows as tensors: `rows` and `cells` of a `Block`."""
        cells = torch.tensor([(i, k) for i, at in enumerate(rows) for k in range(len(at))])
        cells = cells.to(self.shape.device)
        return self._padded(rows), (cells[:, 0], cells[:, 1])

    def _padded(self, values: Sequence[Int[np.ndarray, " _"]]) -> Int[Tensor, "sample _"]:
        """One line per sample, short ones filled up with their last value, or 0."""
        width = max(len(v) for v in values)
        filled = np.zeros((len(values), width), np.int64)
        for line, at in zip(filled, values, strict=True):
            if len(at):
                line[: len(at)], line[len(at) :] = at, at[-1]
        return torch.from_numpy(filled).to(self.shape.device)

    def _flagged(self, values: Sequence[Int[np.ndarray, " _"]], n: int) -> Bool[Tensor, "sample _"]:
        flags = np.zeros((len(values), n), dtype=bool)
        for line, at in zip(flags, values, strict=True):
            line[at] = True
        return torch.from_numpy(flags).to(self.shape.device)

    def _numbered(self, values: Sequence[Int[np.ndarray, " _"]], n: int) -> Int[Tensor, "sample _"]:
        """At each of a sample's values, how many come before it; 0 elsewhere."""
        numbers = np.zeros((len(values), n), dtype=np.int64)
        for line, at in zip(numbers, values, strict=True):
            line[at] = np.arange(len(at))
        return torch.from_numpy(numbers).to(self.shape.device)


class _Prompt(_Maker):
    """Plans the pass over the prompt, or over what follows a prefix of it."""

    def rows(self, part: Selection | Applied) -> list[Int[np.ndarray, " _"]]:
        """The rows of the read or edit."""
        return self.layout.rows(part.queries)

    @property
    def n_queries(self) -> int:
        """Those of the layout."""
        return self.layout.n_queries


class _Generated(_Maker):
    """Plans the pass of a generated token: one row."""

    def __init__(self, layout: Layout, shape: Shape, lives: list[Live] | None = None) -> None:
        super().__init__(layout, shape)
        self.lives = lives

    def live(self, applied: Applied, queries: Bool[Tensor, "sample query"]) -> Live | None:
        """Where an edit is of one kind of generated tokens, what says which tokens are."""
        stage = applied.edit.stage_of_tokens
        if self.lives is None or stage is None:
            return None
        if applied.kind == "linear":
            raise EditError(
                f'edits of gated DeltaNet layers cannot take queries="{stage}" in a model that thinks, because they '
                'cannot tell the thought from the answer. Write queries="last" with steps="decode" for all generated '
                "tokens."
            )
        self.lives.append(Live(stage, queries))
        return self.lives[-1]

    def rows(self, part: Selection | Applied) -> list[Int[np.ndarray, " _"]]:
        """The only row; none of a sample without keys to edit, which stays as it is."""
        return [np.arange(1 if len(keys) else 0) for keys in part.keys]

    @property
    def n_queries(self) -> int:
        """One."""
        return 1


@dataclass(frozen=True, eq=False)
class HeadWrite:
    """What replaces some heads' outputs, at some rows of some samples.

    Attributes:
        samples: the sample of each row.
        rows: the rows.
        heads: the heads.
        values: of every sample, or one for all; None for zeros.
    """

    samples: Int[Tensor, " cell"]
    rows: Int[Tensor, " cell"]
    heads: Int[Tensor, " head"]
    values: Float[Tensor, "sample_or_one head dim"] | None

    def __call__(
        self, output: Float[Tensor, "sample query head dim"]
    ) -> Float[Tensor, "sample query head dim"]:
        """The heads' outputs, those of this write replaced.

        Raises:
            EditError: Values of another size than a head's output.
        """
        changed = output.clone()
        at = (self.samples[:, None], self.rows[:, None], self.heads[None])
        if self.values is None:
            changed[at] = 0.0
            return changed
        if self.values.shape[2] != output.shape[3]:
            raise EditError(
                f"a head's output has {output.shape[3]} values; the means of AblateHeads have {self.values.shape[2]}. "
                "Get them from the same model and layers with interp.head_means(mllm, samples, site)."
            )
        own = self.values if len(self.values) == 1 else self.values[self.samples]
        changed[at] = own.to(output)
        return changed


def head_writes(
    ablations: Sequence[HeadAblation], layout: Layout, shape: Shape
) -> tuple[dict[int, tuple[HeadWrite, ...]], dict[int, tuple[HeadWrite, ...]]]:
    """What is put into which layers' heads in the prompt's pass, and in that of each generated token."""

    before = [(one, layout.rows(one.queries)) for one in ablations if any(len(q) for q in one.queries)]
    after = [(one, [np.zeros(1, np.int64) for _ in one.queries]) for one in ablations if one.decodes]
    return _writes(before, shape), _writes(after, shape)


def _writes(
    ablations: Sequence[tuple[HeadAblation, list[Int[np.ndarray, " _"]]]], shape: Shape
) -> dict[int, tuple[HeadWrite, ...]]:
    found: dict[int, tuple[HeadWrite, ...]] = {}
    for one, own in ablations:
        samples = torch.from_numpy(np.repeat(np.arange(len(own)), [len(at) for at in own]))
        flat = torch.from_numpy(np.concatenate(own))
        for layer, heads in one.heads.items():
            device = shape.devices[layer] if shape.devices else shape.device
            values = None
            if one.values is not None:
                values = torch.from_numpy(np.stack([each[layer] for each in one.values])).to(device)
            write = HeadWrite(samples.to(device), flat.to(device), torch.tensor(heads, device=device), values)
            found[layer] = (*found.get(layer, ()), write)
    return found


@dataclass(eq=False)
class Recorder:
    """The buffer all layers of one run write into.

    Attributes:
        step: the pass that is being run; 0 is the prompt's.
        paused: whether layers do nothing now but their own attention.
        rows: (read, step) → what each layer gave, in layer order.
        hides: for cells of a pass that were checked, whether they hide anything that its rows see.
    """

    step: int = 0
    paused: bool = False
    rows: dict[tuple[int, int], list[Tensor]] = field(default_factory=dict)
    hides: dict[tuple[int, ...], bool] = field(default_factory=dict)

    def add(self, read: ReadBlock, probabilities: Float[Tensor, "sample head row key"]) -> None:
        """Keep the read's columns of rows of attention, averaged over heads where it says so."""
        kept = probabilities.mean(dim=1, keepdim=True) if read.reduce else probabilities
        index = read.keys[:, None, None, :].expand(-1, kept.shape[1], kept.shape[2], -1)
        self.keep(read.read, kept.gather(3, index))

    def keep(self, read: int, values: Tensor) -> None:
        """Keep what a layer gives for a read."""
        self.rows.setdefault((read, self.step), []).append(values)
