"""Faults of transformers' models that are mended while a model is wrapped."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import partial
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn

__all__ = ["repair", "repair_results"]


def repair(model: nn.Module) -> list[Any]:
    """Mends what can be mended from outside, by hooks on `forward`; returns them, each with `remove()`."""
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
        if {kind.__name__ for kind in type(module).__mro__} & _ALWAYS_WITH_PIXELS:
            hooks.append(module.register_forward_pre_hook(_without_pixels, with_kwargs=True))
    return hooks + repair_results(model)


def repair_results(model: nn.Module) -> list[Any]:
    """Mends models whose `forward` fails on what a part of it returns, by hooks; returns them.

    Without that such a model does not run at all, so a second instance of a model needs it as well.
    """
    found: list[Any] = [
        one for one in model.modules() if type(one).__name__ == "Llama4ForConditionalGeneration"
    ]
    return [one.language_model.register_forward_hook(_with_image_outputs) for one in found]


def _with_image_outputs(module: nn.Module, given: Any, output: Any) -> Any:
    """Gives the result of Llama 4's language model the field that transformers 5.24's `forward` asks it for."""
    if not isinstance(output, tuple) and not hasattr(output, "image_outputs"):
        output.image_outputs = None
    return output


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


def _without_pixels(
    model: Any, given: tuple[Any, ...], named: dict[str, Any]
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Gives a BLIP-2 or InstructBLIP what it embeds its ids to in the place of an image, in a pass that has none.

    Their `forward` runs the tower in every pass, those of generated tokens too: transformers' own `generate` goes past
    it, straight to the language model, for which the image's token is a word like any other.
    """
    if given or named.get("pixel_values") is not None or named.get("mm_encoder_outputs") is not None:
        return given, named
    ids = named["input_ids"]
    words = model.get_input_embeddings()(ids[ids == model.config.image_token_id])
    found = SimpleNamespace(pooler_output=words, qformer_outputs=None, vision_outputs=None)
    left_out = dict.fromkeys(set(inspect.signature(model.forward).parameters) & _OF_THE_IMAGE)
    return given, {**named, **left_out, "mm_encoder_outputs": {"image": found}}


_ALWAYS_WITH_PIXELS = {"Blip2ForConditionalGeneration", "InstructBlipForConditionalGeneration"}
_OF_THE_IMAGE = {"pixel_values", "qformer_input_ids"}
"""Arguments that have to be given, if only as None."""

_REPAIRS: dict[str, Callable[..., Any]] = {"Mistral3MultiModalProjector": _keep_single_token}
"""The name of a module's class → the hook that mends it."""
