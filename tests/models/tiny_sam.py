"""A SAM of random weights, small enough for tests, with transformers' own processor."""

from __future__ import annotations

from typing import Any

import torch
from transformers import SamConfig, SamImageProcessorPil, SamModel, SamProcessor
from transformers.models.sam.configuration_sam import (
    SamMaskDecoderConfig,
    SamPromptEncoderConfig,
    SamVisionConfig,
)

__all__ = ["tiny_sam"]

SIDE, PATCH = 64, 16


def tiny_sam(seed: int = 0) -> tuple[Any, Any]:
    """The model and its processor: images of 64 pixels, masks of 16."""
    vision = SamVisionConfig(
        hidden_size=16, num_hidden_layers=1, num_attention_heads=2, image_size=SIDE, patch_size=PATCH,
        output_channels=16, mlp_dim=32, window_size=2, global_attn_indexes=[0], num_pos_feats=8,
    )  # fmt: skip
    prompt = SamPromptEncoderConfig(hidden_size=16, image_size=SIDE, patch_size=PATCH, mask_input_channels=4)
    decoder = SamMaskDecoderConfig(
        hidden_size=16, mlp_dim=32, num_hidden_layers=1, num_attention_heads=2, iou_head_hidden_dim=16
    )
    torch.manual_seed(seed)
    parts = {"vision_config": vision, "prompt_encoder_config": prompt, "mask_decoder_config": decoder}
    model = SamModel(SamConfig(**{name: one.to_dict() for name, one in parts.items()})).eval()
    sizes = {"height": SIDE, "width": SIDE}
    small = {"height": 16, "width": 16}
    images = SamImageProcessorPil(
        size={"longest_edge": SIDE}, mask_size={"longest_edge": 16}, pad_size=sizes, mask_pad_size=small
    )
    return model, SamProcessor(images)
