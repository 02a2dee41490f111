"""A tiny model of the LLaVA-NeXT-Video family."""

from __future__ import annotations

from typing import Any

import transformers

from interp.conformance.tiny.kit import FIRST_SPECIAL, VISION, TinyFamily, template, text_config, tokenizer
from interp.models.processors import images_only, with_video

__all__ = ["FAMILIES"]

_SIDE, _PATCH = 56, 14
_PINPOINTS = [[56, 112], [112, 56], [112, 112], [168, 56], [56, 168]]  # the family's own, in tiles of 56


def llava_next_video_config() -> transformers.LlavaNextVideoConfig:
    """A CLIP tower of 4×4 patches per tile or frame, pooled to 2×2 tokens a frame, and a Llama."""
    return transformers.LlavaNextVideoConfig(
        vision_config=transformers.CLIPVisionConfig(**VISION, image_size=_SIDE, patch_size=_PATCH),
        text_config=text_config(transformers.LlamaConfig),
        image_token_index=FIRST_SPECIAL,
        video_token_index=FIRST_SPECIAL + 1,
        image_grid_pinpoints=_PINPOINTS,
        vision_feature_layer=-2,
        vision_feature_select_strategy="default",
    )


def llava_next_video_processor() -> Any:
    """LLaVA-NeXT-Video's own: images as LLaVA-NeXT; frames resized by their shorter side and cropped to a square."""
    square: dict[str, Any] = {
        "size": {"shortest_edge": _SIDE},
        "crop_size": {"height": _SIDE, "width": _SIDE},
    }
    whole = images_only(transformers.LlavaNextVideoProcessor)(
        None,
        transformers.LlavaNextImageProcessorPil(**square, image_grid_pinpoints=_PINPOINTS),
        tokenizer(image_token="<image>", video_token="<video>"),
        patch_size=_PATCH,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        chat_template=template("<image>", "<video>"),
    )
    return with_video(whole, **square)


FAMILIES = {
    "llava_next_video": TinyFamily(
        transformers.LlavaNextVideoForConditionalGeneration,
        llava_next_video_config,
        llava_next_video_processor,
    ),
}
"""Each family's tiny model by its name."""
