"""A tiny LLaVA-NeXT (LLaVA-1.6)."""

from __future__ import annotations

import transformers

from interp.conformance.tiny.kit import FIRST_SPECIAL, VISION, template, text_config, tokenizer

__all__ = ["MODEL", "config", "processor"]

MODEL = transformers.LlavaNextForConditionalGeneration
_SIDE, _PATCH = 56, 14
_PINPOINTS = [[56, 112], [112, 56], [112, 112], [168, 56], [56, 168]]  # the family's own, in tiles of 56


def config() -> transformers.LlavaNextConfig:
    """A CLIP tower of 4×4 patches per tile and a Mistral."""
    return transformers.LlavaNextConfig(
        vision_config=transformers.CLIPVisionConfig(**VISION, image_size=_SIDE, patch_size=_PATCH),
        text_config=text_config(transformers.MistralConfig, sliding_window=None),
        image_token_index=FIRST_SPECIAL,
        image_grid_pinpoints=_PINPOINTS,
        vision_feature_layer=-2,
        vision_feature_select_strategy="default",
    )


def processor() -> transformers.LlavaNextProcessor:
    """LLaVA-NeXT's own: the whole image squashed, then the tiles of the best of five resolutions."""
    images = transformers.LlavaNextImageProcessorPil(
        size={"shortest_edge": _SIDE},
        crop_size={"height": _SIDE, "width": _SIDE},
        image_grid_pinpoints=_PINPOINTS,
    )
    return transformers.LlavaNextProcessor(
        images,
        tokenizer(image_token="<image>"),
        patch_size=_PATCH,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        chat_template=template("<image>"),
    )
