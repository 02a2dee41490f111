"""The hidden states of the vision tower, as a layer leaves them."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from interp.errors import ModelError, ServerError
from interp.inputs.patch_map import PatchMap
from interp.models.vision_patches import tower_layers
from interp.tracing.cost import Meter
from interp.tracing.encoding.batch import Batch
from interp.tracing.passes.run import PassCompleteError, run_pass
from interp.tracing.wrapped_model import WrappedModel

__all__ = ["feature_layer", "vision_states"]


def feature_layer(mllm: WrappedModel) -> int:
    """The layer of the tower whose output goes on to the language model: the last, unless the config names another.

    Where a config names several, the last of them.
    """
    found = getattr(mllm.hf.config, "vision_feature_layer", None)
    found = (
        max(found, key=lambda one: one % (mllm.n_vision_layers + 1))
        if isinstance(found, list | tuple)
        else found
    )
    if found is None:
        return mllm.n_vision_layers - 1
    return max(found - 1 if found >= 0 else mllm.n_vision_layers + found, 0)


def vision_states(mllm: WrappedModel, batch: Batch, layer: int) -> list[Float[np.ndarray, "position hidden"]]:
    """Each sample's hidden states after a layer of the tower, by the positions of its `PatchMap`.

    The language model is not run.

    Args:
        mllm: the model.
        batch: the encoded samples, each with an image.
        layer: the layer, 0-based.

    Raises:
        ModelError: another number of positions than the adapter's patches have.
        ServerError: a model on an NDIF server.
    """
    if mllm.server is not None:
        raise ServerError(
            "the vision tower is not read on an NDIF server. Load the model without remote=True."
        )
    found: list[Tensor] = []

    def keep(_: nn.Module, __: Any, output: Any) -> None:
        states = output if isinstance(output, Tensor) else output[0]
        found.append(states.detach().float())

    def stop(_: nn.Module, __: Any) -> None:
        raise PassCompleteError

    layers = getattr(mllm.adapter, "vision_layers", tower_layers)(mllm.hf)
    inputs = batch.inputs | {"position_ids": batch.positions}
    with mllm.installation.armed({}), torch.no_grad():
        hooks = [
            layers[layer].register_forward_hook(keep),
            mllm.installation.layers[0].register_forward_pre_hook(stop),
        ]
        try:
            with suppress(PassCompleteError):
                run_pass(mllm.hf, inputs, Meter(mllm.device), n_tokens=0)
        finally:
            for hook in hooks:
                hook.remove()
    flat = _in_order(found, batch.patches)
    starts = np.cumsum([0, *(one.length for one in batch.patches)])
    if len(flat) != starts[-1]:
        raise ModelError(
            f"the vision tower has {len(flat)} positions, but the adapter {mllm.family!r} describes {starts[-1]}. "
            "Correct the adapter's patches."
        )
    return [flat[start + one.slots] for start, one in zip(starts[:-1], batch.patches, strict=True)]


def _in_order(states: Sequence[Tensor], patches: Sequence[PatchMap]) -> Float[np.ndarray, "flat hidden"]:
    """The states of a layer's calls in the tower's own order, without the padding of lines."""
    lines = [line for one in states for line in one.reshape(-1, *one.shape[-2:])]
    if any(one.padded for one in patches):
        lengths = np.concatenate([np.bincount(one.sequence) for one in patches])
        if len(lengths) == len(lines):
            lines = [line[:n] for line, n in zip(lines, lengths.tolist(), strict=True)]
    return torch.cat(lines).cpu().numpy() if lines else np.zeros((0, 0), np.float32)
