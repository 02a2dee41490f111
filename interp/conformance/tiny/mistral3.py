"""A tiny Mistral 3 (Mistral Small 3.1)."""

from __future__ import annotations

from typing import Any

import transformers

from interp.conformance.tiny.kit import FIRST_SPECIAL, VISION, template, text_config, tokenizer
from interp.models.missing import pixtral_processor

__all__ = ["MODEL", "config", "processor"]

MODEL = transformers.Mistral3ForConditionalGeneration
_PATCH, _MERGE, _LONGEST = 14, 2, 140


def config() -> transformers.Mistral3Config:
    """A Pixtral tower whose patches are merged two by two, and a Mistral."""
    return transformers.Mistral3Config(
        vision_config=transformers.PixtralVisionConfig(**VISION, image_size=_LONGEST, patch_size=_PATCH),
        text_config=text_config(transformers.MistralConfig, sliding_window=None),
        image_token_index=FIRST_SPECIAL,
        spatial_merge_size=_MERGE,
        tie_word_embeddings=False,
    )


def processor() -> Any:
    """Pixtral's own: the longest edge at most 140 pixels, both edges rounded up to merged patches."""
    words = tokenizer(image_token="[IMG]", image_break_token="[IMG_BREAK]", image_end_token="[IMG_END]")
    return pixtral_processor()(
        transformers.PixtralImageProcessorPil(
            size={"longest_edge": _LONGEST}, patch_size={"height": _PATCH, "width": _PATCH}
        ),
        words,
        patch_size=_PATCH,
        spatial_merge_size=_MERGE,
        chat_template=template("[IMG]"),
    )
