"""The residual stream of one pass at chosen rows: what enters the first decoder layer, and what each one returns."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from interp.tracing.cost import Meter
from interp.tracing.encoding.batch import Batch
from interp.tracing.layers.residual import side_by_side
from interp.tracing.passes.non_finite import check_logits
from interp.tracing.passes.run import run_pass
from interp.tracing.wrapped_model import WrappedModel

__all__ = ["read_streams"]

Stream = Float[Tensor, "layer row hidden"]


def read_streams(
    mllm: WrappedModel, batch: Batch, rows: Sequence[Sequence[int]], meter: Meter
) -> tuple[list[Stream], Float[Tensor, "sample token_id"]]:
    """Each sample's stream, and the logits after its last token, float32. One pass; they stay on the model's device.

    Entry 0 of "layer" is what enters the first decoder layer ("layer −1"), entry ℓ + 1 what layer ℓ returns, in the
    model's dtype and units. Streams that a decoder keeps stacked (Gemma 3n) stand side by side.

    Args:
        mllm: the model, on this machine.
        batch: encoded samples or texts.
        rows: the rows of each sample that are read, unpadded.
        meter: counts the pass.

    Raises:
        ModelError: Logits that are not finite, or a model without weights here.
    """
    mllm.installation.need_weights()
    at = [torch.as_tensor(own) + int(pad) for own, pad in zip(rows, batch.pad, strict=True)]
    found: list[list[Tensor]] = []

    def keep(hidden: Tensor) -> None:
        one = side_by_side(hidden)
        found.append([one[i, own.to(one.device)] for i, own in enumerate(at)])

    layers = mllm.adapter.layers(mllm.hf)
    inputs = batch.inputs | {"position_ids": batch.positions}
    with mllm.installation.armed({}), torch.no_grad(), ExitStack() as stack:
        stack.callback(layers[0].register_forward_pre_hook(_entering(keep)).remove)
        for layer in layers:
            stack.callback(layer.register_forward_hook(_leaving(keep)).remove)
        logits = run_pass(mllm.hf, inputs, meter).float()
    check_logits(mllm, batch, logits)
    streams = [torch.stack([layer[i].to(logits.device) for layer in found]) for i in range(len(batch))]
    return streams, logits[:, -1]


def _entering(keep: Callable[[Tensor], None]) -> Callable[[nn.Module, Any], None]:
    return lambda _, arguments: keep(arguments[0])


def _leaving(keep: Callable[[Tensor], None]) -> Callable[[nn.Module, Any, Any], None]:
    return lambda _, arguments, output: keep(output if isinstance(output, Tensor) else output[0])
