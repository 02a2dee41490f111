"""A tiny Qwen2.5-VL."""

from __future__ import annotations

import transformers

from interp.conformance.tiny.kit import QWEN_TOKENS, qwen_processor, text_config

__all__ = ["MODEL", "config", "processor"]

MODEL = transformers.Qwen2_5_VLForConditionalGeneration
_PATCH = 14


def config() -> transformers.Qwen2_5_VLConfig:
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
            "patch_size": _PATCH,
        },
        **QWEN_TOKENS,
    )


def processor() -> transformers.Qwen2_5_VLProcessor:
    """Qwen2.5-VL's own, for images of 9 to 60 tokens."""
    return qwen_processor(transformers.Qwen2_5_VLProcessor, _PATCH)
