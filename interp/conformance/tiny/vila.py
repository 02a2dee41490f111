"""A tiny VILA."""

from __future__ import annotations

import transformers

from interp.conformance.tiny.kit import FIRST_SPECIAL, VISION, template, text_config, tokenizer
from interp.models.own import register
from interp.models.own.vila import VilaConfig, VilaForConditionalGeneration, VilaProcessor

__all__ = ["MODEL", "config", "processor"]

register()
MODEL = VilaForConditionalGeneration
_SIDE, _PATCH = 60, 8


def config() -> VilaConfig:
    """A SigLIP tower of 7×7 patches and a rim of 4 pixels, merged to 4×4 tokens, and a Llama."""
    vision = transformers.SiglipVisionConfig(
        **VISION, image_size=_SIDE, patch_size=_PATCH, vision_use_head=False
    )
    return VilaConfig(
        vision_config=vision,
        text_config=text_config(transformers.LlamaConfig),
        image_token_index=FIRST_SPECIAL,
        vision_feature_layer=-2,
        vision_feature_select_strategy="full",
    )


def processor() -> VilaProcessor:
    """SigLIP's: squashed."""
    return VilaProcessor(
        transformers.SiglipImageProcessorPil(size={"height": _SIDE, "width": _SIDE}),
        tokenizer(image_token="<image>"),
        patch_size=_PATCH,
        vision_feature_select_strategy="full",
        chat_template=template("<image>"),
    )
