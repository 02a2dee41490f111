"""Passes through which gradients flow, in a model that is never changed: no parameter gets a gradient."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from interp.errors import ModelError
from interp.tracing.cost import Meter
from interp.tracing.encode import Batch
from interp.tracing.objectives import Objective
from interp.tracing.prefix import Prefix, suffix_cache, suffix_inputs
from interp.tracing.tap import Work

if TYPE_CHECKING:
    from interp.tracing.mllm import Mllm

__all__ = ["differentiable", "entering", "normal", "recording", "run_objective"]


@contextmanager
def recording(mllm: Mllm, work: Mapping[int, Work] | None = None) -> Iterator[None]:
    """Gradients are recorded for the block, whatever the caller's mode, and end at what asks for them.

    The model's parameters ask for none meanwhile, so that nothing is kept for their sake.

    Args:
        mllm: the model.
        work: what attention modules do in the block.
    """
    with mllm.installation.armed(work or {}), torch.inference_mode(False), torch.enable_grad():
        asking = [weight for weight in mllm.hf.parameters() if weight.requires_grad]
        try:
            for weight in asking:
                weight.requires_grad_(False)
            yield
        finally:
            for weight in asking:
                weight.requires_grad_(True)


def differentiable(mllm: Mllm) -> None:
    """Raise `ModelError` for weights through which no gradient can flow."""
    if any(weight.is_inference() for weight in mllm.hf.parameters()):
        raise ModelError(
            "gradients need weights that autograd may use; these were loaded under torch.inference_mode. Load the "
            "model outside of it; the call itself may be inside."
        )


def run_objective(
    mllm: Mllm,
    objective: Objective,
    meter: Meter,
    before: Prefix | None = None,
    changed: Mapping[str, Tensor] | None = None,
) -> Float[Tensor, "sample position token_id"]:
    """The logits after the last positions of an objective's pass; inside `recording`.

    Args:
        mllm: the model.
        objective: the pass.
        meter: told of it.
        before: keys and values that come before what is run.
        changed: arguments to put in the place of the batch's.
    """
    batch = objective.batch
    if before is None:
        inputs, cache = batch.inputs | {"position_ids": batch.positions}, None
    else:
        inputs, cache = suffix_inputs(before, batch), suffix_cache(before)
    meter.forwards += 1
    meter.tokens += inputs["input_ids"].numel()
    arguments = {**inputs, **(changed or {}), "past_key_values": cache, "use_cache": cache is not None}
    found = mllm.hf(**arguments, logits_to_keep=objective.keep, return_dict=True)
    return found.logits[:, -objective.keep :]


def normal(given: Batch | Prefix) -> Batch | Prefix:
    """The same values in tensors that autograd may keep; those made under `torch.inference_mode` are copied."""
    if isinstance(given, Prefix):
        batch = normal(given.batch)
        assert isinstance(batch, Batch)
        keys, values = (tuple(map(_copied, one)) for one in (given.keys, given.values))
        return replace(given, batch=batch, keys=keys, values=values)
    inputs = {name: _copied(value) for name, value in given.inputs.items()}
    return replace(given, inputs=inputs, positions=_copied(given.positions))


def _copied(value: Tensor) -> Tensor:
    return value.clone() if value.is_inference() else value


@contextmanager
def entering(layer: nn.Module, change: Callable[[Tensor], Tensor]) -> Iterator[None]:
    """Puts what `change` makes of a layer's input, (sample, position, hidden), in its place for the block."""

    def hook(_: nn.Module, arguments: tuple[Any, ...], named: dict[str, Any]) -> Any:
        if arguments:
            return (change(arguments[0]), *arguments[1:]), named
        return arguments, {**named, "hidden_states": change(named["hidden_states"])}

    handle = layer.register_forward_pre_hook(hook, with_kwargs=True)
    try:
        yield
    finally:
        handle.remove()
