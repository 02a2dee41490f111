"""Plans the work of every layer from the reads and edits of a batch.

`resolve` checks reads and edits against a batch, in the samples' own positions; `make_plan` ties the request to the
padded tensors of one forward pass.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from jaxtyping import Bool, Int
from torch import Tensor

from interp.errors import EditError, SiteError
from interp.inputs.tokens import TokenMap
from interp.tracing.activation_edits import AblateHeads, AddResidual, FeatureEdit, PatchResidual, PatchRows
from interp.tracing.edits import AttentionEdit, Edit, check_order
from interp.tracing.encoding.padding import Layout
from interp.tracing.layers.decoder_layers import CrossLayout, Decoder, Shape
from interp.tracing.layers.edit_cells import Cells, Change, Live, Patch
from interp.tracing.layers.heads import Heads, HeadWrite, ablation_of, head_writes
from interp.tracing.layers.request import (
    Applied,
    LayerValues,
    Places,
    Request,
    Selection,
    StreamChange,
    StreamPatch,
    StreamSelection,
    refuse_rows_without_image,
    refuse_rows_without_keys,
)
from interp.tracing.layers.visibility import Visibility
from interp.tracing.layers.vision_request import Tower, of_tower, vision_edits, vision_selection
from interp.tracing.reads import MLP, Experts, Read, Residual, Rows
from interp.tracing.site import GENERATED, LayerKind, Selector, Site, select

__all__ = [
    "Block",
    "LayerPlan",
    "Plan",
    "ReadBlock",
    "make_plan",
    "resolve",
]


def resolve(
    reads: Sequence[Read],
    edits: Sequence[Edit],
    tokens: Sequence[TokenMap],
    *,
    n_layers: int,
    n_heads: int,
    linear: Mapping[int, int] | None = None,
    visibility: Visibility = Visibility(),  # noqa: B008 - frozen
    routed: Collection[int] = (),
    tower: Tower | None = None,
    cross: Collection[int] = (),
) -> Request:
    """The request of a batch. `tower`: the vision tower, if a read or edit is of it.

    `routed` are the layers with experts; `linear` the gated DeltaNet layers, and how many heads each has; `cross` the
    cross-attention layers.

    Raises:
        SiteError: A layer, head, group or position that is not there, or a read of nothing.
        EditError: Edits out of order or of no use in a layer, misfit values, or a row left without keys.
    """
    seen = () if tower is None else vision_edits([edit for edit in edits if of_tower(edit)], tower)
    edits = [edit for edit in edits if not of_tower(edit)] if tower is not None else edits
    check_order(edits)
    decoder = Decoder(n_layers, n_heads, linear or {}, cross)
    selections = tuple(
        vision_selection(one, tower) if tower and of_tower(one) else _selection(one, tokens, decoder, routed)
        for one in reads
    )
    on_rows = [edit for edit in edits if isinstance(edit, AttentionEdit)]
    found = [_applied(edit, tokens, decoder, visibility) for edit in on_rows]
    applied = tuple(
        a for a in found if not a.edit.idle and (a.decodes or any(len(rows) for rows in a.queries))
    )
    for sample, own in enumerate(tokens):
        hidden = {kind: [a for a in applied if a.hides and a.kind == kind] for kind in ("attention", "cross")}
        refuse_rows_without_keys([a.hidden(sample) for a in hidden["attention"]], sample, own, visibility)
        refuse_rows_without_image([a.hidden(sample, own.length) for a in hidden["cross"]], sample, own)
    patches = tuple(
        _stream_edit(edit, tokens, decoder)
        for edit in edits
        if isinstance(edit, PatchResidual | FeatureEdit) or (isinstance(edit, AddResidual) and not edit.idle)
    )
    ablations = tuple(ablation_of(edit, tokens, decoder) for edit in edits if isinstance(edit, AblateHeads))
    n_cross = max((own.cross.n for own in tokens if own.cross is not None), default=0)
    return Request(selections, applied, patches, ablations, seen, tower, n_cross)


def _places(selectors: Sequence[Selector], tokens: Sequence[TokenMap]) -> Places:
    if not selectors:
        return tuple(np.empty(0, np.int64) for _ in tokens)
    return tuple(select(selectors, sample, i, len(tokens)) for i, sample in enumerate(tokens))


def _selection(
    read: Read, tokens: Sequence[TokenMap], decoder: Decoder, routed: Collection[int]
) -> Selection | StreamSelection:
    if not isinstance(read, Rows | Residual | MLP | Experts):
        write = f" Write reads=[interp.Rows({read!r})]." if isinstance(read, Site) else ""
        raise SiteError(f"reads= takes reads such as interp.Rows(site); got {read!r:.300}.{write}")
    site = read.site
    groups = site.groups[0]
    generated = [one for one in groups if one in GENERATED and not _is_of_prompt(one, tokens)]
    if generated and len(groups) > 1:
        raise SiteError(
            f"queries={groups!r} mixes rows of the prompt with those of generated tokens ({generated[0]!r}), which "
            "come one at a time, or two kinds of these. Make it two reads."
        )
    stage = str(generated[0]) if generated else None
    heads, kind = decoder.rows(site) if isinstance(read, Rows) else ({}, "attention")
    queries = _places(() if stage else groups, tokens)
    keys = _places(site.groups[1], tokens)
    decodes = groups == ("last",) or stage is not None
    named = [("keys", site.groups[1], keys)] if isinstance(read, Rows) else []
    for name, chosen, samples in [*named, *([] if stage else [("queries", groups, queries)])]:
        for i, at in enumerate(samples):
            if not len(at):
                raise SiteError(
                    f"{name}={chosen!r} selects nothing in sample {i} of the batch, which has "
                    f"{tokens[i].length} tokens, {tokens[i].n} of them image tokens. A read needs at least "
                    "one."
                )
    if isinstance(read, Experts):
        return StreamSelection(read.layers_of(routed), queries, decodes, "experts", stage)
    if isinstance(read, Residual):
        return StreamSelection(decoder.stream(site), queries, decodes, stage=stage)
    if isinstance(read, MLP):
        return StreamSelection(decoder.stream(site), queries, decodes, f"mlp_{read.side}", stage)
    return Selection(heads, site.pairs, read.reduce == "head", queries, keys, decodes, kind, stage)


def _is_of_prompt(group: Selector, tokens: Sequence[TokenMap]) -> bool:
    """Whether a group of generated tokens stands in the prompts instead, because it was put there."""
    return all(group in one.spans for one in tokens)


def _applied(
    edit: AttentionEdit, tokens: Sequence[TokenMap], decoder: Decoder, visibility: Visibility
) -> Applied:
    heads, kind = decoder.edited(edit)
    keys = _places(edit.site.groups[1], tokens)
    put = [q for q in edit.site.groups[0] if q in GENERATED and _is_of_prompt(q, tokens)]
    rows = _places((*edit.prefill_queries, *([] if edit.steps == "decode" else put)), tokens)
    decodes = edit.decodes and any(len(k) for k in keys)
    if isinstance(edit, PatchRows):
        read = _places(edit.site.groups[0], tokens)
        values = tuple(_row_values(edit, heads, sample, read, keys) for sample, _ in enumerate(tokens))
        return Applied(edit, heads, rows, keys, decodes, values, kind)
    if kind == "cross":
        with_keys = tuple(q if len(k) else q[:0] for q, k in zip(rows, keys, strict=True))
        return Applied(edit, heads, with_keys, keys, decodes, kind=kind)
    far = [visibility.horizon(own) for own in tokens]
    able = tuple(q[last[q] >= k[0]] if len(k) else q[:0] for q, k, last in zip(rows, keys, far, strict=True))
    return Applied(edit, heads, able, keys, decodes, kind=kind)


def _row_values(
    edit: PatchRows, heads: dict[int, tuple[int, ...]], sample: int, queries: Places, keys: Places
) -> LayerValues:
    """The values of one sample by layer, (step, head, query, key)."""
    given = edit.values.of_sample(sample, len(keys))
    given = given[None] if edit.steps == "prefill" else given
    pairs = edit.site.pairs
    n_heads = len(next(iter(heads.values())))
    rows = (len(queries[sample]), len(keys[sample]))
    wanted = (len(pairs), *rows) if pairs is not None else (len(heads), n_heads, *rows)
    if given.shape[1:] != wanted:
        dims = "(head, query, key)" if pairs is not None else "(layer, head, query, key)"
        raise EditError(
            f"in sample {sample} of the batch the site has {wanted}, {dims}; the values of PatchRows have "
            f"{given.shape[1:]}. Read them with Rows of the same site."
        )
    if pairs is None:
        return {layer: given[:, i] for i, layer in enumerate(heads)}
    return {layer: given[:, [pairs.index((layer, head)) for head in own]] for layer, own in heads.items()}


def _stream_edit(
    edit: PatchResidual | AddResidual | FeatureEdit, tokens: Sequence[TokenMap], decoder: Decoder
) -> StreamPatch | StreamChange:
    if isinstance(edit, PatchResidual):
        return _patch(edit, tokens, decoder)
    if isinstance(edit, AddResidual):
        return _added(edit, tokens, decoder)
    (layer,) = decoder.stream(edit.site)
    name = "mlp_output" if edit.features.site == "mlp" else "residual"
    decodes, n_hidden = edit.steps != "prefill", edit.features.n_hidden
    return StreamChange(_in_prompt(edit, tokens), decodes, layer, edit.on, n_hidden, name)


def _in_prompt(edit: AddResidual | FeatureEdit, tokens: Sequence[TokenMap]) -> Places:
    """The positions of the prompt that are changed."""
    queries = _places(edit.site.groups[0], tokens)
    return tuple(at if edit.steps != "decode" else at[:0] for at in queries)


def _patch(edit: PatchResidual, tokens: Sequence[TokenMap], decoder: Decoder) -> StreamPatch:
    layers = decoder.stream(edit.site)
    groups = edit.site.groups[0]
    queries = _places(groups, tokens)
    values = []
    for sample, at in enumerate(queries):
        given = edit.values.of_sample(sample, len(tokens))
        given = given[None] if edit.steps == "prefill" else given
        if given.shape[1:3] != (len(layers), len(at)):
            raise EditError(
                f"in sample {sample} of the batch PatchResidual names {len(layers)} layers and {len(at)} "
                f"positions; its values have {given.shape[1:3]}. Read them with Residual of the same layers "
                "and positions."
            )
        values.append({layer: given[:, i] for i, layer in enumerate(layers)})
    widths = {one[layer].shape[2] for one in values for layer in layers}
    if len(widths) > 1:
        raise EditError(
            f"every sample's values hold vectors of one size; got {sorted(widths)}. Read them from one model."
        )
    in_prompt = tuple(at if edit.steps != "decode" else at[:0] for at in queries)
    return StreamPatch(in_prompt, edit.steps != "prefill", tuple(values))


def _added(edit: AddResidual, tokens: Sequence[TokenMap], decoder: Decoder) -> StreamPatch:
    layers = decoder.stream(edit.site)
    values = []
    for sample in range(len(tokens)):
        given = edit.vector.of_sample(sample, len(tokens))
        if len(given) not in (1, len(layers)):
            raise EditError(
                f"AddResidual names {len(layers)} layers; its vector has shape {given.shape}. Give one vector, "
                "(hidden,), or one for each layer, (layer, hidden)."
            )
        values.append({layer: edit.alpha * given[i % len(given)] for i, layer in enumerate(layers)})
    return StreamPatch(_in_prompt(edit, tokens), edit.steps != "prefill", tuple(values), adds=True)


@dataclass(frozen=True, eq=False)
class Block:
    """Some rows of each sample × some heads.

    Attributes:
        rows: query rows; samples with fewer rows than the widest repeat one.
        cells: (sample, place among its rows) of every row that is not such a repetition.
        heads: the heads.
    """

    rows: Int[Tensor, "sample row"]
    cells: tuple[Int[Tensor, " cell"], Int[Tensor, " cell"]]
    heads: Heads


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

    `edits` are the blocks to recompute, each under every change of the layer. When `mask_first` there are
    none: most rows lose keys and nothing else, so that goes into the mask that the model's own attention gets.
    `unsure`: only computing the rows shows which of them change; the others are left as they are. `whole` is the
    edit that covers every row and head, if one does: then that attention is not needed at all. `outputs` are put in
    the place of heads' outputs after all that.
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
    def rows(self, sample: int, part: Selection | Applied) -> Int[np.ndarray, " row"]:
        """The query rows of a sample in this kind of pass."""

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
        keys = self._padded([self.layout.keys(i, at) for i, at in enumerate(selection.keys)])
        return _Read(selection.heads, *self._rows(selection), number, keys, selection.reduce)

    def _edited(self, applied: Applied) -> _Edited:
        """An edit's rows, and its rows and columns as masks over the padded tensors."""
        rows = [self.rows(i, applied) for i in range(self.layout.n_samples)]
        keys = [self.layout.keys(i, at) for i, at in enumerate(applied.keys)]
        queries, columns = self._flagged(rows, self.n_queries), self._flagged(keys, self.layout.n_keys)
        live = self.live(applied, queries)
        queries = queries if live is None else live.queries
        return _Edited(applied.heads, *self._rows(applied), applied, queries, columns, live)

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
        rows = [self.rows(i, applied) for i in range(self.layout.n_samples)]
        keys = [self.layout.keys(i, at) for i, at in enumerate(applied.keys)]
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

    def _rows(self, part: Selection | Applied) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        rows = [self.rows(i, part) for i in range(self.layout.n_samples)]
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

    def rows(self, sample: int, part: Selection | Applied) -> Int[np.ndarray, " row"]:
        """The rows of the read or edit."""
        return self.layout.rows(sample, part.queries[sample])

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
                f'edits of gated DeltaNet layers cannot follow queries="{stage}" of a model that thinks token by '
                'token. Write queries="last" with steps="decode" for all generated tokens.'
            )
        self.lives.append(Live(stage, queries))
        return self.lives[-1]

    def rows(self, sample: int, part: Selection | Applied) -> Int[np.ndarray, " row"]:
        """The only row; none of a sample without keys to edit, which stays as it is."""
        return np.arange(1 if len(part.keys[sample]) else 0)

    @property
    def n_queries(self) -> int:
        """One."""
        return 1
