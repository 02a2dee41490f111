"""Reads and edits of the vision tower's attention, and maps composed through a resampler.

A tower calls its attention once for all images of a batch, once for each image or window, or once over all images
packed into one row under a mask. In each form, a call holds the next positions of the tower's own order (`slots`).
It is cut into pieces whose positions see each other, and each piece is read and edited on its own.

A composed map is a product of rows over a resampler's latents and the latents' own attention over the image's patches.
Each factor is the model's own attention. Their product is a heuristic, not an attribution: it lets a latent stand for
the patches it attended to, whatever its values carry, and leaves out residual streams and MLPs between the two.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from interp.errors import EditError, ModelError
from interp.inputs.patch_map import PatchMap
from interp.inputs.tokens import TokenMap
from interp.tracing.attention.edit_cells import Cells, Change
from interp.tracing.attention.rows import AttentionFunction, Block, Call, Heads, only_visible, visible
from interp.tracing.attention.shared_keys import CHUNK_BYTES
from interp.tracing.encoding.batch import Batch
from interp.tracing.executors.hooks import registered, set_work
from interp.tracing.layers.layer_plan import Recorder
from interp.tracing.layers.vision_request import Tower, VisionEdit, VisionSelection
from interp.tracing.parameters.weights import execution_device
from interp.tracing.passes.run import embeddings
from interp.tracing.wrapped_model import WrappedModel

__all__ = ["VisionWork", "make_vision_work", "patch_attention", "patch_tokens"]


@dataclass(frozen=True, eq=False)
class _Flat:
    """The tower's own order over a batch: the samples one after another, each sample's positions by its slots.

    Attributes:
        starts: Where each sample's part begins, and the end of the last.
        slots: For each sample, the place of each of its positions in the order, counted from 0 over the batch.
        cuts: Where each sequence begins, and the end of the last.
        padded: Whether each sequence is a line of its own with padding at its end, which has no place in the order.
    """

    starts: Int[np.ndarray, " sample_and_end"]
    slots: tuple[Int[np.ndarray, " _"], ...]
    cuts: Int[np.ndarray, " sequence_and_end"]
    padded: bool

    @classmethod
    def of(cls, patches: Sequence[PatchMap]) -> _Flat:
        """The order of the patches of all samples, one sample after the other."""
        starts = np.cumsum([0, *(one.length for one in patches)])
        slots = tuple(start + one.slots for start, one in zip(starts[:-1], patches, strict=True))
        first = [
            start + np.flatnonzero(np.diff(one.sequence, prepend=-1))
            for start, one in zip(starts[:-1], patches, strict=True)
        ]
        padded = any(one.padded for one in patches)
        return cls(starts, slots, np.concatenate([*first, starts[-1:]]), padded)

    def lines(self, first: int, n_lines: int, length: int) -> list[tuple[int, int]]:
        """Where the real part of each line of a call of padded sequences begins and ends; empty where they do not fit.

        Args:
            first: The place in the order where the call begins.
            n_lines: The number of lines of the call.
            length: The length of each line, with its padding.
        """
        at = int(np.searchsorted(self.cuts, first))
        found = list(pairwise(self.cuts[at : at + n_lines + 1].tolist()))
        fits = len(found) == n_lines and all(stop - start <= length for start, stop in found)
        return found if fits else []

    @property
    def n(self) -> int:
        """The number of positions of the batch."""
        return int(self.starts[-1])

    def flags(self, places: Sequence[np.ndarray]) -> Bool[np.ndarray, " flat"]:
        """Whether each place of the order is among the samples' positions."""
        found = np.zeros(self.n, bool)
        for slots, at in zip(self.slots, places, strict=True):
            found[slots[at]] = True
        return found

    def numbers(self, places: Sequence[np.ndarray]) -> Int[np.ndarray, " flat"]:
        """For each place of the order, its index among its sample's positions; −1 where it is not among them."""
        found = np.full(self.n, -1)
        for slots, at in zip(self.slots, places, strict=True):
            found[slots[at]] = np.arange(len(at))
        return found


@dataclass(frozen=True, eq=False)
class _Read:
    """One read of one layer: its number, its heads, its rows and columns in the order, and the values read."""

    number: int
    heads: Heads
    reduce: bool
    rows: Int[np.ndarray, " flat"]
    columns: Int[np.ndarray, " flat"]
    samples: Int[np.ndarray, " flat"]
    found: Float[Tensor, "sample query key_and_one head"]

    @property
    def result(self) -> Float[Tensor, "sample head query key"]:
        """The rows that were read; filled in as the tower runs."""
        return self.found[:, :, :-1].permute(0, 3, 1, 2)


@dataclass(frozen=True, eq=False)
class _Edited:
    """One edit of one layer: its heads, a flag for each head (None for all), and its rows and columns in the order."""

    edit: VisionEdit
    heads: Heads
    flags: Bool[Tensor, " head"] | None
    rows: Bool[np.ndarray, " flat"]
    columns: Bool[np.ndarray, " flat"]


@dataclass(frozen=True, eq=False)
class _Piece:
    """Lines of a call that hold one sequence (or window) each: the call, and where each line begins in the order."""

    call: Call
    first: Int[np.ndarray, " line"]
    at: tuple[slice, slice]

    @property
    def length(self) -> int:
        """The number of positions of each line."""
        return int(self.call.queries.shape[2])

    def part(self, values: np.ndarray) -> np.ndarray:
        """The values over the order, at the positions of the piece, (line, position)."""
        return values[self.first[:, None] + np.arange(self.length)]


@dataclass(eq=False)
class _LayerWork:
    """The work of the attention module of one layer of the tower in a pass."""

    flat: _Flat
    reads: tuple[_Read, ...]
    edits: tuple[_Edited, ...]
    recorder: Recorder
    done: int = 0
    starved: list[Tensor] = field(default_factory=list)

    def __call__(
        self, original: AttentionFunction, call: Call, kwargs: dict[str, Any]
    ) -> tuple[Tensor, Tensor | None]:
        """The model's own attention, followed by `finish`."""
        own = original(call.module, call.queries, call.keys[0], call.values[0], call.mask, **kwargs)
        return self.finish(call, own[0], kwargs), own[1]

    def finish(
        self, call: Call, output: Float[Tensor, "line query head dim"], kwargs: Mapping[str, Any]
    ) -> Float[Tensor, "line query head dim"]:
        """The attention's output with edited rows recomputed; the reads are filled in."""
        if self.recorder.paused:
            return output
        lines, _, length, _ = call.queries.shape
        first, own = self.done, self.flat.lines(self.done, lines, length) if self.flat.padded else []
        self.done = own[-1][1] if own else first + lines * length
        if self.done > self.flat.n:  # `VisionWork.check` says so
            return output
        for piece in self._pieces(call, first, kwargs.get("cu_seq_lens_q")):
            changes = [(one, self._change(one, piece)) for one in self.edits]
            changes = [(one, change) for one, change in changes if change is not None]
            for one, change in changes:
                self._splice(one, change, [c for _, c in changes], piece, output)
            for read in self.reads:
                self._read(read, [change for _, change in changes], piece)
        return output

    def _pieces(self, call: Call, first: int, packed: Tensor | None) -> Iterator[_Piece]:
        """The call, cut where sequences begin; lines without a cut stay together."""
        lines, _, length, _ = call.queries.shape
        if self.flat.padded:
            for line, (start, stop) in enumerate(self.flat.lines(first, lines, length)):
                at = slice(line, line + 1), slice(0, stop - start)
                yield _Piece(_part(call, *at), np.array([start]), at)
            return
        firsts = first + np.arange(lines) * length
        cuts = self.flat.cuts if packed is None else np.union1d(self.flat.cuts, first + packed.cpu().numpy())
        inside = cuts[(cuts > first) & (cuts < first + lines * length)]
        inside = inside[(inside - first) % length != 0]
        if not len(inside):
            yield _Piece(call, firsts, (slice(None), slice(None)))
            return
        for line, start in enumerate(firsts):
            edges = [0, *(cuts[(cuts > start) & (cuts < start + length)] - start).tolist(), length]
            for low, high in pairwise(edges):
                at = slice(line, line + 1), slice(low, high)
                yield _Piece(_part(call, *at), np.array([start + low]), at)

    def _change(self, one: _Edited, piece: _Piece) -> Change | None:
        """The edit in a piece; None where no row of the piece sees a key of the edit."""
        rows, columns = piece.part(one.rows), piece.part(one.columns)
        rows = rows & columns.any(axis=1, keepdims=True)
        if not rows.any():
            return None
        device = piece.call.queries.device
        queries, keys = (torch.from_numpy(x).to(device) for x in (rows, columns))
        cells = Cells(one.flags, queries, keys)
        return Change(one.edit.edit, cells)

    def _splice(
        self, one: _Edited, change: Change, changes: Sequence[Change], piece: _Piece, output: Tensor
    ) -> None:
        """Recomputes the rows of an edit under all changes, in place, in blocks of bounded size."""
        hiding = [other for other in changes if other.hides]
        for block in _blocks(change.cells.queries.cpu().numpy(), one.heads, piece.call):
            if hiding:
                self._note_starved(block, hiding, piece.call)
            before = piece.call.probabilities(block) if any(c.edit.unsure for c in changes) else None
            piece.call.splice(output[piece.at], block, piece.call.probabilities(block, changes), before)

    def _note_starved(self, block: Block, hiding: Sequence[Change], call: Call) -> None:
        """Records whether a row of a block has every key hidden."""
        queries, keys = call.queries.shape[2], call.n_keys
        seen = visible(call.mask, block.rows, n_queries=queries, n_keys=keys, causal=call.causal)
        left = only_visible(call.probabilities(block, hiding), seen).sum(dim=-1)
        line, place = block.cells
        self.starved.append((left[line, :, place] == 0).any())

    def _read(self, read: _Read, changes: Sequence[Change], piece: _Piece) -> None:
        """Writes the rows of a piece into the values of a read."""
        numbers, columns = piece.part(read.rows), piece.part(read.columns)
        device = piece.call.queries.device
        columns = torch.from_numpy(np.where(columns < 0, read.found.shape[2] - 1, columns)).to(device)
        samples = piece.part(read.samples)
        for block in _blocks(numbers >= 0, read.heads, piece.call):
            found = piece.call.probabilities(block, changes)
            found = found.mean(dim=1, keepdim=True) if read.reduce else found
            line, place = block.cells
            at = block.rows[line, place].cpu().numpy(), line.cpu().numpy()
            query = torch.from_numpy(numbers[at[1], at[0]]).to(device)
            sample = torch.from_numpy(samples[at[1], at[0]]).to(device)
            values = found[line, :, place].transpose(1, 2)
            read.found[sample[:, None], query[:, None], columns[line]] = values


def _part(call: Call, line: slice, at: slice) -> Call:
    """A call over some positions of some lines, which see each other."""
    tensors = (call.queries, call.keys[0], call.values[0])
    queries, keys, values = (one[line, :, at] for one in tensors)
    mask = call.mask
    if mask is not None:
        own = mask[line] if len(mask) > 1 else mask
        mask = own[:, :, at, at] if own.ndim == 4 else own[:, at]
    return replace(call, queries=queries, keys=(keys,), values=(values,), mask=mask)


def _blocks(flags: Bool[np.ndarray, "line position"], heads: Heads, call: Call) -> Iterator[Block]:
    """The flagged rows as blocks whose attention rows take about `CHUNK_BYTES`."""
    counts = flags.sum(axis=1)
    widest, device = int(counts.max(initial=0)), call.queries.device
    n_heads = max(len(heads.index), 1)
    step = max(1, CHUNK_BYTES // (4 * len(flags) * n_heads * call.n_keys))
    ranked = np.argsort(~flags, axis=1, kind="stable")[:, :widest]  # each line's flagged rows first
    for start in range(0, widest, step):
        rows = ranked[:, start : start + step]
        real = np.arange(start, start + rows.shape[1])[None] < counts[:, None]
        line, place = (torch.from_numpy(one).to(device) for one in np.nonzero(real))
        yield Block(torch.from_numpy(np.ascontiguousarray(rows)).to(device), (line, place), heads)


@dataclass(frozen=True, eq=False)
class VisionWork:
    """The work of all layers of a tower in a pass.

    Attributes:
        layers: Layer → its work.
        attentions: The attention modules of all layers.
        family: The adapter's name, for errors.
    """

    layers: dict[int, _LayerWork]
    attentions: Sequence[Any]
    family: str

    @contextmanager
    def armed(self) -> Iterator[None]:
        """The tower does its work in the block, which must be inside `Installation.armed`, and is restored after it.

        Raises:
            ModelError: The tower's attention implementation cannot be tapped.
        """
        with ExitStack() as stack:
            configs = {id(one.config): one.config for one in map(self.attentions.__getitem__, self.layers)}
            for config in configs.values():
                own = config._attn_implementation
                stack.callback(setattr, config, "_attn_implementation_internal", own)
                if not own.startswith("interp_"):  # else the tower shares its config with the decoder
                    config._attn_implementation_internal = registered(own)
            for layer, work in self.layers.items():
                set_work(self.attentions[layer], work)
                stack.callback(set_work, self.attentions[layer], None)
            yield

    @property
    def rows(self) -> dict[tuple[int, int], list[Tensor]]:
        """(read, 0) → the rows of each layer, in order, as in `Recorder.rows`; filled in as the tower runs."""
        found: dict[tuple[int, int], list[Tensor]] = {}
        for _, work in sorted(self.layers.items()):
            for read in work.reads:
                found.setdefault((read.number, 0), []).append(read.result)
        return found

    def without_modules(self) -> VisionWork:
        """The same work without the attention modules, which only `armed` needs."""
        return replace(self, attentions=())

    def seen_by(self, views: Sequence[Any]) -> list[tuple[Any, Any]]:
        """For the source executor: the view of each attention module that has work, with that work."""
        return [(views[layer], work.finish) for layer, work in sorted(self.layers.items())]

    def check(self) -> None:
        """Refuses the results of a tower that did not run as the adapter describes, or that has rows without keys.

        Raises:
            ModelError: The tower ran over another number of positions than the adapter's `patches` have.
            EditError: A row with every key hidden.
        """
        for layer, work in self.layers.items():
            if work.done != work.flat.n:
                raise ModelError(
                    f"layer {layer} of the vision tower was seen to attend over {work.done} positions, but the adapter "
                    f"{self.family!r} describes {work.flat.n}. If the tower takes each image or window on its own "
                    '(Qwen-VL), use the executor "tap" of a model on this machine, mllm.using("tap"); if it takes the '
                    "images of a batch padded to one size (Idefics2), run them one by one, batch_size=1; else correct "
                    "the adapter's patches."
                )
            if work.starved and bool(torch.stack(work.starved).any()):
                raise EditError(
                    f"in layer {layer} of the vision tower a row would have every key of its image or window hidden, "
                    'and no key is left to get its weight. Keep a key visible, or use Knockout(…, mode="zero"), which '
                    "makes such a row zero."
                )


def make_vision_work(
    selections: Mapping[int, VisionSelection],
    edits: Sequence[VisionEdit],
    tower: Tower,
    attentions: Sequence[nn.Module],
    recorder: Recorder,
    family: str,
    device: torch.device | None = None,
) -> VisionWork:
    """The work of some reads and edits in a tower. Once the tower has run, `recorder.rows` holds the rows read.

    Args:
        selections: Number of a read among all reads → the read of the tower.
        edits: The edits.
        tower: The samples' patches.
        attentions: The attention module of each layer.
        recorder: Gets the reads' rows, as step 0.
        family: The adapter's name, for errors.
        device: The device of the work's tensors; by default that of each layer.
    """
    flat = _Flat.of(tower.patches)
    samples = np.repeat(np.arange(len(tower.patches)), np.diff(flat.starts))
    places = {n: (flat.numbers(one.queries), flat.numbers(one.keys)) for n, one in selections.items()}
    flags = [(flat.flags(one.queries), flat.flags(one.keys)) for one in edits]
    wanted = {layer for part in (*selections.values(), *edits) for layer in part.heads}
    layers = {}
    for layer in sorted(wanted):
        here = execution_device(attentions[layer]) if device is None else device
        reads = []
        for number, one in selections.items():
            if layer in one.heads:
                found = _empty(one, len(one.heads[layer]), here)
                heads = Heads.of(one.heads[layer], tower.n_heads, tower.n_heads, here)
                reads.append(_Read(number, heads, one.reduce, *places[number], samples, found))
        edited = []
        for one, (rows, columns) in zip(edits, flags, strict=True):
            if layer in one.heads:
                own = one.heads[layer]
                heads = Heads.of(own, tower.n_heads, tower.n_heads, here)
                chosen = torch.isin(torch.arange(tower.n_heads), torch.tensor(own)).to(here)
                mine = None if bool(chosen.all()) else chosen
                edited.append(_Edited(one, heads, mine, rows, columns))
        layers[layer] = _LayerWork(flat, tuple(reads), tuple(edited), recorder)
    work = VisionWork(layers, attentions, family)
    recorder.rows.update(work.rows)
    return work


def _empty(one: VisionSelection, n_heads: int, device: torch.device) -> Tensor:
    """Zeros for a layer's rows, since keys of other sequences get no attention. The last column holds keys not read."""
    wide, deep = (max(map(len, places)) for places in (one.keys, one.queries))
    return torch.zeros(len(one.queries), deep, wide + 1, 1 if one.reduce else n_heads, device=device)


def patch_tokens(mllm: WrappedModel, batch: Batch) -> list[TokenMap]:
    """The patches of each sample's images as the tokens of a map, numbered from 0, with their footprints.

    They are no positions of the prompt, which holds the latents: use only the places (footprints, grid) of such a map.
    """
    adapter: Any = mllm.adapter
    found = []
    for single, sample in zip(batch.singles, batch.samples, strict=True):
        own = adapter.latent_patches(sample.sizes, single.inputs, mllm.processor, mllm.hf.config)
        at = np.arange(len(own))
        found.append(TokenMap(at, own.boxes, own.grid, own.views, own.image, sample.sizes, max(len(own), 1)))
    return found


def patch_attention(mllm: WrappedModel, batch: Batch) -> list[Float[np.ndarray, "latent patch"]]:
    """The attention of each sample's latents: the mean of softmax(q kᵀ) over the resampler's layers and heads, float64.

    Rows are in the order of the latents in the prompt, columns in that of `patch_tokens`. Latents of one view attend to
    the patches of that view. A row sums to 1 minus the attention of latents to latents. It takes one pass of the vision
    tower for each sample.
    """
    adapter: Any = mllm.adapter
    resampler = adapter.resampler(mllm.hf)
    found = []
    for i in range(len(batch)):
        one = mllm.encoder.part(batch, [i])
        with _eager(resampler.attentions) as weights:
            embeddings(mllm, one)
        each = [w.double() if w.ndim == 3 else w.double().mean(dim=1) for w in weights]
        mean = torch.stack(each).mean(dim=0).cpu().numpy()
        n_views, n_latents, n_keys = mean.shape
        n = n_keys - (n_latents if resampler.attends_to_latents else 0)
        factor = np.zeros((n_views, n_latents, n_views, n))
        factor[np.arange(n_views), :, np.arange(n_views)] = mean[:, :, :n]
        found.append(factor.reshape(n_views * n_latents, n_views * n))
    return found


@contextmanager
def _eager(attentions: list[Any]) -> Iterator[list[Tensor]]:
    """The attention weights of these modules, (view, head, latent, key), from eager passes in the block.

    torch's own `MultiheadAttention` gives the mean over heads instead, (view, latent, key).
    """
    weights: list[Tensor] = []
    configs = {id(one.config): one.config for one in attentions if hasattr(one, "config")}
    before = {key: config._attn_implementation for key, config in configs.items()}
    handles = [
        one.register_forward_hook(lambda _, __, output: weights.append(output[1])) for one in attentions
    ]
    try:
        for config in configs.values():
            config._attn_implementation_internal = "eager"
        yield weights
    finally:
        for key, config in configs.items():
            config._attn_implementation_internal = before[key]
        for handle in handles:
            handle.remove()
