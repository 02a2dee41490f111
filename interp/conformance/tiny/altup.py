"""A tiny Gemma 3n: four streams a token, inputs per layer, layers without keys of their own."""

from __future__ import annotations

from typing import Any

import torch
import transformers
from huggingface_hub.dataclasses import strict

from interp.conformance.tiny.kit import (
    FIRST_SPECIAL,
    VOCABULARY,
    TinyFamily,
    template,
    text_config,
    tokenizer,
)

__all__ = ["FAMILIES"]

_SIDE, _STRIDE = 96, 16
_TOKENS = (_SIDE // _STRIDE) ** 2
_BOI, _BOA, _EOI, _IMAGE, _EOA, _AUDIO = range(FIRST_SPECIAL, FIRST_SPECIAL + 6)
"""As in the checkpoints, the ids of the text come first, then those of images, then those of audio."""


@strict
class Gemma3nConfig(transformers.Gemma3nConfig):
    """With any vision config: the tower of the checkpoints needs timm."""

    vision_config: Any = None


class Gemma3nForConditionalGeneration(transformers.Gemma3nForConditionalGeneration):
    """With a tower that sees how bright a patch is, and streams and inputs per layer that count."""

    def __init__(self, config: Gemma3nConfig) -> None:
        super().__init__(config)
        for name, weight in self.model.vision_tower.named_parameters():
            if name.endswith("bias"):
                torch.nn.init.normal_(weight, std=0.1)
        decoder: Any = self.model.language_model
        for layer in decoder.layers:
            torch.nn.init.normal_(layer.altup.correct_output_scale, mean=1.0, std=0.3)
            for part in ("correction_coefs", "prediction_coefs", "modality_router"):
                torch.nn.init.normal_(getattr(layer.altup, part).weight, std=0.4)
            layer.self_attn.q_norm.weight.data.uniform_(0.2, 0.3)  # the product is not scaled


def gemma3n_config() -> Gemma3nConfig:
    """A ConvNeXt of stride 16 in the place of MobileNet-V5; the last two of five layers use earlier ones' keys.

    Layer 3 (sliding) shares the keys of layer 2, layer 4 (full) those of layer 1.
    """
    sliding, full = "sliding_attention", "full_attention"
    vision = transformers.ConvNextConfig(
        hidden_sizes=[16, 24, 32],
        depths=[1, 1, 1],
        num_stages=3,
        hidden_size=32,  # pyright: ignore[reportCallIssue]
        rms_norm_eps=1e-6,  # pyright: ignore[reportCallIssue]
        vocab_size=_EOA - _EOI,  # pyright: ignore[reportCallIssue]
        vocab_offset=_EOI,  # pyright: ignore[reportCallIssue]
    )
    return Gemma3nConfig(
        text_config=text_config(
            transformers.Gemma3nTextConfig,
            layers=5,
            head_dim=16,
            sliding_window=12,
            layer_types=[sliding, full, sliding, sliding, full],
            num_kv_shared_layers=2,
            hidden_size_per_layer_input=8,
            vocab_size_per_layer_input=_EOI,
            laurel_rank=8,
            activation_sparsity_pattern=[0.6, 0.0, 0.0, 0.0, 0.0],
        ),
        vision_config=vision,
        audio_config=_gemma3n_audio(),
        vision_soft_tokens_per_image=_TOKENS,
        image_token_id=_IMAGE,
        boi_token_id=_BOI,
        eoi_token_id=_EOI,
        audio_token_id=_AUDIO,
        boa_token_id=_BOA,
        eoa_token_id=_EOA,
        tie_word_embeddings=False,
    )


def _gemma3n_audio() -> transformers.Gemma3nAudioConfig:
    return transformers.Gemma3nAudioConfig(
        hidden_size=32,
        conf_num_attention_heads=2,
        conf_num_hidden_layers=1,
        sscp_conv_channel_size=[8, 4],
        vocab_size=VOCABULARY - _EOA,
        vocab_offset=_EOA,
    )


def gemma3n_processor() -> transformers.Gemma3nProcessor:
    """Gemma 3n's own: the image squashed to a square."""
    words = tokenizer(
        boi_token="<start_of_image>",
        boa_token="<start_of_audio>",
        eoi_token="<end_of_image>",
        image_token="<image_soft_token>",
        eoa_token="<end_of_audio>",
        audio_token="<audio_soft_token>",
    )
    return transformers.Gemma3nProcessor(
        transformers.Gemma3nAudioFeatureExtractor(),
        transformers.SiglipImageProcessorPil(size={"height": _SIDE, "width": _SIDE}),
        words,
        chat_template=template("<image_soft_token>"),
        image_seq_length=_TOKENS,
    )


FAMILIES = {
    "gemma3n": TinyFamily(Gemma3nForConditionalGeneration, gemma3n_config, gemma3n_processor, whole=False)
}
"""Each family's tiny model by its name."""
