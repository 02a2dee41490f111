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


MODEL_qwen2_5_vl = transformers.Qwen2_5_VLForConditionalGeneration
_PATCH_qwen2_5_vl = 14


def config_qwen2_5_vl() -> transformers.Qwen2_5_VLConfig:
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
            "patch_size": _PATCH_qwen2_5_vl,
        },
        **QWEN_TOKENS,
    )


def processor_qwen2_5_vl() -> transformers.Qwen2_5_VLProcessor:
    """Qwen2.5-VL's own, for images of 9 to 60 tokens."""
    return qwen_processor(transformers.Qwen2_5_VLProcessor, _PATCH_qwen2_5_vl)


MODEL_qwen3_vl = transformers.Qwen3VLForConditionalGeneration
_PATCH_qwen3_vl = 16


def config_qwen3_vl() -> transformers.Qwen3VLConfig:
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
            "patch_size": _PATCH_qwen3_vl,
        },
        **QWEN_TOKENS,
    )


def processor_qwen3_vl() -> transformers.Qwen3VLProcessor:
    """Qwen3-VL's own, for images of 9 to 60 tokens."""
    return qwen_processor(transformers.Qwen3VLProcessor, _PATCH_qwen3_vl)
