"""One call of a layer's attention: its rows computed, edited and put back.

`LayerWork` carries out the plan of one layer in such a call: its edits, then its reads.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol, runtime_checkable

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn.attention.flex_attention import BlockMask, create_mask

from interp.tracing.attention.rows import (
    attend,
    row_outputs,
    row_probabilities,
    row_scores,
    select_rows,
    visible,
)
from interp.tracing.layers.edit_cells import At, Change
from interp.tracing.layers.heads import Heads
from interp.tracing.layers.layer_plan import Block, LayerPlan
from interp.tracing.layers.recorder import Recorder

__all__ = ["AttentionFunction", "Call", "LayerWork", "Work", "any_of", "only_visible"]


AttentionFunction = Callable[..., tuple[Tensor, Tensor | None]]


@dataclass(frozen=True, eq=False)
class Call:
    """One call of a layer's attention. Keys and values are segments: a shared prefix first, if there is."""

    module: nn.Module
    queries: Float[Tensor, "sample head query dim"]
    keys: tuple[Float[Tensor, "_ key_value_head _ _"], ...]
    values: tuple[Float[Tensor, "_ key_value_head _ _"], ...]
    mask: Tensor | None
    scaling: float
    softcap: float | None
    causal: bool

    @classmethod
    def of(
        cls,
        module: nn.Module,
        tensors: Sequence[Tensor],
        mask: Any,
        kwargs: Mapping[str, Any],
        prefix: tuple[Tensor, Tensor] | None = None,
    ) -> Call:
        """The call of an attention function with queries, keys and values, as transformers makes it.

        `mask`: what the model passed; flex attention's block masks and sliding windows that flash attention gets
        apart from the mask become (sample, head, query, key) masks. `prefix`: keys and values that come before.
        """
        query, key, value = tensors
        scaling, causal = kwargs.get("scaling"), kwargs.get("is_causal")
        made = cls(
            module=module,
            queries=query,
            keys=(key,) if prefix is None else (prefix[0], key),
            values=(value,) if prefix is None else (prefix[1], value),
            mask=_dense(mask) if isinstance(mask, BlockMask) else mask,
            scaling=query.shape[-1] ** -0.5 if scaling is None else scaling,
            softcap=kwargs.get("softcap"),
            causal=getattr(module, "is_causal", True) if causal is None else causal,
        )
        return made._windowed(kwargs.get("sliding_window"))

    def _windowed(self, window: int | None) -> Call:
        """The call with a mask that holds the layer's sliding window, where that is not in its mask already."""
        in_mask = self.mask is not None and self.mask.ndim == 4
        if window is None or in_mask or self.n_keys <= window:
            return self
        n, _, n_queries, _ = self.queries.shape
        rows = torch.arange(n_queries, device=self.queries.device).expand(n, -1)
        seen = visible(self.mask, rows, n_queries=n_queries, n_keys=self.n_keys, causal=self.causal)
        ago = (rows[..., None] + self.n_keys - n_queries) - torch.arange(self.n_keys, device=rows.device)
        near = (ago.abs() < window)[:, None]
        return replace(self, mask=near if seen is None else near & seen)

    def on_lines(self, lines: Int[Tensor, " sample"]) -> Call:
        """The call with the first segment's lines as the samples have them."""
        keys, values = ((one[0][lines], *one[1:]) for one in (self.keys, self.values))
        return replace(self, keys=keys, values=values)

    def of_samples(self, some: slice) -> Call:
        """The call of some of its samples."""
        shared = self.mask is None or self.mask.shape[0] < len(self.queries)
        return replace(
            self,
            queries=self.queries[some],
            keys=tuple(one[some] for one in self.keys),
            values=tuple(one[some] for one in self.values),
            mask=self.mask if shared or self.mask is None else self.mask[some],
        )

    def dense_mask(self) -> Tensor:
        """What every row sees, (sample, head or 1, query, key): booleans, or numbers that are added to scores."""
        n, _, n_queries, _ = self.queries.shape
        rows = torch.arange(n_queries, device=self.queries.device).expand(n, -1)
        seen = visible(self.mask, rows, n_queries=n_queries, n_keys=self.n_keys, causal=self.causal)
        if seen is None:
            return torch.ones(n, 1, n_queries, self.n_keys, dtype=torch.bool, device=rows.device)
        return seen.expand(n, -1, -1, -1)

    @property
    def all_heads(self) -> Heads:
        """Every head of the layer."""
        n = self.queries.shape[1]
        return Heads.of(range(n), n, self.keys[0].shape[1], self.queries.device)

    def heads_of(self, block: Block) -> Heads:
        """The block's heads, as this layer groups them."""
        return block.heads.among(self.keys[0].shape[1])

    @property
    def n_keys(self) -> int:
        """Keys of all segments."""
        return sum(k.shape[2] for k in self.keys)

    def probabilities(
        self, block: Block, changes: Sequence[Change] = (), step: int = 0
    ) -> Float[Tensor, "sample chosen_head row key"]:
        """The block's rows of attention under the changes."""
        wide = any(change.edit.all_heads for change in changes)
        rows, heads = block.rows, self.all_heads if wide else self.heads_of(block)
        at = At(rows, heads.index, self.n_keys, step)
        queries = select_rows(self.queries, rows)
        scores = row_scores(queries, self.keys, heads=heads, scaling=self.scaling, softcap=self.softcap)
        seen = visible(
            self.mask, rows, n_queries=self.queries.shape[2], n_keys=self.n_keys, causal=self.causal
        )
        if seen is not None and seen.shape[1] > 1:
            seen = seen[:, heads.index]
        for change in changes:
            if change.edit.stage == "scores" and not change.hides:
                scores = change(scores, at)
        hidden = any_of([change.cells.at(at) for change in changes if change.hides])
        probabilities = row_probabilities(scores, seen, hidden)
        for change in changes:
            if change.edit.stage == "probabilities":
                probabilities = only_visible(change(probabilities, at), seen)
        return probabilities[:, block.heads.index] if wide else probabilities

    def splice(
        self,
        output: Float[Tensor, "sample query head dim"],
        block: Block,
        probabilities: Float[Tensor, "sample chosen_head row key"],
        before: Float[Tensor, "sample chosen_head row key"] | None = None,
    ) -> Float[Tensor, "sample query head dim"]:
        """The attention's output with the block's rows recomputed from probabilities; the rest as it is.

        Rows whose probabilities are those of `before` are left as they are too.
        """
        new = row_outputs(probabilities, self.values, heads=self.heads_of(block)).to(output.dtype)
        sample, place = block.cells
        at = (sample[:, None], block.rows[sample, place][:, None], block.heads.index[None, :])
        values = new[sample, :, place]
        if before is not None:
            changed = (probabilities != before).any(dim=-1)[sample, :, place]
            values = torch.where(changed[..., None], values, output[at])
        output = output.clone() if output.requires_grad else output
        output[at] = values
        return output


def _dense(mask: Any) -> Bool[Tensor, "sample head query key"]:
    """A block mask of flex attention written out; once for all layers."""
    found = vars(mask).get("interp_dense")
    if found is None:
        device = mask.kv_num_blocks.device
        found = create_mask(mask.mask_mod, *mask.shape, device=device)
        mask.interp_dense = found
    return found


def only_visible(
    probabilities: Float[Tensor, "sample head row key"], seen: Tensor | None
) -> Float[Tensor, "sample head row key"]:
    """Probabilities with 0 at keys that rows cannot see; `seen` as `visible` gives it."""
    if seen is None:
        return probabilities
    closed = ~seen if seen.dtype == torch.bool else seen < torch.finfo(seen.dtype).min / 2
    return probabilities.masked_fill(closed, 0.0)


def any_of(masks: Sequence[Bool[Tensor, "_ _ row key"]]) -> Bool[Tensor, "_ _ row key"] | None:
    """The union of masks; None for none."""
    found = None
    for mask in masks:
        found = mask if found is None else found | mask
    return found


@runtime_checkable
class Work(Protocol):
    """What an attention module does while it is armed."""

    def __call__(
        self, original: AttentionFunction, call: Call, kwargs: dict[str, Any]
    ) -> tuple[Tensor, Tensor | None]:
        """The attention's output and weights."""
        ...


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
