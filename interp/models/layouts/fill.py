"""The transformers model of a checkpoint, built empty and filled tensor by tensor."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from interp.models.layouts.checkpoint import Checkpoint

__all__ = ["empty_model", "fill"]


def empty_model(checkpoint: Checkpoint, dtype: torch.dtype = torch.float32) -> Any:
    """The checkpoint's model with its parameters on the meta device: no memory, no weights. Buffers are real."""
    with _parameters_on_meta():
        return checkpoint.model_class._from_config(checkpoint.config, dtype=dtype).eval()


def fill(
    checkpoint: Checkpoint, dtype: str | torch.dtype = "auto", device: str | torch.device = "cpu"
) -> Any:
    """The checkpoint's model with its weights.

    Names and shapes are checked before anything is read; then one tensor after another is read, cast and moved, so
    that beside the model only one tensor is in memory.

    Args:
        checkpoint: an opened checkpoint.
        dtype: of the weights; "auto" is the language model's in the files.
        device: where they go.

    Raises:
        ModelError: Missing, unexpected or mis-shaped tensors; the message lists them.
    """
    kind = checkpoint.dtype if not isinstance(dtype, torch.dtype) else dtype
    model = empty_model(checkpoint, kind)
    tied = check(checkpoint, model)
    for name, tensor in checkpoint.tensors():
        if name not in tied:
            _put(model, name, tensor, kind, device)
    model.tie_weights()
    model.name_or_path = checkpoint.where
    return model.to(device)


def check(checkpoint: Checkpoint, model: Any) -> frozenset[str]:
    """Names that are tied to others and are not read; raises unless the checkpoint fits the model.

    Raises:
        ModelError: Missing, unexpected or mis-shaped tensors.
    """
    tied = frozenset(getattr(model, "all_tied_weights_keys", {}))
    checkpoint.check(dict(model.state_dict()), tuple(tied))
    return tied


def _put(model: nn.Module, name: str, tensor: torch.Tensor, dtype: torch.dtype, device: Any) -> None:
    path, _, leaf = name.rpartition(".")
    owner = model.get_submodule(path)
    kind = dtype if tensor.is_floating_point() else tensor.dtype
    value = tensor.detach().to(device=device, dtype=kind, copy=True).contiguous()
    if leaf in owner._parameters:
        owner._parameters[leaf] = nn.Parameter(value, requires_grad=value.is_floating_point())
    else:
        owner._buffers[leaf] = value


@contextmanager
def _parameters_on_meta() -> Iterator[None]:
    """In the block, modules keep their parameters without data; buffers, which no file holds, are computed."""
    register = nn.Module.register_parameter

    def on_meta(self: nn.Module, name: str, param: nn.Parameter | None) -> None:
        if param is not None and param.device.type != "meta":
            param = nn.Parameter(param.detach().to("meta"), requires_grad=param.requires_grad)
        register(self, name, param)

    nn.Module.register_parameter = on_meta
    try:
        yield
    finally:
        nn.Module.register_parameter = register
