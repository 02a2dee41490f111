"""What enters the language model for a picture: processor, tower and projector, run with transformers alone."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from itertools import islice
from threading import get_ident
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from PIL import Image
from torch import Tensor, nn

from interp.errors import ModelError
from interp.inputs.text import count
from interp.models.measured.patterns import texture

__all__ = ["Embedder", "fitted", "prompt_text"]

_QUESTION = "where is it?"
_AND = "and"
_AT_ONCE = 8
_SAME = 0.1
"""Samples run together may differ from those run alone by this share of how the samples differ."""
_SIZES = ((120, 96), (84, 140), (112, 112), (96, 96))


class _EnteredError(Exception):
    """Ends a pass at the first decoder layer."""


def prompt_text(processor: Any, n_images: int, fallback: str) -> str:
    """Returns a prompt with the images' placeholders and a question, by the processor's chat template if it has one."""
    template = getattr(processor, "chat_template", None) or getattr(
        processor.tokenizer, "chat_template", None
    )
    if template is None:
        return fallback
    content = [{"type": "image"}]
    for _ in range(
        n_images - 1
    ):  # text between images, so that what sees the other image can be told from its run
        content += [{"type": "text", "text": _AND}, {"type": "image"}]
    content += [{"type": "text", "text": _QUESTION}]
    return processor.apply_chat_template(
        [{"role": "user", "content": content}], add_generation_prompt=True, chat_template=template
    )


@dataclass(frozen=True, eq=False)
class Embedder:
    """A model with its processor, and a prompt for `n_images` images.

    Attributes:
        model: The transformers model.
        processor: Its processor.
        first: The first decoder layer.
        text: The prompt, with placeholders.
        n_images: The number of images of the prompt.
        nested: Whether the processor takes the images of a prompt as a list of their own.
        at_once: The number of samples that are run together.
    """

    model: Any
    processor: Any
    first: nn.Module
    text: str
    n_images: int = 1
    nested: bool = True
    at_once: int = 1

    def inputs(self, pictures: Sequence[np.ndarray]) -> dict[str, Tensor]:
        """Returns what the processor makes of the prompt with these pictures: tensors of a batch of one."""
        own = [Image.fromarray(picture) for picture in pictures]  # some processors take no arrays (Idefics 2)
        images = [own] if self.nested else own
        found = self.processor(text=[self.text], images=images, return_tensors="pt")
        return {
            name: value for name, value in found.items() if isinstance(value, Tensor) and name != "labels"
        }

    def ids(self, pictures: Sequence[np.ndarray]) -> Int[np.ndarray, " position"]:
        """Returns the prompt's token ids."""
        return self.inputs(pictures)["input_ids"][0].numpy()

    def __call__(
        self, samples: Iterable[Sequence[np.ndarray]]
    ) -> Iterator[Float[np.ndarray, "position hidden"]]:
        """Yields what enters the first decoder layer for samples whose pictures have the same sizes."""
        rest = iter(samples)
        while part := [self.inputs(one) for one in islice(rest, self.at_once)]:
            yield from self._entering(part)

    def joins(self, samples: Sequence[Sequence[np.ndarray]]) -> bool:
        """Whether samples give the same joined along the first axis of their inputs as each alone.

        They do not where patches are numbered through the batch (Molmo 2).
        """
        singles = [self.inputs(one) for one in samples]
        alone = np.stack([self._entering([one])[0] for one in singles])
        try:
            together = self._entering(singles)
        except (RuntimeError, ValueError, IndexError):
            return False
        far = np.abs(alone[1:] - alone[:-1]).max()
        return together.shape == alone.shape and bool(np.abs(together - alone).max() < _SAME * far)

    def _entering(self, singles: Sequence[dict[str, Tensor]]) -> np.ndarray:
        shapes = {tuple((name, *value.shape[1:]) for name, value in one.items()) for one in singles}
        if len(shapes) > 1:
            raise ModelError(
                "images of the same size give inputs of different shapes, so this model's footprints cannot be "
                "measured. Write an adapter (docs/new_model.md)."
            )
        joined = {name: torch.cat([one[name] for one in singles]) for name in singles[0]}
        entering, mine = [], get_ident()

        def hook(_: nn.Module, given: tuple[Any, ...], named: dict[str, Any]) -> None:
            if get_ident() == mine:
                entering.append(_by_position(given[0] if given else named["hidden_states"]))
                raise _EnteredError

        with torch.no_grad(), suppress(_EnteredError), _hooked(self.first, hook):
            self.run(joined)
        return entering[0].float().cpu().numpy()

    def run(self, inputs: dict[str, Tensor]) -> Any:
        """Runs the model on inputs of its processor."""
        device, dtype = self.model.device, self.model.dtype
        moved = {
            name: value.to(device, dtype) if value.is_floating_point() else value.to(device)
            for name, value in inputs.items()
        }
        return self.model(**moved, use_cache=False)


def fitted(model: Any, processor: Any, first: nn.Module, n_images: int, fallback: str) -> Embedder:
    """Returns the embedder of a prompt for `n_images` images, in the form that the processor takes.

    Args:
        model: The transformers model.
        processor: Its processor.
        first: The first decoder layer.
        n_images: The number of images of the prompt.
        fallback: The prompt for a processor without a chat template.

    Raises:
        ModelError: The processor takes no such prompt.
    """
    text = prompt_text(processor, n_images, fallback)
    samples = [[texture(_SIZES[i % len(_SIZES)], 7 * k + i) for i in range(n_images)] for k in (0, 1)]
    refused: Exception | None = None
    for nested in (True, False):
        one = Embedder(model, processor, first, text, n_images, nested)
        try:
            one.inputs(samples[0])
        except (ValueError, TypeError, IndexError, RuntimeError) as error:
            refused = refused or error
            continue
        return replace(one, at_once=_AT_ONCE if one.joins(samples) else 1)
    raise ModelError(
        f"the processor takes no prompt with {count(n_images, 'image')}: {refused} The prompt is {text!r}. Measuring "
        "needs a processor that places its images itself; write an adapter (docs/new_model.md)."
    )


def _by_position(states: Tensor) -> Tensor:
    """Returns (sample, position, hidden) of what enters a layer; several streams (Gemma 3n) side by side."""
    return states if states.ndim == 3 else states.permute(1, 2, 0, 3).flatten(2)


@contextmanager
def _hooked(module: nn.Module, hook: Any) -> Any:
    handle = module.register_forward_pre_hook(hook, with_kwargs=True)
    try:
        yield
    finally:
        handle.remove()
