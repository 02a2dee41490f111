"""Tiny models of the families whose images come through a Q-Former."""

from __future__ import annotations

from typing import Any

import torch
import transformers

from interp.conformance.tiny.kit import (
    FIRST_SPECIAL,
    VISION,
    VOCABULARY,
    TinyFamily,
    text_config,
    tokenizer,
)

__all__ = ["FAMILIES"]

_SIDE, _PATCH, _QUERIES = 84, 14, 6
_QFORMER: dict[str, Any] = {
    "vocab_size": VOCABULARY,
    "hidden_size": 32,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "intermediate_size": 48,
    "initializer_range": 0.2,
}
"""Four layers, of which the first and the third attend to the patches, and weights that make these rows uneven."""


class Blip2ForConditionalGeneration(transformers.Blip2ForConditionalGeneration):
    """With queries that differ: transformers initialises them to zero."""

    def __init__(self, config: transformers.Blip2Config) -> None:
        super().__init__(config)
        torch.nn.init.normal_(self.query_tokens)


class InstructBlipForConditionalGeneration(transformers.InstructBlipForConditionalGeneration):
    """With queries that differ, too."""

    def __init__(self, config: transformers.InstructBlipConfig) -> None:
        super().__init__(config)
        torch.nn.init.normal_(self.query_tokens)


def blip2_config() -> transformers.Blip2Config:
    """A tower of 6×6 patches and a class token, six queries, and an OPT."""
    return transformers.Blip2Config(
        vision_config={**VISION, "image_size": _SIDE, "patch_size": _PATCH, "initializer_range": 0.1},
        qformer_config=_QFORMER,
        text_config=transformers.OPTConfig(
            vocab_size=VOCABULARY,
            hidden_size=64,
            word_embed_proj_dim=64,
            ffn_dim=96,
            num_hidden_layers=3,
            num_attention_heads=4,
            max_position_embeddings=512,
            pad_token_id=0,
            bos_token_id=1,
            eos_token_id=2,
            tie_word_embeddings=False,
        ).to_dict(),
        num_query_tokens=_QUERIES,
        image_token_index=FIRST_SPECIAL,
        tie_word_embeddings=False,  # pyright: ignore[reportCallIssue]
    )


def instructblip_config() -> transformers.InstructBlipConfig:
    """The same tower and queries, and a Llama."""
    return transformers.InstructBlipConfig(
        vision_config={**VISION, "image_size": _SIDE, "patch_size": _PATCH, "initializer_range": 0.1},
        qformer_config=_QFORMER,
        text_config=text_config(transformers.LlamaConfig).to_dict(),
        num_query_tokens=_QUERIES,
        image_token_index=FIRST_SPECIAL,
        tie_word_embeddings=False,  # pyright: ignore[reportCallIssue]
    )


def _parts() -> tuple[Any, Any]:
    """BLIP's image processor: the image squashed to a square; and words, of which the processor marks `<image>`."""
    images = transformers.BlipImageProcessorPil(size={"height": _SIDE, "width": _SIDE})
    return images, tokenizer(query_token="<image>")


def blip2_processor() -> transformers.Blip2Processor:
    """BLIP-2's own."""
    return transformers.Blip2Processor(*_parts(), num_query_tokens=_QUERIES)


def instructblip_processor() -> transformers.InstructBlipProcessor:
    """InstructBLIP's own; the Q-Former has the same words as the language model."""
    return transformers.InstructBlipProcessor(*_parts(), tokenizer(), num_query_tokens=_QUERIES)


FAMILIES = {
    "blip-2": TinyFamily(Blip2ForConditionalGeneration, blip2_config, blip2_processor),
    "instructblip": TinyFamily(
        InstructBlipForConditionalGeneration, instructblip_config, instructblip_processor
    ),
}
"""Each family's tiny model by its name."""
