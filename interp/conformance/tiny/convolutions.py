"""Tiny models of families whose decoder mixes short convolutions with attention layers."""

from __future__ import annotations

from typing import Any

import transformers

from interp.conformance.tiny.kit import FIRST_SPECIAL, VISION, TinyFamily, template, text_config, tokenizer
from interp.models.processors import lfm2_vl_processor as lfm2_vl_class
from interp.models.without_torchvision import lfm2_vl_images

__all__ = ["FAMILIES"]

_PATCH, _FACTOR = 8, 2
_LAYERS = ["conv", "full_attention", "conv", "full_attention", "conv"]


def lfm2_vl_config() -> transformers.Lfm2VlConfig:
    """SigLIP 2 with patches merged 2×2; convolutions first and last, as in the published models, attention between."""
    text = text_config(
        transformers.Lfm2Config,
        layers=len(_LAYERS),
        layer_types=_LAYERS,
        block_auto_adjust_ff_dim=False,
        tie_word_embeddings=False,
    )
    vision = transformers.Siglip2VisionConfig(
        **VISION, patch_size=_PATCH, num_patches=64, vision_use_head=False
    )
    return transformers.Lfm2VlConfig(
        text_config=text,
        vision_config=vision,
        image_token_id=FIRST_SPECIAL,
        projector_hidden_size=32,
        downsample_factor=_FACTOR,
        tie_word_embeddings=False,
    )


def lfm2_vl_processor() -> Any:
    """LFM2-VL's own: 4 to 12 tokens for a small image; 2 to 4 tiles of 4×4 tokens and a thumbnail for a large one."""
    images = lfm2_vl_images()(
        downsample_factor=_FACTOR,
        encoder_patch_size=_PATCH,
        min_image_tokens=4,
        max_image_tokens=12,
        tile_size=64,
        min_tiles=2,
        max_tiles=4,
    )
    words = tokenizer(
        image_token="<image>",
        image_start_token="<|image_start|>",
        image_end_token="<|image_end|>",
        image_thumbnail_token="<|img_thumbnail|>",
        **{f"tile_{r}_{c}": f"<|img_row_{r}_col_{c}|>" for r in range(1, 5) for c in range(1, 5)},
    )
    return lfm2_vl_class()(images, words, chat_template=template("<image>"))


FAMILIES = {
    "lfm2_vl": TinyFamily(transformers.Lfm2VlForConditionalGeneration, lfm2_vl_config, lfm2_vl_processor),
}
"""Each family's tiny model by its name."""
