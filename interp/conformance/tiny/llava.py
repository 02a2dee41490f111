"""A tiny LLaVA."""

from __future__ import annotations

import transformers

from interp.conformance.tiny.kit import FIRST_SPECIAL, VISION, template, text_config, tokenizer

__all__ = ["MODEL", "config", "processor"]

MODEL = transformers.LlavaForConditionalGeneration
_SIDE, _PATCH = 56, 14


def config() -> transformers.LlavaConfig:
    """A CLIP tower of 4×4 patches and a Llama."""
    return transformers.LlavaConfig(
        vision_config=transformers.CLIPVisionConfig(**VISION, image_size=_SIDE, patch_size=_PATCH),
        text_config=text_config(transformers.LlamaConfig),
        image_token_index=FIRST_SPECIAL,
        vision_feature_layer=-2,
        vision_feature_select_strategy="default",
    )


def processor() -> transformers.LlavaProcessor:
    """LLaVA's own: shortest edge, centre crop."""
    images = transformers.LlavaImageProcessorPil(
        size={"shortest_edge": _SIDE}, crop_size={"height": _SIDE, "width": _SIDE}
    )
    return transformers.LlavaProcessor(
        images,
        tokenizer(image_token="<image>"),
        patch_size=_PATCH,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        chat_template=template("<image>"),
    )
