"""A tiny Qwen3-VL."""

from __future__ import annotations

import transformers

from interp.conformance.tiny.kit import QWEN_TOKENS, qwen_processor, text_config

__all__ = ["MODEL", "config", "processor"]

MODEL = transformers.Qwen3VLForConditionalGeneration
_PATCH = 16


def config() -> transformers.Qwen3VLConfig:
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
        vision_config={
            "depth": 2,
            "hidden_size": 32,
            "out_hidden_size": 64,
            "num_heads": 2,
            "intermediate_size": 48,
            "num_position_embeddings": 64,
            "deepstack_visual_indexes": [0],
            "patch_size": _PATCH,
        },
        **QWEN_TOKENS,
    )


def processor() -> transformers.Qwen3VLProcessor:
    """Qwen3-VL's own, for images of 9 to 60 tokens."""
    return qwen_processor(transformers.Qwen3VLProcessor, _PATCH)
