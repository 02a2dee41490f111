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
    """Registers hooks on `forward` that mend known faults; returns their handles, each with `remove()`."""
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
    """Registers hooks on the models that do not run at all without them; returns their handles.

    In these models `forward` fails on what a part of them returns. A second instance of a model needs the hooks too.
    """
    found: list[Any] = [
        one for one in model.modules() if type(one).__name__ == "Llama4ForConditionalGeneration"
    ]
    return [one.language_model.register_forward_hook(_with_image_outputs) for one in found]


def _with_image_outputs(module: nn.Module, given: Any, output: Any) -> Any:
    """Adds the field to the result of Llama 4's language model that `forward` of transformers 5.24 reads."""
    if not isinstance(output, tuple) and not hasattr(output, "image_outputs"):
        output.image_outputs = None
    return output


def _keep_single_token(module: nn.Module, given: Any, output: Tensor) -> Tensor:
    """Puts an axis in front of Mistral 3's features of one token, (1, hidden).

    `Mistral3Model.get_image_features` calls `squeeze(0)` on features (token, hidden), to remove an axis in front. Where
    there is a single token, from an image of 28×28 pixels or less alone in its batch, it removes the tokens' axis.
    """
    return output[None] if output.ndim == 2 and len(output) == 1 else output


def _visual_words(model: Any, words: nn.Module, given: Any, output: Tensor) -> Tensor:
    """Embeds the words around Ovis 2's images and between its tiles from the table of visual words.

    `Ovis2Model.forward` does so only in a pass with pixels. In a pass that continues from an image's keys and values,
    these words would get other embeddings.
    """
    ids = torch.tensor(model.visual_indicator_token_ids, device=output.device)
    found = given[0][..., None].to(output.device) == ids
    table = model.visual_embeddings_table.weight[-len(ids) :].to(output)
    return torch.where(found.any(-1, keepdim=True), table[found.int().argmax(-1)], output)


def _without_pixels(
    model: Any, given: tuple[Any, ...], named: dict[str, Any]
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """In a pass without an image, gives BLIP-2 and InstructBLIP the embeddings of the image's ids as its features.

    Their `forward` runs the tower in every pass, also for generated tokens. transformers' own `generate` avoids that:
    it calls the language model directly, for which the image's token is a word like any other.
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
"""Arguments that `forward` requires; None will do."""

_REPAIRS: dict[str, Callable[..., Any]] = {"Mistral3MultiModalProjector": _keep_single_token}
"""The name of a module's class → the hook that mends it."""
