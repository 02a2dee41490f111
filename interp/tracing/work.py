"""What an armed attention module does: a plan's knockouts and reads, or the nnsight door."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from interp.tracing.changes import Change
from interp.tracing.plan import Block, LayerPlan, ReadBlock
from interp.tracing.rows import attend, row_outputs, visible
from interp.tracing.tap import AttentionFunction, Call, any_of

__all__ = ["Door", "LayerWork", "Recorder"]


@dataclass(eq=False)
class Recorder:
    """The buffer all layers of one run write into.

    Attributes:
        step: the pass that is being run; 0 is the prompt's.
        paused: whether layers do nothing now but their own attention.
        rows: (read, step) → what each layer gave, in layer order.
    """

    step: int = 0
    paused: bool = False
    rows: dict[tuple[int, int], list[Tensor]] = field(default_factory=dict)

    def add(self, read: ReadBlock, probabilities: Float[Tensor, "sample head row key"]) -> None:
        """Keep the read's columns of rows of attention, averaged over heads where it says so."""
        kept = probabilities.mean(dim=1, keepdim=True) if read.reduce else probabilities
        index = read.keys[:, None, None, :].expand(-1, kept.shape[1], kept.shape[2], -1)
        self.keep(read.read, kept.gather(3, index))

    def keep(self, read: int, values: Tensor) -> None:
        """Keep what a layer gives for a read."""
        self.rows.setdefault((read, self.step), []).append(values)


@dataclass(frozen=True, eq=False)
class LayerWork:
    """Carries out a layer's plans, whichever executor calls it.

    `prefix` holds keys and values that come before those of the call.
    """

    prefill: LayerPlan
    decode: LayerPlan
    recorder: Recorder
    prefix: tuple[Tensor, Tensor] | None = None

    @property
    def plan(self) -> LayerPlan:
        """The plan of the pass that is being run."""
        return self.decode if self.recorder.step else self.prefill

    def mask(self, call: Call) -> Tensor | None:
        """The mask for the model's own attention: the call's, less what is hidden by mask."""
        plan = self.plan
        return _without_hidden(call, plan.changes) if plan.mask_first and plan.changes else call.mask

    def finish(
        self, call: Call, output: Float[Tensor, "sample query head dim"]
    ) -> Float[Tensor, "sample query head dim"]:
        """The attention's output with edited rows recomputed; the plan's reads go to the recorder."""
        plan, step = self.plan, self.recorder.step
        for block in plan.edits:
            before = call.probabilities(block) if plan.unsure else None
            output = call.splice(output, block, call.probabilities(block, plan.changes, step), before)
        self._read(call)
        return output

    def replaced(self, call: Call, block: Block) -> Float[Tensor, "sample query head dim"]:
        """The attention's output from a block of every row and head; the plan's reads go to the recorder."""
        probabilities = call.probabilities(block, self.plan.changes, self.recorder.step)
        self._read(call)
        output = row_outputs(probabilities, call.values, heads=block.heads)
        return output.transpose(1, 2).contiguous()

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


def _without_hidden(call: Call, changes: Sequence[Change]) -> Tensor | None:
    """The call's mask with everything hidden taken out, for every row; as it is where rows see none of that."""
    n, _, n_queries, _ = call.queries.shape
    rows = torch.arange(n_queries, device=call.queries.device).expand(n, -1)
    seen = visible(call.mask, rows, n_queries=n_queries, n_keys=call.n_keys, causal=call.causal)
    hidden = any_of([change.cells.everywhere(call.n_keys) for change in changes])
    assert hidden is not None
    if seen is None:
        return ~hidden
    left = seen & ~hidden if seen.dtype == torch.bool else seen.masked_fill(hidden, -torch.inf)
    closed = ~seen if seen.dtype == torch.bool else seen < torch.finfo(seen.dtype).min / 2
    return left if bool((hidden & ~closed).any()) else call.mask


@dataclass(frozen=True, eq=False)
class Door:
    """Offers rows at the module's `pattern`, for code inside an nnsight trace to read or overwrite.

    `rows` maps (samples, queries of the call) to the rows to offer, (sample, row).
    """

    pattern: nn.Module
    rows: Callable[[int, int], Tensor]

    def __call__(
        self, original: AttentionFunction, call: Call, kwargs: dict[str, Any]
    ) -> tuple[Tensor, Tensor | None]:
        """The attention's output; offered rows that were written to are recomputed."""
        output, weights = original(
            call.module, call.queries, call.keys[0], call.values[0], call.mask, **kwargs
        )
        block = self._block(call)
        offered = call.probabilities(block)
        version = offered._version
        returned = self.pattern(offered)
        if returned is not offered or returned._version != version:
            output = call.splice(output, block, returned)
        return output, weights

    def _block(self, call: Call) -> Block:
        n, _, n_queries, _ = call.queries.shape
        device = call.queries.device
        rows = self.rows(n, n_queries).to(device)
        sample = torch.arange(n, device=device).repeat_interleave(rows.shape[1])
        place = torch.arange(rows.shape[1], device=device).repeat(n)
        return Block(rows, (sample, place), call.all_heads)
