"""Reads and edits of the residual stream: what each layer returns.

They are planned for the padded tensors of a run (`StreamPlan`) and carried out on what each layer returns.

Gemma 3n's layers pass on four streams, (stream, sample, row, hidden). All four go on to the next layer, so the stream
at a position is the four side by side, stream 0 (the one that attention reads and writes) first.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from interp.errors import EditError
from interp.tracing.encoding.batch import Layout
from interp.tracing.layers.layer_plan import Recorder
from interp.tracing.layers.request import Request, StreamChange, StreamPatch, StreamSelection

__all__ = ["LayerStream", "StreamPlan", "StreamWork", "make_stream_plan", "side_by_side", "stacked"]


Changed: TypeAlias = StreamPatch | StreamChange
Rows = Callable[[StreamSelection | Changed], list[Int[np.ndarray, " _"]]]


@dataclass(frozen=True, eq=False)
class StreamRead:
    """Rows to keep for read number `read`; short samples repeat one."""

    read: int
    rows: Int[Tensor, "sample row"]

    def keep(self, values: Float[Tensor, "sample row width"], recorder: Recorder) -> None:
        """Gives the recorder the rows of what a layer, a router or an MLP gave."""
        index = self.rows.to(values.device)[..., None].expand(-1, -1, values.shape[2])
        recorder.keep(self.read, values.gather(1, index))


@dataclass(frozen=True, eq=False)
class StreamWrite:
    """Vectors to put at some rows of some samples: of each step, as long as a sample has any.

    The cells are in the order of how many steps they have, most first; step t is that of the first `n_cells[t]`. So
    which cells a step has is known without asking the device.
    """

    samples: Int[Tensor, " cell"]
    rows: Int[Tensor, " cell"]
    values: Float[Tensor, "step cell hidden"]
    n_cells: tuple[int, ...]

    def __call__(
        self, hidden: Float[Tensor, "sample row hidden"], step: int
    ) -> Float[Tensor, "sample row hidden"]:
        """The stream with the step's vectors put into it."""
        _check_width(self.values.shape[2], hidden, "those of PatchResidual have")
        n = self.n_cells[step] if step < len(self.n_cells) else 0
        if not n:
            return hidden
        hidden = hidden.clone()
        hidden[self.samples[:n], self.rows[:n]] = self.values[step, :n].to(hidden)
        return hidden


@dataclass(frozen=True, eq=False)
class StreamSum:
    """Vectors to add at some rows of some samples, the same in every step; `vectors` are of every sample."""

    samples: Int[Tensor, " cell"]
    rows: Int[Tensor, " cell"]
    vectors: Float[Tensor, "sample hidden"]

    def __call__(
        self, hidden: Float[Tensor, "sample row hidden"], step: int
    ) -> Float[Tensor, "sample row hidden"]:
        """The stream with the vectors added to it, summed in float32."""
        del step
        _check_width(self.vectors.shape[1], hidden, "the vector of AddResidual has")
        at = (self.samples, self.rows)
        hidden = hidden.clone()
        hidden[at] = (hidden[at].float() + self.vectors[self.samples]).to(hidden)
        return hidden


@dataclass(frozen=True, eq=False)
class StreamMap:
    """A function of the stream at some rows of some samples, the same in every step."""

    samples: Int[Tensor, " cell"]
    rows: Int[Tensor, " cell"]
    change: Callable[..., Float[Tensor, "cell hidden"]]
    n_hidden: int

    def __call__(
        self,
        hidden: Float[Tensor, "sample row hidden"],
        step: int,
        given: Float[Tensor, "sample row hidden"] | None = None,
    ) -> Float[Tensor, "sample row hidden"]:
        """The stream with those rows replaced by the function's values; at an MLP it gets the input `given` too."""
        del step
        _check_width(self.n_hidden, hidden, "the features of the edit are of")
        at = (self.samples, self.rows)
        hidden = hidden.clone()
        read = () if given is None else (given[at],)
        hidden[at] = self.change(hidden[at], *read).to(hidden)
        return hidden


def _check_width(n: int, hidden: Float[Tensor, "sample row hidden"], which: str) -> None:
    if n != hidden.shape[2]:
        raise EditError(
            f"the residual stream has {hidden.shape[2]} values at each position; {which} {n}. Read them from the same "
            "model."
        )


Write: TypeAlias = StreamWrite | StreamSum | StreamMap


@dataclass(frozen=True, eq=False)
class LayerStream:
    """The work after one layer in one kind of pass: first the writes, in order, then the reads."""

    reads: tuple[StreamRead, ...] = ()
    writes: tuple[Write, ...] = ()


@dataclass(frozen=True, eq=False)
class StreamPlan:
    """The layers after which there is work, in the prompt's pass and in that of each generated token."""

    prefill: Mapping[int, LayerStream] = field(default_factory=dict)
    decode: Mapping[int, LayerStream] = field(default_factory=dict)

    def work(self, recorder: Recorder) -> dict[int, StreamWork]:
        """What to do after each layer of a run."""
        none = LayerStream()
        layers = sorted({*self.prefill, *self.decode})
        return {i: StreamWork(self.prefill.get(i, none), self.decode.get(i, none), recorder) for i in layers}


@dataclass(frozen=True, eq=False)
class StreamWork:
    """Carries out a layer's plans on what the layer returned, whichever executor calls it."""

    prefill: LayerStream
    decode: LayerStream
    recorder: Recorder

    def __call__(self, output: Any) -> Any:
        """The layer's output, patched; a tuple's first element is the stream."""
        if self.recorder.paused:
            return output
        if isinstance(output, tuple):
            return (self._stream(output[0]), *output[1:])
        return stacked(self._stream(side_by_side(output)), output)

    def _stream(self, hidden: Float[Tensor, "sample row hidden"]) -> Float[Tensor, "sample row hidden"]:
        plan, step = self.decode if self.recorder.step else self.prefill, self.recorder.step
        for write in plan.writes:
            hidden = write(hidden, step)
        for read in plan.reads:
            read.keep(hidden, self.recorder)
        return hidden


def make_stream_plan(
    request: Request, layout: Layout, devices: Sequence[torch.device], name: str = "residual"
) -> StreamPlan:
    """The plan of a request's reads and patches of the stream, or of those of another `name` (`RouterWork`, `MLPWork`).

    Args:
        request: The reads and edits of the batch.
        layout: Where positions lie in the pass.
        devices: The device of each layer.
        name: The name of the reads and patches.
    """

    def in_prompt(part: StreamSelection | Changed) -> list[Int[np.ndarray, " _"]]:
        return layout.rows(part.queries)

    def generated(part: StreamSelection | Changed) -> list[Int[np.ndarray, " _"]]:
        return [np.zeros(1, np.int64) for _ in part.queries]

    streams = [(n, one) for n, one in enumerate(request.selections) if isinstance(one, StreamSelection)]
    reads = [(n, one) for n, one in streams if one.name == name]
    before = [(n, one) for n, one in reads if any(len(q) for q in one.queries)]
    patches = [one for one in request.patches if one.name == name]
    patched = [one for one in patches if any(len(q) for q in one.queries)]
    return StreamPlan(
        _layers(before, patched, in_prompt, devices),
        _layers(
            [(n, one) for n, one in reads if one.decodes],
            [one for one in patches if one.decodes],
            generated,
            devices,
        ),
    )


def _layers(
    reads: Sequence[tuple[int, StreamSelection]],
    patches: Sequence[Changed],
    rows: Rows,
    devices: Sequence[torch.device],
) -> dict[int, LayerStream]:
    kept = [(one, StreamRead(n, _padded(rows(one), devices[0]))) for n, one in reads]
    layers = {layer for one, _ in kept for layer in one.layers}
    layers |= {layer for patch in patches for layer in patch.layers}
    return {
        layer: LayerStream(
            reads=tuple(read for one, read in kept if layer in one.layers),
            writes=tuple(
                _write(patch, layer, rows, devices[layer]) for patch in patches if layer in patch.layers
            ),
        )
        for layer in sorted(layers)
    }


def _write(patch: Changed, layer: int, rows: Rows, device: torch.device) -> Write:
    found = rows(patch)
    samples = np.repeat(np.arange(len(found)), [len(at) for at in found])
    if isinstance(patch, StreamChange):
        cells, at = (torch.from_numpy(one).to(device) for one in (samples, np.concatenate(found)))
        return StreamMap(cells, at, patch.change, patch.n_hidden)
    if patch.adds:
        vectors = np.stack([own[layer] for own in patch.values]).astype(np.float32)
        parts = (samples, np.concatenate(found), vectors)
        return StreamSum(*(torch.from_numpy(one).to(device) for one in parts))
    values = [own[layer] for own, at in zip(patch.values, found, strict=True) if len(at)]
    longest = max(len(one) for one in values)
    padded = [np.pad(one, [(0, longest - len(one)), (0, 0), (0, 0)]) for one in values]
    n_steps = np.repeat([len(one) for one in values], [len(at) for at in found if len(at)])
    order = np.argsort(-n_steps, kind="stable")
    arrays = (samples[order], np.concatenate(found)[order], np.concatenate(padded, axis=1)[:, order])
    n_cells = tuple(int((n_steps > step).sum()) for step in range(longest))
    cells, at, vectors = (torch.from_numpy(array).to(device) for array in arrays)
    return StreamWrite(cells, at, vectors, n_cells)


def _padded(rows: Sequence[Int[np.ndarray, " _"]], device: torch.device) -> Int[Tensor, "sample row"]:
    width = max(len(at) for at in rows)
    return torch.from_numpy(np.stack([np.pad(at, (0, width - len(at)), mode="edge") for at in rows])).to(
        device
    )


def side_by_side(given: Tensor) -> Float[Tensor, "sample row hidden"]:
    """What a layer takes or gives, one vector for each position; stacked streams one after the other."""
    return given.permute(1, 2, 0, 3).flatten(2) if given.ndim == 4 else given


def stacked(stream: Float[Tensor, "sample row hidden"], like: Tensor) -> Tensor:
    """The stream in the form of what a layer takes or gives; the inverse of `side_by_side`."""
    return stream.unflatten(2, (like.shape[0], -1)).permute(2, 0, 1, 3) if like.ndim == 4 else stream
