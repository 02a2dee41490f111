"""Faults of transformers' models that are mended while a model is wrapped."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
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
    hooks = [module.register_forward_hook(mended) for module, mended in found]
    for module in model.modules():
        if type(module).__name__ == "Ovis2Model":
            words: Any = module.get_input_embeddings()  # pyright: ignore[reportCallIssue]
            hooks.append(words.register_forward_hook(partial(_visual_words, module)))
    return hooks


def _keep_single_token(module: nn.Module, given: Any, output: Tensor) -> Tensor:
    """Puts an axis in front of Mistral 3's features of one token, (1, hidden).

    `Mistral3Model.get_image_features` takes (token, hidden) and calls `squeeze(0)` on it, which is for an axis in front
    and takes the tokens' axis where there is one token in all: an image of 28×28 pixels or less, alone in its batch.
    """
    return output[None] if output.ndim == 2 and len(output) == 1 else output


def _visual_words(model: Any, words: nn.Module, given: Any, output: Tensor) -> Tensor:
    """Embeds the words around Ovis 2's images and between its tiles from the table of visual words.

    `Ovis2Model.forward` does so only in a pass that has the pixels, so the words behind an image would be others in a
    pass that goes on from its keys and values.
    """
    ids = torch.tensor(model.visual_indicator_token_ids, device=output.device)
    found = given[0][..., None].to(output.device) == ids
    table = model.visual_embeddings_table.weight[-len(ids) :].to(output)
    return torch.where(found.any(-1, keepdim=True), table[found.int().argmax(-1)], output)


_REPAIRS: dict[str, Callable[..., Any]] = {"Mistral3MultiModalProjector": _keep_single_token}
"""The name of a module's class → the hook that mends it."""
