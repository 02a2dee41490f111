"""A tiny Qwen2-VL."""

from __future__ import annotations

import transformers

from interp.conformance.tiny.kit import QWEN_TOKENS, qwen_processor, text_config

__all__ = ["MODEL", "config", "processor"]

MODEL = transformers.Qwen2VLForConditionalGeneration
_PATCH = 14


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
        **QWEN_TOKENS,
    )


def processor() -> transformers.Qwen2VLProcessor:
    """Qwen2-VL's own, for images of 9 to 60 tokens."""
    return qwen_processor(transformers.Qwen2VLProcessor, _PATCH)
