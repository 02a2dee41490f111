"""A tiny Qwen2-VL."""

from __future__ import annotations

import transformers

from interp.conformance.tiny.kit import FIRST_SPECIAL, template, text_config, tokenizer
from interp.models.processors import images_only

__all__ = ["MODEL", "config", "processor"]

MODEL = transformers.Qwen2VLForConditionalGeneration
_PATCH, _CELL = 14, 28


def config() -> transformers.Qwen2VLConfig:
    """Patches of 14 px, merged 2×2; rope of time, row and column."""
    return transformers.Qwen2VLConfig(
        text_config=text_config(
            transformers.Qwen2VLTextConfig,
            rope_parameters={"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [2, 3, 3]},
        ),
        vision_config={
            "depth": 2,
            "embed_dim": 32,
            "hidden_size": 64,
            "num_heads": 2,
            "mlp_ratio": 2,
            "patch_size": _PATCH,
        },
        image_token_id=FIRST_SPECIAL,
        video_token_id=FIRST_SPECIAL + 1,
        vision_start_token_id=FIRST_SPECIAL + 2,
        vision_end_token_id=FIRST_SPECIAL + 3,
    )


def processor() -> transformers.Qwen2VLProcessor:
    """Qwen2-VL's own, for images of 9 to 60 tokens."""
    images = transformers.Qwen2VLImageProcessorPil(
        patch_size=_PATCH, size={"shortest_edge": 9 * _CELL**2, "longest_edge": 60 * _CELL**2}
    )
    words = tokenizer(
        image_token="<|image_pad|>",
        video_token="<|video_pad|>",
        vision_start_token="<|vision_start|>",
        vision_end_token="<|vision_end|>",
    )
    return images_only(transformers.Qwen2VLProcessor)(
        images, words, chat_template=template("<|vision_start|> <|image_pad|> <|vision_end|>")
    )
