"""Carries out the plan of an attention layer: its edits, then its reads."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from interp.tracing.attention.call import AttentionFunction, Call, any_of
from interp.tracing.attention.rows import attend, row_outputs, visible
from interp.tracing.layers.edit_cells import Change
from interp.tracing.layers.layer_plan import Block, LayerPlan
from interp.tracing.layers.recorder import Recorder

__all__ = ["LayerWork"]


@dataclass(frozen=True, eq=False)
class LayerWork:
    """Carries out a layer's plans, whichever executor calls it.

    `prefix` holds keys and values that come before those of the call. `lines` says which of them each sample has;
    without, there are equally many samples for each line, in order.
    """

    prefill: LayerPlan
    decode: LayerPlan
    recorder: Recorder
    prefix: tuple[Tensor, Tensor] | None = None
    lines: Tensor | None = None

    @property
    def plan(self) -> LayerPlan:
        """The plan of the pass that is being run."""
        return self.decode if self.recorder.step else self.prefill

    def mask(self, call: Call) -> Tensor | None:
        """The mask for the model's own attention: the call's, less what is hidden by mask."""
        plan = self.plan
        if not plan.mask_first or not any(change.awake for change in plan.changes):
            return call.mask
        return _without_hidden(call, plan.changes, self.recorder.hides)

    def finish(
        self, call: Call, output: Float[Tensor, "sample query head dim"]
    ) -> Float[Tensor, "sample query head dim"]:
        """The attention's output with edited rows recomputed; the plan's reads go to the recorder."""
        plan, step = self.plan, self.recorder.step
        for block in plan.edits if any(change.awake for change in plan.changes) else ():
            before = call.probabilities(block) if plan.unsure else None
            output = call.splice(output, block, call.probabilities(block, plan.changes, step), before)
        self._read(call)
        return self._with_outputs(output)

    def replaced(self, call: Call, block: Block) -> Float[Tensor, "sample query head dim"]:
        """The attention's output from a block of every row and head; the plan's reads go to the recorder."""
        probabilities = call.probabilities(block, self.plan.changes, self.recorder.step)
        self._read(call)
        output = row_outputs(probabilities, call.values, heads=call.heads_of(block))
        return self._with_outputs(output.transpose(1, 2).contiguous())

    def _with_outputs(
        self, output: Float[Tensor, "sample query head dim"]
    ) -> Float[Tensor, "sample query head dim"]:
        """The attention's output with what the plan puts in the place of heads' outputs."""
        for write in self.plan.outputs:
            output = write(output)
        return output

    def _read(self, call: Call) -> None:
        for read in self.plan.reads:
            rows = call.probabilities(read.block, self.plan.changes, self.recorder.step)
            self.recorder.add(read, rows)

    def __call__(
        self, original: AttentionFunction, call: Call, kwargs: dict[str, Any]
    ) -> tuple[Tensor, Tensor | None]:
        """The attention's output under the plan's edits; the plan's reads go to the recorder."""
        if self.recorder.paused:
            return original(call.module, call.queries, call.keys[-1], call.values[-1], call.mask, **kwargs)
        if self.lines is not None:
            call = call.on_lines(self.lines)
        if self.plan.whole is not None:
            return self.replaced(call, self.plan.whole), None
        mask = self.mask(call)
        if self.prefix is None:
            output, weights = original(
                call.module, call.queries, call.keys[0], call.values[0], mask, **kwargs
            )
            return self.finish(call, output), weights
        output = attend(
            call.queries,
            call.keys,
            call.values,
            mask,
            heads=call.all_heads,
            scaling=call.scaling,
            softcap=call.softcap,
            causal=call.causal,
        )
        return self.finish(call, output), None


def _without_hidden(
    call: Call, changes: Sequence[Change], hides: dict[tuple[int, ...], bool]
) -> Tensor | None:
    """The call's mask with everything hidden taken out, for every row; as it is where rows see none of that.

    A mask that the model made is never as it was; its values are, where nothing was taken out. So nothing has to be
    asked of the device. Only a call without a mask, which may take another kernel, is looked at: once for all layers
    with the same changes, as `hides` remembers.
    """
    n, _, n_queries, _ = call.queries.shape
    rows = torch.arange(n_queries, device=call.queries.device).expand(n, -1)
    seen = visible(call.mask, rows, n_queries=n_queries, n_keys=call.n_keys, causal=call.causal)
    hidden = any_of([change.cells.everywhere(call.n_keys) for change in changes])
    assert hidden is not None
    if seen is None:
        return ~hidden
    left = seen & ~hidden if seen.dtype == torch.bool else seen.masked_fill(hidden, -torch.inf)
    if call.mask is not None and call.mask.ndim == 4:
        return left
    cells = tuple(id(one) for change in changes for one in (change.cells.queries, change.cells.keys))
    key = (*cells, n_queries, call.n_keys)
    if key not in hides:
        hides[key] = bool((hidden & seen).any())
    return left if hides[key] else call.mask
