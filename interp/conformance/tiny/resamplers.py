"""Tiny models of the families whose images come through a resampler or a Q-Former, or lie outside of the sequence."""

from __future__ import annotations

from typing import Any

import torch
import transformers

from interp.conformance.tiny.kit import (
    FIRST_SPECIAL,
    VISION,
    VOCABULARY,
    TinyFamily,
    template,
    text_config,
    tokenizer,
)

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


_CROSS_SIDE, _CROSS_PATCH, _TILES = 56, 14, 4


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
            image_size=_CROSS_SIDE,
            patch_size=_CROSS_PATCH,
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
        size={"height": _CROSS_SIDE, "width": _CROSS_SIDE}, max_image_tiles=_TILES
    )
    return transformers.MllamaProcessor(
        images, tokenizer(image_token="<|image|>"), chat_template=template("<|image|>")
    )


_QFORMER_SIDE, _QFORMER_PATCH, _QUERIES = 84, 14, 6
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
        vision_config={
            **VISION,
            "image_size": _QFORMER_SIDE,
            "patch_size": _QFORMER_PATCH,
            "initializer_range": 0.1,
        },
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
        vision_config={
            **VISION,
            "image_size": _QFORMER_SIDE,
            "patch_size": _QFORMER_PATCH,
            "initializer_range": 0.1,
        },
        qformer_config=_QFORMER,
        text_config=text_config(transformers.LlamaConfig).to_dict(),
        num_query_tokens=_QUERIES,
        image_token_index=FIRST_SPECIAL,
        tie_word_embeddings=False,  # pyright: ignore[reportCallIssue]
    )


def _qformer_parts() -> tuple[Any, Any]:
    """BLIP's image processor: the image squashed to a square; and words, of which the processor marks `<image>`."""
    images = transformers.BlipImageProcessorPil(size={"height": _QFORMER_SIDE, "width": _QFORMER_SIDE})
    return images, tokenizer(query_token="<image>")


def blip2_processor() -> transformers.Blip2Processor:
    """BLIP-2's own."""
    return transformers.Blip2Processor(*_qformer_parts(), num_query_tokens=_QUERIES)


def instructblip_processor() -> transformers.InstructBlipProcessor:
    """InstructBLIP's own; the Q-Former has the same words as the language model."""
    return transformers.InstructBlipProcessor(*_qformer_parts(), tokenizer(), num_query_tokens=_QUERIES)


FAMILIES = {
    "aria": TinyFamily(AriaForConditionalGeneration, aria_config, aria_processor),
    "idefics2": TinyFamily(
        transformers.Idefics2ForConditionalGeneration, idefics2_config, idefics2_processor
    ),
    "mllama": TinyFamily(MllamaForConditionalGeneration, mllama_config, mllama_processor),
    "blip-2": TinyFamily(Blip2ForConditionalGeneration, blip2_config, blip2_processor),
    "instructblip": TinyFamily(
        InstructBlipForConditionalGeneration, instructblip_config, instructblip_processor
    ),
}
"""Each family's tiny model by its name."""
