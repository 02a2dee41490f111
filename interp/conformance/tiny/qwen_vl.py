"""Tiny models of the Qwen-VL families."""

from __future__ import annotations

from typing import Any

import transformers

from interp.conformance.tiny.kit import FIRST_SPECIAL, TinyFamily, template, text_config, tokenizer
from interp.models.processors import images_only, with_video

__all__ = ["FAMILIES", "QWEN3_VL_VISION", "TOKENS", "qwen3_vl_config", "qwen3_vl_processor"]

TOKENS: dict[str, Any] = {
    "image_token_id": FIRST_SPECIAL,
    "video_token_id": FIRST_SPECIAL + 1,
    "vision_start_token_id": FIRST_SPECIAL + 2,
    "vision_end_token_id": FIRST_SPECIAL + 3,
}
"""Arguments the Qwen-VL configs share."""


def _processor(kind: type[Any], patch: int, pixels: int = 1) -> Any:
    """A Qwen-VL processor for images of 9 to 60 tokens of 2×2 patches, and for pairs of frames of about as many."""
    cell = (2 * patch) ** 2
    images = transformers.Qwen2VLImageProcessorPil(
        patch_size=patch, size={"shortest_edge": 9 * cell, "longest_edge": 60 * cell}
    )
    words = tokenizer(
        image_token="<|image_pad|>",
        video_token="<|video_pad|>",
        vision_start_token="<|vision_start|>",
        vision_end_token="<|vision_end|>",
    )
    around = "<|vision_start|> {} <|vision_end|>"
    chat = template(around.format("<|image_pad|>"), around.format("<|video_pad|>"))
    whole = images_only(kind)(images, words, chat_template=chat)
    return with_video(
        whole,
        patch_size=patch,
        size={"shortest_edge": 9 * cell * pixels, "longest_edge": 60 * cell * pixels},
        cap_pixels_per_frame=False,
    )


_QWEN2_VL_PATCH = 14


def qwen2_vl_config() -> transformers.Qwen2VLConfig:
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
            "patch_size": _QWEN2_VL_PATCH,
        },
        **TOKENS,
    )


def qwen2_vl_processor() -> transformers.Qwen2VLProcessor:
    """Qwen2-VL's own, for images of 9 to 60 tokens."""
    return _processor(transformers.Qwen2VLProcessor, _QWEN2_VL_PATCH)


def qwen2_5_vl_config() -> transformers.Qwen2_5_VLConfig:
    """Patches of 14 px, merged 2×2, the first block in windows of 56 px; rope of time, row and column."""
    return transformers.Qwen2_5_VLConfig(
        text_config=text_config(
            transformers.Qwen2_5_VLTextConfig,
            rope_parameters={"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [2, 3, 3]},
        ),
        vision_config={
            "depth": 2,
            "hidden_size": 32,
            "out_hidden_size": 64,
            "num_heads": 2,
            "intermediate_size": 48,
            "window_size": 56,
            "fullatt_block_indexes": [1],
            "patch_size": _QWEN2_VL_PATCH,
        },
        **TOKENS,
    )


def qwen2_5_vl_processor() -> transformers.Qwen2_5_VLProcessor:
    """Qwen2.5-VL's own, for images of 9 to 60 tokens."""
    return _processor(transformers.Qwen2_5_VLProcessor, _QWEN2_VL_PATCH)


_QWEN3_VL_PATCH = 16
QWEN3_VL_VISION: dict[str, Any] = {
    "depth": 2,
    "hidden_size": 32,
    "out_hidden_size": 64,
    "num_heads": 2,
    "intermediate_size": 48,
    "num_position_embeddings": 64,
    "deepstack_visual_indexes": [0],
    "patch_size": _QWEN3_VL_PATCH,
}
"""The tower of Qwen3-VL, and of its mixture of experts."""


def qwen3_vl_config() -> transformers.Qwen3VLConfig:
    """Patches of 16 px, merged 2×2; the first block also feeds the first decoder layer; rope of three axes."""
    return transformers.Qwen3VLConfig(
        text_config=text_config(
            transformers.Qwen3VLTextConfig,
            head_dim=16,
            rope_parameters={
                "rope_type": "default",
                "rope_theta": 10000.0,
                "mrope_section": [4, 2, 2],
                "mrope_interleaved": True,
            },
        ),
        vision_config=QWEN3_VL_VISION,
        **TOKENS,
    )


def qwen3_vl_processor() -> transformers.Qwen3VLProcessor:
    """Qwen3-VL's own, for images of 9 to 60 tokens."""
    return _processor(transformers.Qwen3VLProcessor, _QWEN3_VL_PATCH, pixels=4)  # the limits are of 4 frames


FAMILIES = {
    "qwen2_vl": TinyFamily(transformers.Qwen2VLForConditionalGeneration, qwen2_vl_config, qwen2_vl_processor),
    "qwen2_5_vl": TinyFamily(
        transformers.Qwen2_5_VLForConditionalGeneration, qwen2_5_vl_config, qwen2_5_vl_processor
    ),
    "qwen3_vl": TinyFamily(transformers.Qwen3VLForConditionalGeneration, qwen3_vl_config, qwen3_vl_processor),
}
"""Each family's tiny model by its name."""
