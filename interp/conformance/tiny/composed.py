"""Tiny models of the families whose images come through a resampler."""

from __future__ import annotations

import transformers

from interp.conformance.tiny.kit import FIRST_SPECIAL, VISION, TinyFamily, template, text_config, tokenizer

__all__ = ["FAMILIES"]

_SIDE, _PATCH, _LATENTS = 84, 7, 6


def idefics2_config() -> transformers.Idefics2Config:
    """A tower of up to 12×12 patches a view, a perceiver of two layers and six latents, and a Mistral."""
    return transformers.Idefics2Config(
        vision_config={**VISION, "image_size": _SIDE, "patch_size": _PATCH},
        perceiver_config={
            "hidden_size": 64,
            "resampler_n_latents": _LATENTS,
            "resampler_depth": 2,
            "resampler_n_heads": 4,
            "resampler_head_dim": 16,
            "num_key_value_heads": 2,
        },
        text_config=text_config(transformers.MistralConfig, sliding_window=None),
        image_token_id=FIRST_SPECIAL,
        tie_word_embeddings=False,
    )


def idefics2_processor() -> transformers.Idefics2Processor:
    """Idefics2's own: four quarters and the whole, each of 84 pixels a side, so that patches leave no rim unseen."""
    images = transformers.Idefics2ImageProcessorPil(
        size={"shortest_edge": _SIDE, "longest_edge": _SIDE}, do_image_splitting=True
    )
    words = tokenizer(
        image_token="<image>",
        image_boundary_token="<fake_token_around_image>",
        end_of_utterance_token="<end_of_utterance>",
    )
    return transformers.Idefics2Processor(
        images, words, image_seq_len=_LATENTS, chat_template=template("<image>")
    )


FAMILIES = {
    "idefics2": TinyFamily(
        transformers.Idefics2ForConditionalGeneration, idefics2_config, idefics2_processor
    ),
}
"""Each family's tiny model by its name."""
