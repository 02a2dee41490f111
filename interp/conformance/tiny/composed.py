"""Tiny models of the families whose images come through a resampler."""

from __future__ import annotations

from typing import Any

import torch
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


_ARIA_SIDE, _ARIA_PATCH = 490, 70
"""Aria's image processor makes views of 490 or of 980 pixels, and no others."""


class AriaForConditionalGeneration(transformers.AriaForConditionalGeneration):
    """With queries that differ: transformers initialises them to zero."""

    def __init__(self, config: transformers.AriaConfig) -> None:
        super().__init__(config)
        projector: Any = self.model.multi_modal_projector
        torch.nn.init.normal_(projector.query)
        for part in (projector.cross_attn.q_proj, projector.cross_attn.k_proj):
            torch.nn.init.normal_(part.weight, std=0.4)  # so that the queries look at different patches


def aria_config() -> transformers.AriaConfig:
    """A tower of 7×7 patches a view, six queries, and a Llama with two of five experts a token."""
    return transformers.AriaConfig(
        vision_config={
            **VISION,
            "model_type": "idefics3_vision",
            "image_size": _ARIA_SIDE,
            "patch_size": _ARIA_PATCH,
        },
        text_config=text_config(
            transformers.AriaTextConfig, moe_num_experts=5, moe_topk=2, moe_num_shared_experts=1
        ),
        projector_patch_to_query_dict={(_ARIA_SIDE // _ARIA_PATCH) ** 2: _LATENTS},
        image_token_index=FIRST_SPECIAL,
    )


def _with_small_views(made: Any) -> transformers.AriaProcessor:
    """Gives an Aria processor views of the tiny size: its class says 980 px, whatever its image processor says."""
    own = {"max_image_size": _ARIA_SIDE, "split_image": False}
    made.images_kwargs = own
    kind: Any = made.valid_processor_kwargs
    defaults = getattr(kind, "_defaults", {})
    if defaults.get("images_kwargs"):  # transformers before 5.23
        made.valid_processor_kwargs = type(kind)(kind.__name__, (kind,), {"__module__": kind.__module__})
        made.valid_processor_kwargs._defaults = {**defaults, "images_kwargs": own}
    return made


def aria_processor() -> transformers.AriaProcessor:
    """Aria's own: the longer side resized to the view's, the rest padded at the right and the bottom."""
    images = transformers.AriaImageProcessorPil(max_image_size=_ARIA_SIDE, min_image_size=_ARIA_PATCH)
    made = transformers.AriaProcessor(
        images,
        tokenizer(image_token="<|img|>"),  # pyright: ignore[reportArgumentType]
        chat_template=template("<|img|>"),
        size_conversion={_ARIA_SIDE: _LATENTS},
    )
    return _with_small_views(made)


FAMILIES = {
    "aria": TinyFamily(AriaForConditionalGeneration, aria_config, aria_processor),
    "idefics2": TinyFamily(
        transformers.Idefics2ForConditionalGeneration, idefics2_config, idefics2_processor
    ),
}
"""Each family's tiny model by its name."""
