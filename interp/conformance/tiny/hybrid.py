"""Tiny models of families whose decoder mixes gated DeltaNet layers with attention layers."""

from __future__ import annotations

from typing import Any

import transformers

from interp.conformance.tiny.kit import FIRST_SPECIAL, VISION, TinyFamily, template, text_config, tokenizer
from interp.conformance.tiny.qwen_vl import QWEN3_VL_PATCH, TOKENS, qwen3_vl_processor
from interp.models.processors import minicpmv_processor

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


_SLICES = ("image_start", "image_end", "slice_start", "slice_end", "image_id_start", "image_id_end")


def minicpmv4_6_config() -> transformers.MiniCPMV4_6Config:
    """SigLIP with a merge of windows of 2×2 patches after its first layer, a merge behind it, and a Qwen3.5 text."""
    return transformers.MiniCPMV4_6Config(
        text_config=text_config(transformers.Qwen3_5TextConfig, layers=4, **_TEXT),
        vision_config={**VISION, "num_hidden_layers": 3, "image_size": 64, "patch_size": 8},
        insert_layer_id=0,
        image_size=64,
        image_token_id=FIRST_SPECIAL,
        video_token_id=FIRST_SPECIAL + 1,
    )


def minicpmv4_6_processor() -> Any:
    """MiniCPM-V's, without videos: views of about 96×96 pixels, 3×3 tokens; at most four slices."""
    words = tokenizer(
        image_token="<|image_pad|>",
        video_token="<|video_pad|>",
        **{f"{name}_token": f"<{name}>" for name in _SLICES},
    )
    images = transformers.MiniCPMV4_6ImageProcessorPil(scale_resolution=96, patch_size=8, max_slice_nums=4)
    return minicpmv_processor()(images, None, words, chat_template=template("<|image_pad|>"))


FAMILIES = {
    "minicpmv4_6": TinyFamily(
        transformers.MiniCPMV4_6ForConditionalGeneration, minicpmv4_6_config, minicpmv4_6_processor
    ),
    "qwen3_5": TinyFamily(transformers.Qwen3_5ForConditionalGeneration, qwen3_5_config, qwen3_vl_processor),
    "qwen3_5_moe": TinyFamily(
        transformers.Qwen3_5MoeForConditionalGeneration, qwen3_5_moe_config, qwen3_vl_processor
    ),
}
"""Each family's tiny model by its name."""
