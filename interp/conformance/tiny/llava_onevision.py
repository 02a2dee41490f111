"""A tiny LLaVA-OneVision."""

from __future__ import annotations

from typing import Any

import transformers

from interp.conformance.tiny.kit import FIRST_SPECIAL, VISION, template, text_config, tokenizer
from interp.models.processors import images_only

__all__ = ["MODEL", "config", "processor"]

MODEL = transformers.LlavaOnevisionForConditionalGeneration
# As with SigLIP-384/14, the patches leave a rim of each tile unseen: 4 × 14 = 56 of 60 pixels.
_SIDE, _PATCH, _TOKENS = 60, 14, 16
_PINPOINTS = [[down * _SIDE, across * _SIDE] for down in (1, 2, 3) for across in (1, 2, 3)]
_ANYRES = "anyres_max_4"  # four tiles' worth of tokens at most, so that small images show the interpolation


def config() -> transformers.LlavaOnevisionConfig:
    """A SigLIP tower of 4×4 patches per tile and a Qwen2."""
    return transformers.LlavaOnevisionConfig(
        vision_config=transformers.SiglipVisionConfig(
            **VISION, image_size=_SIDE, patch_size=_PATCH, vision_use_head=False
        ),
        text_config=text_config(transformers.Qwen2Config),
        image_token_index=FIRST_SPECIAL,
        video_token_index=FIRST_SPECIAL + 1,
        image_grid_pinpoints=_PINPOINTS,
        vision_aspect_ratio=_ANYRES,
    )


def processor() -> Any:
    """LLaVA-OneVision's own, without videos: the whole image squashed, then up to 3×3 tiles."""
    images = transformers.LlavaOnevisionImageProcessorPil(
        size={"height": _SIDE, "width": _SIDE}, image_grid_pinpoints=_PINPOINTS
    )
    return images_only(transformers.LlavaOnevisionProcessor)(
        images,
        tokenizer(image_token="<image>", video_token="<video>"),
        num_image_tokens=_TOKENS,
        vision_feature_select_strategy="full",
        vision_aspect_ratio=_ANYRES,
        chat_template=template("<image>"),
    )
