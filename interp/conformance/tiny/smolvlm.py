"""A tiny SmolVLM."""

from __future__ import annotations

from typing import Any

import transformers

from interp.conformance.tiny.idefics3 import TOKENS
from interp.conformance.tiny.kit import FIRST_SPECIAL, VISION, template, text_config, tokenizer
from interp.models.missing import smolvlm_processor

__all__ = ["MODEL", "config", "processor"]

MODEL = transformers.SmolVLMForConditionalGeneration
_SIDE, _PATCH, _SHUFFLE = 96, 8, 4


def config() -> transformers.SmolVLMConfig:
    """Tiles of 12×12 patches, shuffled to 3×3 tokens, and a Llama."""
    return transformers.SmolVLMConfig(
        vision_config={**VISION, "image_size": _SIDE, "patch_size": _PATCH},
        text_config=text_config(transformers.LlamaConfig),
        image_token_id=FIRST_SPECIAL,
        scale_factor=_SHUFFLE,
        tie_word_embeddings=False,
    )


def processor() -> Any:
    """SmolVLM's own, without videos: up to 3×3 tiles, then the whole image squashed to one."""
    images = transformers.SmolVLMImageProcessorPil(
        size={"longest_edge": 3 * _SIDE}, max_image_size={"longest_edge": _SIDE}
    )
    return smolvlm_processor()(
        images,
        tokenizer(**TOKENS, video_token="<video>"),
        None,
        image_seq_len=(_SIDE // _PATCH // _SHUFFLE) ** 2,
        chat_template=template("<image>"),
    )
