"""A tiny LLaVA-NeXT (LLaVA-1.6)."""

from __future__ import annotations

from typing import Any

import torch
import transformers

from interp.conformance.tiny.kit import FIRST_SPECIAL, VISION, template, text_config, tokenizer
from interp.models.processors import images_only, smolvlm_processor

__all__ = ["MODEL", "TOKENS", "config", "processor"]

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


MODEL_llava_onevision = transformers.LlavaOnevisionForConditionalGeneration
# As with SigLIP-384/14, the patches leave a rim of each tile unseen: 4 × 14 = 56 of 60 pixels.
_SIDE_llava_onevision, _PATCH_llava_onevision, _TOKENS = 60, 14, 16
_PINPOINTS_llava_onevision = [
    [down * _SIDE_llava_onevision, across * _SIDE_llava_onevision]
    for down in (1, 2, 3)
    for across in (1, 2, 3)
]
_ANYRES = "anyres_max_4"  # four tiles' worth of tokens at most, so that small images show the interpolation


def config_llava_onevision() -> transformers.LlavaOnevisionConfig:
    """A SigLIP tower of 4×4 patches per tile and a Qwen2."""
    return transformers.LlavaOnevisionConfig(
        vision_config=transformers.SiglipVisionConfig(
            **VISION,
            image_size=_SIDE_llava_onevision,
            patch_size=_PATCH_llava_onevision,
            vision_use_head=False,
        ),
        text_config=text_config(transformers.Qwen2Config),
        image_token_index=FIRST_SPECIAL,
        video_token_index=FIRST_SPECIAL + 1,
        image_grid_pinpoints=_PINPOINTS_llava_onevision,
        vision_aspect_ratio=_ANYRES,
    )


def processor_llava_onevision() -> Any:
    """LLaVA-OneVision's own, without videos: the whole image squashed, then up to 3×3 tiles."""
    images = transformers.LlavaOnevisionImageProcessorPil(
        size={"height": _SIDE_llava_onevision, "width": _SIDE_llava_onevision},
        image_grid_pinpoints=_PINPOINTS_llava_onevision,
    )
    return images_only(transformers.LlavaOnevisionProcessor)(
        images,
        tokenizer(image_token="<image>", video_token="<video>"),
        num_image_tokens=_TOKENS,
        vision_feature_select_strategy="full",
        vision_aspect_ratio=_ANYRES,
        chat_template=template("<image>"),
    )


_SIDE_internvl, _PATCH_internvl = 48, 8


class InternVLForConditionalGeneration(transformers.InternVLForConditionalGeneration):
    """With position embeddings that are not zero, as transformers initialises them."""

    def __init__(self, config_internvl: transformers.InternVLConfig) -> None:
        super().__init__(config_internvl)
        torch.nn.init.normal_(self.model.vision_tower.embeddings.position_embeddings, std=0.1)


MODEL_internvl = InternVLForConditionalGeneration


def config_internvl() -> transformers.InternVLConfig:
    """Tiles of 6×6 patches, shuffled to 3×3 tokens, and a Qwen2."""
    return transformers.InternVLConfig(
        vision_config={**VISION, "image_size": _SIDE_internvl, "patch_size": _PATCH_internvl},
        text_config=text_config(transformers.Qwen2Config),
        image_token_id=FIRST_SPECIAL,
        image_seq_length=9,
        tie_word_embeddings=False,
    )


def processor_internvl() -> transformers.InternVLProcessor:
    """InternVL's own: up to six tiles by aspect ratio, then a thumbnail."""
    images = transformers.GotOcr2ImageProcessorPil(
        size={"height": _SIDE_internvl, "width": _SIDE_internvl}, max_patches=6
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


MODEL_idefics3 = transformers.Idefics3ForConditionalGeneration
_SIDE_idefics3, _PATCH_idefics3, _SHUFFLE = 84, 14, 2
TOKENS = {
    "image_token": "<image>",
    "fake_image_token": "<fake_token_around_image>",
    "global_image_token": "<global-img>",
    "end_of_utterance_token": "<end_of_utterance>",
    **{f"row_{r}_col_{c}": f"<row_{r}_col_{c}>" for r in (1, 2, 3) for c in (1, 2, 3)},
}
"""Special tokens, of SmolVLM as well."""


def config_idefics3() -> transformers.Idefics3Config:
    """Tiles of 6×6 patches, shuffled to 3×3 tokens, and a Llama."""
    return transformers.Idefics3Config(
        vision_config={**VISION, "image_size": _SIDE_idefics3, "patch_size": _PATCH_idefics3},
        text_config=text_config(transformers.LlamaConfig),
        image_token_id=FIRST_SPECIAL,
        scale_factor=_SHUFFLE,
        tie_word_embeddings=False,
    )


def processor_idefics3() -> transformers.Idefics3Processor:
    """Idefics3's own: up to 3×3 tiles, then the whole image squashed to one."""
    images = transformers.Idefics3ImageProcessorPil(
        size={"longest_edge": 3 * _SIDE_idefics3}, max_image_size={"longest_edge": _SIDE_idefics3}
    )
    return transformers.Idefics3Processor(
        images,
        tokenizer(**TOKENS),
        image_seq_len=(_SIDE_idefics3 // _PATCH_idefics3 // _SHUFFLE) ** 2,
        chat_template=template("<image>"),
    )


MODEL_smolvlm = transformers.SmolVLMForConditionalGeneration
_SIDE_smolvlm, _PATCH_smolvlm, _SHUFFLE_smolvlm = 96, 8, 4


def config_smolvlm() -> transformers.SmolVLMConfig:
    """Tiles of 12×12 patches, shuffled to 3×3 tokens, and a Llama."""
    return transformers.SmolVLMConfig(
        vision_config={**VISION, "image_size": _SIDE_smolvlm, "patch_size": _PATCH_smolvlm},
        text_config=text_config(transformers.LlamaConfig),
        image_token_id=FIRST_SPECIAL,
        scale_factor=_SHUFFLE_smolvlm,
        tie_word_embeddings=False,
    )


def processor_smolvlm() -> Any:
    """SmolVLM's own, without videos: up to 3×3 tiles, then the whole image squashed to one."""
    images = transformers.SmolVLMImageProcessorPil(
        size={"longest_edge": 3 * _SIDE_smolvlm}, max_image_size={"longest_edge": _SIDE_smolvlm}
    )
    return smolvlm_processor()(
        images,
        tokenizer(**TOKENS, video_token="<video>"),
        None,
        image_seq_len=(_SIDE_smolvlm // _PATCH_smolvlm // _SHUFFLE_smolvlm) ** 2,
        chat_template=template("<image>"),
    )
