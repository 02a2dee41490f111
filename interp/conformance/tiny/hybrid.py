"""Tiny models of families whose decoder mixes gated DeltaNet layers with attention layers."""

from __future__ import annotations

from typing import Any

import transformers

from interp.conformance.tiny.kit import TinyFamily, text_config
from interp.conformance.tiny.qwen_vl import QWEN3_VL_PATCH, TOKENS, qwen3_vl_processor

__all__ = ["FAMILIES"]

_TEXT: dict[str, Any] = {
    "head_dim": 16,
    "linear_conv_kernel_dim": 4,
    "linear_key_head_dim": 8,
    "linear_value_head_dim": 12,
    "linear_num_key_heads": 2,
    "linear_num_value_heads": 6,
    "tie_word_embeddings": False,
    "rope_parameters": {
        "rope_type": "default",
        "rope_theta": 10000.0,
        "partial_rotary_factor": 0.5,
        "mrope_section": [2, 1, 1],
        "mrope_interleaved": True,
    },
}
"""Arguments of both language models: three DeltaNet heads to a key head, rope on half of each attention head."""

_VISION: dict[str, Any] = {
    "depth": 2,
    "hidden_size": 32,
    "out_hidden_size": 64,
    "num_heads": 2,
    "intermediate_size": 48,
    "num_position_embeddings": 64,
    "patch_size": QWEN3_VL_PATCH,
}


def qwen3_5_config() -> transformers.Qwen3_5Config:
    """Eight layers in the family's own mixture: three of gated DeltaNet, then one of attention with an output gate."""
    text = text_config(transformers.Qwen3_5TextConfig, layers=8, **_TEXT)
    return transformers.Qwen3_5Config(text_config=text, vision_config=_VISION, **TOKENS)


def qwen3_5_moe_config() -> transformers.Qwen3_5MoeConfig:
    """Four layers of the same mixture; a token takes two of four experts in each, and one that all tokens share."""
    text = text_config(
        transformers.Qwen3_5MoeTextConfig,
        layers=4,
        num_experts=4,
        num_experts_per_tok=2,
        moe_intermediate_size=32,
        shared_expert_intermediate_size=32,
        **_TEXT,
    )
    return transformers.Qwen3_5MoeConfig(text_config=text, vision_config=_VISION, **TOKENS)


FAMILIES = {
    "qwen3_5": TinyFamily(transformers.Qwen3_5ForConditionalGeneration, qwen3_5_config, qwen3_vl_processor),
    "qwen3_5_moe": TinyFamily(
        transformers.Qwen3_5MoeForConditionalGeneration, qwen3_5_moe_config, qwen3_vl_processor
    ),
}
"""Each family's tiny model by its name."""
