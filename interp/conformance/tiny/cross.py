"""Tiny models of the families whose images lie outside of the sequence, or come through a resampler."""

from __future__ import annotations

import torch
import transformers

from interp.conformance.tiny.kit import (
    FIRST_SPECIAL,
    VOCABULARY,
    TinyFamily,
    template,
    text_config,
    tokenizer,
)

__all__ = ["FAMILIES"]

_SIDE, _PATCH, _TILES = 56, 14, 4


class MllamaForConditionalGeneration(transformers.MllamaForConditionalGeneration):
    """With gates that are open: transformers initialises them to zero, and the image would change nothing."""

    def __init__(self, config: transformers.MllamaConfig) -> None:
        super().__init__(config)
        for name, weight in self.named_parameters():
            if name.endswith(("_gate", ".gate")):
                torch.nn.init.constant_(weight, 0.8)


def mllama_config() -> transformers.MllamaConfig:
    """Tiles of 4×4 patches and a class token, and a Llama whose layers 1 and 3 of five attend to them."""
    ratios = [[w, h] for w in range(1, _TILES + 1) for h in range(1, _TILES + 1) if w * h <= _TILES]
    return transformers.MllamaConfig(
        vision_config=transformers.MllamaVisionConfig(
            hidden_size=32,
            intermediate_size=48,
            attention_heads=2,
            num_hidden_layers=2,
            num_global_layers=1,
            vision_output_dim=64,
            intermediate_layers_indices=[1],
            image_size=_SIDE,
            patch_size=_PATCH,
            max_num_tiles=_TILES,
            supported_aspect_ratios=ratios,
        ),
        text_config=text_config(
            transformers.MllamaTextConfig, layers=5, cross_attention_layers=[1, 3], vocab_size=VOCABULARY
        ),
        image_token_index=FIRST_SPECIAL,
    )


def mllama_processor() -> transformers.MllamaProcessor:
    """Mllama's own: the image fitted into the best canvas of up to four tiles, its corner at the upper left."""
    images = transformers.MllamaImageProcessorPil(
        size={"height": _SIDE, "width": _SIDE}, max_image_tiles=_TILES
    )
    return transformers.MllamaProcessor(
        images, tokenizer(image_token="<|image|>"), chat_template=template("<|image|>")
    )


FAMILIES = {
    "mllama": TinyFamily(MllamaForConditionalGeneration, mllama_config, mllama_processor),
}
"""Each family's tiny model by its name."""
