"""A tiny InternVL."""

from __future__ import annotations

import torch
import transformers

from interp.conformance.tiny.kit import FIRST_SPECIAL, VISION, template, text_config, tokenizer
from interp.models.processors import images_only

__all__ = ["MODEL", "config", "processor"]

_SIDE, _PATCH = 48, 8


class InternVLForConditionalGeneration(transformers.InternVLForConditionalGeneration):
    """With position embeddings that are not zero, as transformers initialises them."""

    def __init__(self, config: transformers.InternVLConfig) -> None:
        super().__init__(config)
        torch.nn.init.normal_(self.model.vision_tower.embeddings.position_embeddings, std=0.1)


MODEL = InternVLForConditionalGeneration


def config() -> transformers.InternVLConfig:
    """Tiles of 6×6 patches, shuffled to 3×3 tokens, and a Qwen2."""
    return transformers.InternVLConfig(
        vision_config={**VISION, "image_size": _SIDE, "patch_size": _PATCH},
        text_config=text_config(transformers.Qwen2Config),
        image_token_id=FIRST_SPECIAL,
        image_seq_length=9,
        tie_word_embeddings=False,
    )


def processor() -> transformers.InternVLProcessor:
    """InternVL's own: up to six tiles by aspect ratio, then a thumbnail."""
    images = transformers.GotOcr2ImageProcessorPil(size={"height": _SIDE, "width": _SIDE}, max_patches=6)
    words = tokenizer(
        context_image_token="<IMG_CONTEXT>",
        start_image_token="<img>",
        end_image_token="</img>",
        video_token="<video>",
    )
    return images_only(transformers.InternVLProcessor)(
        images, words, image_seq_length=9, chat_template=template("<IMG_CONTEXT>")
    )
