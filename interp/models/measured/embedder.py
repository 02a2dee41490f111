"""What enters the language model for a picture: processor, tower and projector, run with transformers alone."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from itertools import islice
from threading import get_ident
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from interp.errors import ModelError

__all__ = ["Embedder", "prompt_text"]

_QUESTION = "where is it?"
_AT_ONCE = 8


class _EnteredError(Exception):
    """Ends a pass at the first decoder layer."""


def prompt_text(processor: Any, n_images: int, fallback: str) -> str:
    """Returns a prompt with the images' placeholders and a question, by the processor's chat template if it has one."""
    template = getattr(processor, "chat_template", None) or getattr(
        processor.tokenizer, "chat_template", None
    )
    if template is None:
        return fallback
    content = [{"type": "image"}] * n_images + [{"type": "text", "text": _QUESTION}]
    return processor.apply_chat_template(
        [{"role": "user", "content": content}], add_generation_prompt=True, chat_template=template
    )


@dataclass(frozen=True, eq=False)
class Embedder:
    """A model with its processor, and a prompt for `n` images.

    Attributes:
        model: The transformers model.
        processor: Its processor.
        first: The first decoder layer.
        text: The prompt, with placeholders.
    """

    model: Any
    processor: Any
    first: nn.Module
    text: str

    def inputs(self, pictures: Sequence[np.ndarray]) -> dict[str, Tensor]:
        """Returns what the processor makes of the prompt with these pictures: tensors of a batch of one."""
        found = self.processor(text=[self.text], images=[list(pictures)], return_tensors="pt")
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
        while part := list(islice(rest, _AT_ONCE)):
            yield from self._entering([self.inputs(one) for one in part])

    def _entering(self, singles: Sequence[dict[str, Tensor]]) -> np.ndarray:
        shapes = {tuple((name, *value.shape[1:]) for name, value in one.items()) for one in singles}
        if len(shapes) > 1:
            raise ModelError(
                "pictures of one size do not give inputs of one shape, so that what changes cannot be told from where "
                "tokens are; this model's footprints cannot be measured. Write an adapter (docs/new_model.md)."
            )
        joined = {name: torch.cat([one[name] for one in singles]) for name in singles[0]}
        entering, mine = [], get_ident()

        def hook(_: nn.Module, given: tuple[Any, ...], named: dict[str, Any]) -> None:
            if get_ident() == mine:
                entering.append(given[0] if given else named["hidden_states"])
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


@contextmanager
def _hooked(module: nn.Module, hook: Any) -> Any:
    handle = module.register_forward_pre_hook(hook, with_kwargs=True)
    try:
        yield
    finally:
        handle.remove()
