"""Carries out the plan of a layer while the model calls its attention (`LayerWork`) or its delta rule (`DeltaWork`).

`DeltaWork` is for gated DeltaNet layers: it reads rows, and erases what tokens write to the state for some rows.
transformers' forward calls the delta rule by name; `tapped` puts the work of an armed layer in its place.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from types import FunctionType, MethodType
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from interp.errors import ModelError
from interp.tracing.attention.delta_rows import DeltaCall
from interp.tracing.attention.edit_cells import At, Change
from interp.tracing.attention.rows import (
    AttentionFunction,
    Block,
    Call,
    any_of,
    attend,
    row_outputs,
    visible,
)
from interp.tracing.attention.shared_keys import HiddenCells
from interp.tracing.layers.layer_plan import LayerPlan, Recorder

__all__ = ["DeltaWork", "ErasedTokens", "LayerWork", "Rule", "rule_name", "rules", "tapped"]


@dataclass(frozen=True, eq=False)
class LayerWork:
    """Carries out a layer's plans, whichever executor calls it.

    Attributes:
        prefill: The plan of the prompt's pass.
        decode: The plan of the pass of each generated token.
        recorder: Takes what is read.
        prefix: Keys and values that come before those of the call; None without a prefix.
        lines: The line of the prefix that each sample has; None where each line serves equally many samples, in order.
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
        """The attention's output, with the heads replaced that the plan replaces."""
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
        output = attend(call, mask)
        return self.finish(call, output), None


def _without_hidden(
    call: Call, changes: Sequence[Change], hides: dict[tuple[int, ...], bool]
) -> Tensor | None:
    """The call's mask with everything hidden taken out, for every row; as it is where rows see none of that.

    A mask of four dimensions is always replaced, because checking whether it changed would wait for the device. A call
    without such a mask may take another kernel, so it is checked, once for all layers with the same changes (`hides`).
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


Rule = Callable[..., tuple[Tensor, Tensor | None]]
"""transformers' gated delta rule: (query, key, value, g=, beta=, …) → (output, final state)."""
_PREFILL, _DECODE = "torch_chunk_gated_delta_rule", "torch_recurrent_gated_delta_rule"
"""Which rule transformers runs over a prompt, and which over the token that follows a state."""


@dataclass(eq=False)
class DeltaWork:
    """Carries out a layer's plans, whichever executor calls it.

    Rows of generated tokens are read over what is kept of the tokens before (their keys, write strengths and decays),
    and see a prompt whose tokens were erased for them, because that is in the state they start from.
    """

    prefill: LayerPlan
    decode: LayerPlan
    recorder: Recorder
    _before: DeltaCall | None = field(default=None, repr=False)

    def __call__(self, rule: Rule, *tensors: Tensor, **options: Any) -> tuple[Tensor, Tensor | None]:
        """The rule's output and final state under the plan's edits; the plan's reads go to the recorder."""
        output, state = rule(*tensors, **options)
        if self.recorder.paused:
            return output, state
        return self.finish(rule, tensors, options, output, state)

    def finish(
        self,
        rule: Rule,
        tensors: Sequence[Tensor],
        options: Mapping[str, Any],
        output: Float[Tensor, "sample token head value_dim"],
        state: Tensor | None,
    ) -> tuple[Tensor, Tensor | None]:
        """What a call of the rule gave, with edited rows recomputed and the state as generated tokens see it.

        Args:
            rule: the rule, to be run again where the state changes.
            tensors: the query, key and value of the call.
            options: its other arguments.
            output: what it gave.
            state: the state after the last token; None where it is not kept.
        """
        with torch.autocast(output.device.type, enabled=False):  # own arithmetic stays float32
            call = _call(tensors, options)
            if self.recorder.step:
                self._generated(call)
                return output, state
            for block in self.prefill.edits:
                output = _spliced(call, output, block, self._weights(call, block))
            for read in self.prefill.reads:
                self.recorder.add(read, self._weights(call, read.block))
        return output, self._after_prompt(rule, call, tensors, options, state)

    def _weights(self, call: DeltaCall, block: Block) -> Float[Tensor, "sample chosen_head row key"]:
        """A block's weights in the prompt, under every change of the layer."""
        at = At(block.rows, block.heads.index, call.keys.shape[2])
        hidden = any_of([change.cells.at(at) for change in self.prefill.changes])
        return call.weights(block.rows, block.heads.index, hidden)

    def _after_prompt(
        self,
        rule: Rule,
        call: DeltaCall,
        tensors: Sequence[Tensor],
        options: Mapping[str, Any],
        state: Tensor | None,
    ) -> Tensor | None:
        """The state without what is erased for generated tokens; what their reads need of the prompt is kept."""
        erased = _erased(self.decode.changes, call)
        beta = call.beta if erased is None else call.beta.masked_fill(erased, 0.0)
        if self.decode.reads:
            self._before = replace(call, beta=beta)
        if erased is None or state is None:
            return state
        own = options["beta"]
        return rule(*tensors, **{**options, "beta": beta.transpose(1, 2).to(own.dtype)})[1]

    def _generated(self, call: DeltaCall) -> None:
        """Reads the row of a generated token."""
        if self._before is None:
            return
        past = self._before
        keys, values = (
            torch.cat(pair, dim=2) for pair in ((past.keys, call.keys), (past.values, call.values))
        )
        beta, decay = (torch.cat(pair, dim=2) for pair in ((past.beta, call.beta), (past.decay, call.decay)))
        whole = DeltaCall(call.queries, keys, values, beta, decay)
        self._before = whole
        for read in self.decode.reads:
            heads = read.block.heads.index
            self.recorder.add(read, whole.last(heads))


@dataclass(frozen=True, eq=False)
class ErasedTokens:
    """The work of a layer when the rows of a pass over whole prompts are variants of the same tokens.

    `hidden` says which tokens' writes each variant erases for which rows: the same ones for all its rows.
    """

    hidden: HiddenCells

    def __call__(self, rule: Rule, *tensors: Tensor, **options: Any) -> tuple[Tensor, Tensor | None]:
        """The rule's output, that of a second run without those tokens at the variants' rows; the state as it is."""
        output, state = rule(*tensors, **options)
        erased = self.hidden.keys[:, :, None]
        if self.hidden.heads is not None:
            erased = erased & self.hidden.heads[:, None, :]
        without = rule(*tensors, **{**options, "beta": options["beta"].masked_fill(erased, 0.0)})[0]
        return torch.where(self.hidden.queries[:, :, None, None], without, output), state


def _call(tensors: Sequence[Tensor], options: Mapping[str, Any]) -> DeltaCall:
    unit = bool(options.get("use_qk_l2norm_in_kernel"))
    query, key, value = tensors
    return DeltaCall.of(query, key, value, options["g"], options["beta"], unit)


def _erased(changes: Sequence[Change], call: DeltaCall) -> Bool[Tensor, "sample head key"] | None:
    """Which tokens of the prompt have their writes erased for generated tokens; None for none."""
    if not changes:
        return None
    n, n_heads, n_keys = call.beta.shape
    row = torch.zeros(n, 1, dtype=torch.long, device=call.beta.device)
    at = At(row, torch.arange(n_heads, device=row.device), n_keys)
    found = any_of([change.cells.at(at) for change in changes])
    assert found is not None
    return found[:, :, 0].expand(-1, n_heads, -1)


def _spliced(
    call: DeltaCall,
    output: Float[Tensor, "sample token head value_dim"],
    block: Block,
    weights: Float[Tensor, "sample chosen_head row key"],
) -> Float[Tensor, "sample token head value_dim"]:
    """The output with the block's rows recomputed from their weights; the rest as it is."""
    heads = block.heads.index
    new = (weights @ call.values[:, heads]).to(output.dtype)
    sample, place = block.cells
    output = output.clone()
    output[sample[:, None], block.rows[sample, place][:, None], heads[None, :]] = new[sample, :, place]
    return output


def rule_name(step: int) -> str:
    """The name of the rule that transformers runs over a prompt (step 0), or over a generated token."""
    return _DECODE if step else _PREFILL


@contextmanager
def tapped(module: nn.Module, work: Callable[..., tuple[Tensor, Tensor | None]]) -> Iterator[None]:
    """For the block, the module's own forward calls `work` where it would call the gated delta rule.

    The forward is transformers' own code; only the names of the two rules mean something else in it.

    Raises:
        ModelError: A forward that does not call them, or weights that accelerate fetches for the forward.
    """
    before = module.__dict__.get("forward")
    module.__dict__["forward"] = MethodType(_calling(module, work), module)
    try:
        yield
    finally:
        module.__dict__.pop("forward")
        if before is not None:
            module.__dict__["forward"] = before


def rules(module: nn.Module) -> dict[str, Rule]:
    """The gated delta rules that a module's forward calls, by name.

    Raises:
        ModelError: A forward that does not call them.
    """
    own: Any = inspect.unwrap(type(module).forward)
    names = [
        name for name in (_PREFILL, _DECODE) if name in own.__code__.co_names and name in own.__globals__
    ]
    if len(names) < 2:
        raise ModelError(
            f"{type(module).__name__}.forward does not call transformers' {_PREFILL} and {_DECODE}, so rows of its "
            'layer cannot be read or edited. Name attention layers, such as layers="attention".'
        )
    return {name: own.__globals__[name] for name in names}


def _calling(module: nn.Module, work: Callable[..., tuple[Tensor, Tensor | None]]) -> FunctionType:
    """The module's forward with the rules in its names replaced."""
    known = rules(module)
    if any(hasattr(one, "_hf_hook") for one in (module, *module.children())):
        raise ModelError(
            f"accelerate moves the weights of this {type(module).__name__} while it runs, so rows of its layer cannot "
            "be read or edited. Load the model on one device, without device_map, to read or edit linear layers."
        )
    own: Any = inspect.unwrap(type(module).forward)
    names = {**own.__globals__, **{name: partial(work, rule) for name, rule in known.items()}}
    made = FunctionType(own.__code__, names, own.__name__, own.__defaults__, own.__closure__)
    made.__kwdefaults__ = own.__kwdefaults__
    return made
