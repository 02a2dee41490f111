"""Tiny models of the families with one grid of tokens an image, and a LLaVA that writes thoughts."""

from __future__ import annotations

from typing import Any

import torch
import transformers

from interp.conformance.tiny.kit import (
    FIRST_SPECIAL,
    VISION,
    TinyFamily,
    build,
    template,
    text_config,
    tokenizer,
)
from interp.models.modeling import VilaConfig, VilaForConditionalGeneration, VilaProcessor, register
from interp.models.processors import pixtral_processor

__all__ = ["FAMILIES", "tiny_thinking"]


_LLAVA_SIDE, _LLAVA_PATCH = 56, 14


def llava_config() -> transformers.LlavaConfig:
    """A CLIP tower of 4×4 patches and a Llama."""
    return transformers.LlavaConfig(
        vision_config=transformers.CLIPVisionConfig(
            **VISION, image_size=_LLAVA_SIDE, patch_size=_LLAVA_PATCH
        ),
        text_config=text_config(transformers.LlamaConfig),
        image_token_index=FIRST_SPECIAL,
        vision_feature_layer=-2,
        vision_feature_select_strategy="default",
    )


def llava_processor() -> transformers.LlavaProcessor:
    """LLaVA's own: shortest edge, centre crop."""
    images = transformers.LlavaImageProcessorPil(
        size={"shortest_edge": _LLAVA_SIDE}, crop_size={"height": _LLAVA_SIDE, "width": _LLAVA_SIDE}
    )
    return transformers.LlavaProcessor(
        images,
        tokenizer(image_token="<image>"),
        patch_size=_LLAVA_PATCH,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        chat_template=template("<image>"),
    )


register()
_VILA_SIDE, _VILA_PATCH = 60, 8


def vila_config() -> VilaConfig:
    """A SigLIP tower of 7×7 patches and a rim of 4 pixels, merged to 4×4 tokens, and a Llama."""
    vision = transformers.SiglipVisionConfig(
        **VISION, image_size=_VILA_SIDE, patch_size=_VILA_PATCH, vision_use_head=False
    )
    return VilaConfig(
        vision_config=vision,
        text_config=text_config(transformers.LlamaConfig),
        image_token_index=FIRST_SPECIAL,
        vision_feature_layer=-2,
        vision_feature_select_strategy="full",
    )


def vila_processor() -> VilaProcessor:
    """SigLIP's: squashed."""
    return VilaProcessor(
        transformers.SiglipImageProcessorPil(size={"height": _VILA_SIDE, "width": _VILA_SIDE}),
        tokenizer(image_token="<image>"),
        patch_size=_VILA_PATCH,
        vision_feature_select_strategy="full",
        chat_template=template("<image>"),
    )


_PALIGEMMA_SIDE, _PALIGEMMA_PATCH = 70, 14


def paligemma_config() -> transformers.PaliGemmaConfig:
    """A SigLIP tower of 5×5 patches and a Gemma that sees the whole prompt."""
    return transformers.PaliGemmaConfig(
        vision_config=transformers.SiglipVisionConfig(
            **VISION, image_size=_PALIGEMMA_SIDE, patch_size=_PALIGEMMA_PATCH, vision_use_head=False
        ),
        text_config=text_config(transformers.GemmaConfig, head_dim=16),
        image_token_index=FIRST_SPECIAL,
        projection_dim=64,
        hidden_size=64,
        tie_word_embeddings=False,
    )


def paligemma_processor() -> transformers.PaliGemmaProcessor:
    """PaliGemma's own: no chat template; it writes `<s>` after the last image and a newline at the end."""
    images = transformers.SiglipImageProcessorPil(size={"height": _PALIGEMMA_SIDE, "width": _PALIGEMMA_SIDE})
    images.image_seq_length = (_PALIGEMMA_SIDE // _PALIGEMMA_PATCH) ** 2  # pyright: ignore[reportAttributeAccessIssue]
    return transformers.PaliGemmaProcessor(images, tokenizer(image_token="<image>"))


_GEMMA3_SIDE, _GEMMA3_PATCH, _GEMMA3_TOKENS = 64, 8, 16


class Gemma3ForConditionalGeneration(transformers.Gemma3ForConditionalGeneration):
    """With a projector that is not zero, as transformers initialises it."""

    def __init__(self, config: transformers.Gemma3Config) -> None:
        super().__init__(config)
        torch.nn.init.normal_(self.model.multi_modal_projector.mm_input_projection_weight, std=0.1)


def gemma3_config() -> transformers.Gemma3Config:
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
            **VISION, image_size=_GEMMA3_SIDE, patch_size=_GEMMA3_PATCH, vision_use_head=False
        ),
        mm_tokens_per_image=_GEMMA3_TOKENS,
        image_token_index=FIRST_SPECIAL,
        boi_token_index=FIRST_SPECIAL + 1,
        eoi_token_index=FIRST_SPECIAL + 2,
        tie_word_embeddings=False,
    )


def gemma3_processor() -> transformers.Gemma3Processor:
    """Gemma 3's own, without pan and scan (its default): the image squashed to a square."""
    words = tokenizer(
        image_token="<image_soft_token>", boi_token="<start_of_image>", eoi_token="<end_of_image>"
    )
    return transformers.Gemma3Processor(
        transformers.Gemma3ImageProcessorPil(size={"height": _GEMMA3_SIDE, "width": _GEMMA3_SIDE}),
        words,
        chat_template=template("<start_of_image>"),
        image_seq_length=_GEMMA3_TOKENS,
    )


_MISTRAL3_PATCH, _MISTRAL3_MERGE, _MISTRAL3_LONGEST = 14, 2, 140


def mistral3_config() -> transformers.Mistral3Config:
    """A Pixtral tower whose patches are merged two by two, and a Mistral."""
    return transformers.Mistral3Config(
        vision_config=transformers.PixtralVisionConfig(
            **VISION, image_size=_MISTRAL3_LONGEST, patch_size=_MISTRAL3_PATCH
        ),
        text_config=text_config(transformers.MistralConfig, sliding_window=None),
        image_token_index=FIRST_SPECIAL,
        spatial_merge_size=_MISTRAL3_MERGE,
        tie_word_embeddings=False,
    )


def mistral3_processor() -> Any:
    """Pixtral's own: the longest edge at most 140 pixels, both edges rounded up to merged patches."""
    words = tokenizer(image_token="[IMG]", image_break_token="[IMG_BREAK]", image_end_token="[IMG_END]")
    return pixtral_processor()(
        transformers.PixtralImageProcessorPil(
            size={"longest_edge": _MISTRAL3_LONGEST},
            patch_size={"height": _MISTRAL3_PATCH, "width": _MISTRAL3_PATCH},
        ),
        words,
        patch_size=_MISTRAL3_PATCH,
        spatial_merge_size=_MISTRAL3_MERGE,
        chat_template=template("[IMG]"),
    )


FAMILIES = {
    "llava": TinyFamily(transformers.LlavaForConditionalGeneration, llava_config, llava_processor),
    "vila": TinyFamily(VilaForConditionalGeneration, vila_config, vila_processor),
    "paligemma": TinyFamily(
        transformers.PaliGemmaForConditionalGeneration, paligemma_config, paligemma_processor
    ),
    "gemma3": TinyFamily(Gemma3ForConditionalGeneration, gemma3_config, gemma3_processor),
    "mistral3": TinyFamily(
        transformers.Mistral3ForConditionalGeneration, mistral3_config, mistral3_processor
    ),
}
"""Each family's tiny model by its name."""


_SWITCH = (
    "{% if add_generation_prompt %}{% if enable_thinking is defined and enable_thinking is false %}"
    "<think> </think> {% elif enable_thinking is defined %}<think> {% endif %}{% endif %}"
)
"""Open when it is asked for, closed when it is switched off, left to the model otherwise."""


def tiny_thinking(attention: str = "sdpa", seed: int = 0) -> tuple[Any, Any]:
    """Returns a LLaVA with random weights that may think, and its processor.

    Args:
        attention: The model's attention implementation.
        seed: The seed of the weights.
    """
    model = build(transformers.LlavaForConditionalGeneration, llava_config(), attention, seed)
    processor = llava_processor()
    processor.tokenizer = tokenizer(image_token="<image>", think_token="<think>", end_token="</think>")
    processor.chat_template = template("<image>") + _SWITCH
    return model, processor
