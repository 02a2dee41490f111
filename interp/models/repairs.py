"""Faults of transformers' models that are mended while a model is wrapped."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor, nn

__all__ = ["repair"]


def repair(model: nn.Module) -> list[Any]:
    """Mends what can be mended from outside, by forward hooks; returns them, each with `remove()`."""
    found = [
        (module, mended)
        for module in model.modules()
        for kind in type(module).__mro__
        if (mended := _REPAIRS.get(kind.__name__)) is not None
    ]
    return [module.register_forward_hook(mended) for module, mended in found]


def _keep_single_token(module: nn.Module, given: Any, output: Tensor) -> Tensor:
    """Puts an axis in front of Mistral 3's features of one token, (1, hidden).

    `Mistral3Model.get_image_features` takes (token, hidden) and calls `squeeze(0)` on it, which is for an axis in front
    and takes the tokens' axis where there is one token in all: an image of 28×28 pixels or less, alone in its batch.
    """
    return output[None] if output.ndim == 2 and len(output) == 1 else output


_REPAIRS: dict[str, Callable[..., Any]] = {"Mistral3MultiModalProjector": _keep_single_token}
"""The name of a module's class → the hook that mends it."""
