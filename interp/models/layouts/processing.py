"""Processors of LLaVA's kind of checkpoint: images padded to a square or cropped as the original code does."""

from __future__ import annotations

from typing import Any

from transformers import LlavaImageProcessorPil, LlavaProcessor, PreTrainedConfig

from interp.models.layouts.conversations import Conversation
from interp.models.layouts.towers import Tower

__all__ = ["llava_processor"]


def llava_processor(
    tokenizer: Any,
    tower: Tower,
    config: PreTrainedConfig,
    conversation: Conversation,
    *,
    pad: bool,
    scale: int = 1,
) -> LlavaProcessor:
    """transformers' LLaVA processor, set as the original code treats images and prompts.

    Padding lays the image on a square of the tower's mean colour at the offset ⌊(side − size) / 2⌋; without it the
    shorter side is resized and the middle cut out. Resizing is Pillow's, bicubic.

    Args:
        tokenizer: with an image token.
        tower: what the pixels are for.
        config: the LLaVA config.
        conversation: the prompt.
        pad: whether images are padded to a square.
        scale: how many times the tower's side the pixels' is (S²); a token is then so many patches wide.
    """
    side = tower.pixels * scale
    images = LlavaImageProcessorPil(
        do_pad=pad,
        size={"shortest_edge": side},
        crop_size={"height": side, "width": side},
        image_mean=list(tower.mean),
        image_std=list(tower.std),
    )
    settings: Any = config
    return LlavaProcessor(
        images,
        tokenizer,
        patch_size=settings.vision_config.patch_size * scale,
        vision_feature_select_strategy=settings.vision_feature_select_strategy,
        num_additional_image_tokens=int(scale == 1),  # S² leaves the class token out itself
        chat_template=conversation.template,
    )
