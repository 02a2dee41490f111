"""Tiny models of the families that cut an image into tiles, and of LLaVA-NeXT-Video."""

from __future__ import annotations

from typing import Any

import torch
import transformers

from interp.conformance.tiny.kit import FIRST_SPECIAL, VISION, TinyFamily, template, text_config, tokenizer
from interp.models.processors import images_only, with_video
from interp.models.processors import smolvlm_processor as smolvlm_class

__all__ = ["FAMILIES", "IDEFICS_TOKENS"]


_LLAVA_NEXT_SIDE, _LLAVA_NEXT_PATCH = 56, 14
_LLAVA_NEXT_PINPOINTS = [
    [56, 112],
    [112, 56],
    [112, 112],
    [168, 56],
    [56, 168],
]  # the family's own, in tiles of 56


def llava_next_config() -> transformers.LlavaNextConfig:
    """A CLIP tower of 4×4 patches per tile and a Mistral."""
    return transformers.LlavaNextConfig(
        vision_config=transformers.CLIPVisionConfig(
            **VISION, image_size=_LLAVA_NEXT_SIDE, patch_size=_LLAVA_NEXT_PATCH
        ),
        text_config=text_config(transformers.MistralConfig, sliding_window=None),
        image_token_index=FIRST_SPECIAL,
        image_grid_pinpoints=_LLAVA_NEXT_PINPOINTS,
        vision_feature_layer=-2,
        vision_feature_select_strategy="default",
    )


def llava_next_processor() -> transformers.LlavaNextProcessor:
    """LLaVA-NeXT's own: the whole image squashed, then the tiles of the best of five resolutions."""
    images = transformers.LlavaNextImageProcessorPil(
        size={"shortest_edge": _LLAVA_NEXT_SIDE},
        crop_size={"height": _LLAVA_NEXT_SIDE, "width": _LLAVA_NEXT_SIDE},
        image_grid_pinpoints=_LLAVA_NEXT_PINPOINTS,
    )
    return transformers.LlavaNextProcessor(
        images,
        tokenizer(image_token="<image>"),
        patch_size=_LLAVA_NEXT_PATCH,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        chat_template=template("<image>"),
    )


# As with SigLIP-384/14, the patches leave a rim of each tile unseen: 4 × 14 = 56 of 60 pixels.
_LLAVA_ONEVISION_SIDE, _LLAVA_ONEVISION_PATCH, _LLAVA_ONEVISION_TOKENS = 60, 14, 16
_LLAVA_ONEVISION_PINPOINTS = [
    [down * _LLAVA_ONEVISION_SIDE, across * _LLAVA_ONEVISION_SIDE]
    for down in (1, 2, 3)
    for across in (1, 2, 3)
]
_LLAVA_ONEVISION_ANYRES = (
    "anyres_max_4"  # four tiles' worth of tokens at most, so that small images show the interpolation
)


def llava_onevision_config() -> transformers.LlavaOnevisionConfig:
    """A SigLIP tower of 4×4 patches per tile and a Qwen2."""
    return transformers.LlavaOnevisionConfig(
        vision_config=transformers.SiglipVisionConfig(
            **VISION,
            image_size=_LLAVA_ONEVISION_SIDE,
            patch_size=_LLAVA_ONEVISION_PATCH,
            vision_use_head=False,
        ),
        text_config=text_config(transformers.Qwen2Config),
        image_token_index=FIRST_SPECIAL,
        video_token_index=FIRST_SPECIAL + 1,
        image_grid_pinpoints=_LLAVA_ONEVISION_PINPOINTS,
        vision_aspect_ratio=_LLAVA_ONEVISION_ANYRES,
    )


def llava_onevision_processor() -> Any:
    """LLaVA-OneVision's own: the whole image squashed, then up to 3×3 tiles; frames squashed."""
    images = transformers.LlavaOnevisionImageProcessorPil(
        size={"height": _LLAVA_ONEVISION_SIDE, "width": _LLAVA_ONEVISION_SIDE},
        image_grid_pinpoints=_LLAVA_ONEVISION_PINPOINTS,
    )
    whole = images_only(transformers.LlavaOnevisionProcessor)(
        images,
        tokenizer(image_token="<image>", video_token="<video>"),
        num_image_tokens=_LLAVA_ONEVISION_TOKENS,
        vision_feature_select_strategy="full",
        vision_aspect_ratio=_LLAVA_ONEVISION_ANYRES,
        chat_template=template("<image>", "<video>"),
    )
    return with_video(whole, size={"height": _LLAVA_ONEVISION_SIDE, "width": _LLAVA_ONEVISION_SIDE})


_INTERNVL_SIDE, _INTERNVL_PATCH = 48, 8


class InternVLForConditionalGeneration(transformers.InternVLForConditionalGeneration):
    """With position embeddings that are not zero, as transformers initialises them."""

    def __init__(self, config: transformers.InternVLConfig) -> None:
        super().__init__(config)
        torch.nn.init.normal_(self.model.vision_tower.embeddings.position_embeddings, std=0.1)


def internvl_config() -> transformers.InternVLConfig:
    """Tiles of 6×6 patches, shuffled to 3×3 tokens, and a Qwen2."""
    return transformers.InternVLConfig(
        vision_config={**VISION, "image_size": _INTERNVL_SIDE, "patch_size": _INTERNVL_PATCH},
        text_config=text_config(transformers.Qwen2Config),
        image_token_id=FIRST_SPECIAL,
        image_seq_length=9,
        tie_word_embeddings=False,
    )


def internvl_processor() -> transformers.InternVLProcessor:
    """InternVL's own: up to six tiles by aspect ratio, then a thumbnail."""
    images = transformers.GotOcr2ImageProcessorPil(
        size={"height": _INTERNVL_SIDE, "width": _INTERNVL_SIDE}, max_patches=6
    )
    words = tokenizer(
        context_image_token="<IMG_CONTEXT>",
        start_image_token="<img>",
        end_image_token="</img>",
        video_token="<video>",
    )
    return images_only(transformers.InternVLProcessor)(
        images, words, image_seq_length=9, chat_template=template("<IMG_CONTEXT>")
    )


_IDEFICS3_SIDE, _IDEFICS3_PATCH, _IDEFICS3_SHUFFLE = 84, 14, 2
IDEFICS_TOKENS = {
    "image_token": "<image>",
    "fake_image_token": "<fake_token_around_image>",
    "global_image_token": "<global-img>",
    "end_of_utterance_token": "<end_of_utterance>",
    **{f"row_{r}_col_{c}": f"<row_{r}_col_{c}>" for r in (1, 2, 3) for c in (1, 2, 3)},
}
"""Special tokens, of SmolVLM as well."""


def idefics3_config() -> transformers.Idefics3Config:
    """Tiles of 6×6 patches, shuffled to 3×3 tokens, and a Llama."""
    return transformers.Idefics3Config(
        vision_config={**VISION, "image_size": _IDEFICS3_SIDE, "patch_size": _IDEFICS3_PATCH},
        text_config=text_config(transformers.LlamaConfig),
        image_token_id=FIRST_SPECIAL,
        scale_factor=_IDEFICS3_SHUFFLE,
        tie_word_embeddings=False,
    )


def idefics3_processor() -> transformers.Idefics3Processor:
    """Idefics3's own: up to 3×3 tiles, then the whole image squashed to one."""
    images = transformers.Idefics3ImageProcessorPil(
        size={"longest_edge": 3 * _IDEFICS3_SIDE}, max_image_size={"longest_edge": _IDEFICS3_SIDE}
    )
    return transformers.Idefics3Processor(
        images,
        tokenizer(**IDEFICS_TOKENS),
        image_seq_len=(_IDEFICS3_SIDE // _IDEFICS3_PATCH // _IDEFICS3_SHUFFLE) ** 2,
        chat_template=template("<image>"),
    )


_SMOLVLM_SIDE, _SMOLVLM_PATCH, _SMOLVLM_SHUFFLE = 96, 8, 4


def smolvlm_config() -> transformers.SmolVLMConfig:
    """Tiles of 12×12 patches, shuffled to 3×3 tokens, and a Llama."""
    return transformers.SmolVLMConfig(
        vision_config={**VISION, "image_size": _SMOLVLM_SIDE, "patch_size": _SMOLVLM_PATCH},
        text_config=text_config(transformers.LlamaConfig),
        image_token_id=FIRST_SPECIAL,
        scale_factor=_SMOLVLM_SHUFFLE,
        tie_word_embeddings=False,
    )


def smolvlm_processor() -> Any:
    """SmolVLM's own: up to 3×3 tiles, then the whole image squashed to one; each frame squashed to one."""
    images = transformers.SmolVLMImageProcessorPil(
        size={"longest_edge": 3 * _SMOLVLM_SIDE}, max_image_size={"longest_edge": _SMOLVLM_SIDE}
    )
    whole = smolvlm_class()(
        images,
        tokenizer(**IDEFICS_TOKENS, video_token="<video>"),
        None,
        image_seq_len=(_SMOLVLM_SIDE // _SMOLVLM_PATCH // _SMOLVLM_SHUFFLE) ** 2,
        chat_template=template("<image>", "<video>"),
    )
    return with_video(
        whole, size={"longest_edge": 3 * _SMOLVLM_SIDE}, max_image_size={"longest_edge": _SMOLVLM_SIDE}
    )


def llava_next_video_config() -> transformers.LlavaNextVideoConfig:
    """A CLIP tower of 4×4 patches per tile or frame, pooled to 2×2 tokens a frame, and a Llama."""
    return transformers.LlavaNextVideoConfig(
        vision_config=transformers.CLIPVisionConfig(
            **VISION, image_size=_LLAVA_NEXT_SIDE, patch_size=_LLAVA_NEXT_PATCH
        ),
        text_config=text_config(transformers.LlamaConfig),
        image_token_index=FIRST_SPECIAL,
        video_token_index=FIRST_SPECIAL + 1,
        image_grid_pinpoints=_LLAVA_NEXT_PINPOINTS,
        vision_feature_layer=-2,
        vision_feature_select_strategy="default",
    )


def llava_next_video_processor() -> Any:
    """LLaVA-NeXT-Video's own: images as LLaVA-NeXT; frames resized by their shorter side and cropped to a square."""
    square: dict[str, Any] = {
        "size": {"shortest_edge": _LLAVA_NEXT_SIDE},
        "crop_size": {"height": _LLAVA_NEXT_SIDE, "width": _LLAVA_NEXT_SIDE},
    }
    whole = images_only(transformers.LlavaNextVideoProcessor)(
        None,
        transformers.LlavaNextImageProcessorPil(**square, image_grid_pinpoints=_LLAVA_NEXT_PINPOINTS),
        tokenizer(image_token="<image>", video_token="<video>"),
        patch_size=_LLAVA_NEXT_PATCH,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        chat_template=template("<image>", "<video>"),
    )
    return with_video(whole, **square)


FAMILIES = {
    "llava_next": TinyFamily(
        transformers.LlavaNextForConditionalGeneration, llava_next_config, llava_next_processor
    ),
    "llava_onevision": TinyFamily(
        transformers.LlavaOnevisionForConditionalGeneration, llava_onevision_config, llava_onevision_processor
    ),
    "internvl": TinyFamily(InternVLForConditionalGeneration, internvl_config, internvl_processor),
    "idefics3": TinyFamily(
        transformers.Idefics3ForConditionalGeneration, idefics3_config, idefics3_processor
    ),
    "smolvlm": TinyFamily(transformers.SmolVLMForConditionalGeneration, smolvlm_config, smolvlm_processor),
    "llava_next_video": TinyFamily(
        transformers.LlavaNextVideoForConditionalGeneration,
        llava_next_video_config,
        llava_next_video_processor,
    ),
}
"""Each family's tiny model by its name."""
