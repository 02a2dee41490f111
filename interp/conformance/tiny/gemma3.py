"""A tiny Gemma 3."""

from __future__ import annotations

import torch
import transformers

from interp.conformance.tiny.kit import FIRST_SPECIAL, VISION, template, text_config, tokenizer

__all__ = ["MODEL", "config", "processor"]

_SIDE, _PATCH, _TOKENS = 64, 8, 16


class Gemma3ForConditionalGeneration(transformers.Gemma3ForConditionalGeneration):
    """With a projector that is not zero, as transformers initialises it."""

    def __init__(self, config: transformers.Gemma3Config) -> None:
        super().__init__(config)
        torch.nn.init.normal_(self.model.multi_modal_projector.mm_input_projection_weight, std=0.1)


MODEL = Gemma3ForConditionalGeneration


def config() -> transformers.Gemma3Config:
    """8×8 patches pooled to 4×4 tokens; two of three layers see eight tokens back."""
    return transformers.Gemma3Config(
        text_config=text_config(
            transformers.Gemma3TextConfig,
            head_dim=16,
            query_pre_attn_scalar=16,
            sliding_window=8,
            layer_types=["sliding_attention", "full_attention", "sliding_attention"],
        ),
        vision_config=transformers.SiglipVisionConfig(
            **VISION, image_size=_SIDE, patch_size=_PATCH, vision_use_head=False
        ),
        mm_tokens_per_image=_TOKENS,
        image_token_index=FIRST_SPECIAL,
        boi_token_index=FIRST_SPECIAL + 1,
        eoi_token_index=FIRST_SPECIAL + 2,
        tie_word_embeddings=False,
    )


def processor() -> transformers.Gemma3Processor:
    """Gemma 3's own, without pan and scan (its default): the image squashed to a square."""
    words = tokenizer(
        image_token="<image_soft_token>", boi_token="<start_of_image>", eoi_token="<end_of_image>"
    )
    return transformers.Gemma3Processor(
        transformers.Gemma3ImageProcessorPil(size={"height": _SIDE, "width": _SIDE}),
        words,
        chat_template=template("<start_of_image>"),
        image_seq_length=_TOKENS,
    )
