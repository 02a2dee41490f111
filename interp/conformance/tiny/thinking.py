"""A tiny LLaVA whose chat template has a switch for thoughts, and whose tokenizer has their marks."""

from __future__ import annotations

from typing import Any

import transformers

from interp.conformance.tiny import one_grid
from interp.conformance.tiny.kit import build, template, tokenizer

__all__ = ["tiny_thinking"]

_SWITCH = (
    "{% if add_generation_prompt %}{% if enable_thinking is defined and enable_thinking is false %}"
    "<think> </think> {% elif enable_thinking is defined %}<think> {% endif %}{% endif %}"
)
"""Open when it is asked for, closed when it is switched off, left to the model otherwise."""


def tiny_thinking(attention: str = "sdpa", seed: int = 0) -> tuple[Any, Any]:
    """Returns a LLaVA with random weights that may think, and its processor.

    Args:
        attention: The model's attention implementation.
        seed: The seed of the weights.
    """
    model = build(transformers.LlavaForConditionalGeneration, one_grid.llava_config(), attention, seed)
    processor = one_grid.llava_processor()
    processor.tokenizer = tokenizer(image_token="<image>", think_token="<think>", end_token="</think>")
    processor.chat_template = template("<image>") + _SWITCH
    return model, processor
