"""A tiny LLaVA."""

from __future__ import annotations

from typing import Any

import torch
import transformers

from interp.conformance.tiny.kit import FIRST_SPECIAL, VISION, template, text_config, tokenizer
from interp.models.modeling import register
from interp.models.modeling.vila_v1_5 import VilaConfig, VilaForConditionalGeneration, VilaProcessor
from interp.models.processors import pixtral_processor

__all__ = ["MODEL", "config", "processor"]

MODEL = transformers.LlavaForConditionalGeneration
_SIDE, _PATCH = 56, 14


def config() -> transformers.LlavaConfig:
    """A CLIP tower of 4×4 patches and a Llama."""
    return transformers.LlavaConfig(
        vision_config=transformers.CLIPVisionConfig(**VISION, image_size=_SIDE, patch_size=_PATCH),
        text_config=text_config(transformers.LlamaConfig),
        image_token_index=FIRST_SPECIAL,
        vision_feature_layer=-2,
        vision_feature_select_strategy="default",
    )


def processor() -> transformers.LlavaProcessor:
    """LLaVA's own: shortest edge, centre crop."""
    images = transformers.LlavaImageProcessorPil(
        size={"shortest_edge": _SIDE}, crop_size={"height": _SIDE, "width": _SIDE}
    )
    return transformers.LlavaProcessor(
        images,
        tokenizer(image_token="<image>"),
        patch_size=_PATCH,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        chat_template=template("<image>"),
    )


register()
MODEL_vila = VilaForConditionalGeneration
_SIDE_vila, _PATCH_vila = 60, 8


def config_vila() -> VilaConfig:
    """A SigLIP tower of 7×7 patches and a rim of 4 pixels, merged to 4×4 tokens, and a Llama."""
    vision = transformers.SiglipVisionConfig(
        **VISION, image_size=_SIDE_vila, patch_size=_PATCH_vila, vision_use_head=False
    )
    return VilaConfig(
        vision_config=vision,
        text_config=text_config(transformers.LlamaConfig),
        image_token_index=FIRST_SPECIAL,
        vision_feature_layer=-2,
        vision_feature_select_strategy="full",
    )


def processor_vila() -> VilaProcessor:
    """SigLIP's: squashed."""
    return VilaProcessor(
        transformers.SiglipImageProcessorPil(size={"height": _SIDE_vila, "width": _SIDE_vila}),
        tokenizer(image_token="<image>"),
        patch_size=_PATCH_vila,
        vision_feature_select_strategy="full",
        chat_template=template("<image>"),
    )


MODEL_paligemma = transformers.PaliGemmaForConditionalGeneration
_SIDE_paligemma, _PATCH_paligemma = 70, 14


def config_paligemma() -> transformers.PaliGemmaConfig:
    """A SigLIP tower of 5×5 patches and a Gemma that sees the whole prompt."""
    return transformers.PaliGemmaConfig(
        vision_config=transformers.SiglipVisionConfig(
            **VISION, image_size=_SIDE_paligemma, patch_size=_PATCH_paligemma, vision_use_head=False
        ),
        text_config=text_config(transformers.GemmaConfig, head_dim=16),
        image_token_index=FIRST_SPECIAL,
        projection_dim=64,
        hidden_size=64,
        tie_word_embeddings=False,
    )


def processor_paligemma() -> transformers.PaliGemmaProcessor:
    """PaliGemma's own: no chat template; it writes `<s>` after the last image and a newline at the end."""
    images = transformers.SiglipImageProcessorPil(size={"height": _SIDE_paligemma, "width": _SIDE_paligemma})
    images.image_seq_length = (_SIDE_paligemma // _PATCH_paligemma) ** 2  # pyright: ignore[reportAttributeAccessIssue]
    return transformers.PaliGemmaProcessor(images, tokenizer(image_token="<image>"))


_SIDE_gemma3, _PATCH_gemma3, _TOKENS = 64, 8, 16


class Gemma3ForConditionalGeneration(transformers.Gemma3ForConditionalGeneration):
    """With a projector that is not zero, as transformers initialises it."""

    def __init__(self, config_gemma3: transformers.Gemma3Config) -> None:
        super().__init__(config_gemma3)
        torch.nn.init.normal_(self.model.multi_modal_projector.mm_input_projection_weight, std=0.1)


MODEL_gemma3 = Gemma3ForConditionalGeneration


def config_gemma3() -> transformers.Gemma3Config:
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
            **VISION, image_size=_SIDE_gemma3, patch_size=_PATCH_gemma3, vision_use_head=False
        ),
        mm_tokens_per_image=_TOKENS,
        image_token_index=FIRST_SPECIAL,
        boi_token_index=FIRST_SPECIAL + 1,
        eoi_token_index=FIRST_SPECIAL + 2,
        tie_word_embeddings=False,
    )


def processor_gemma3() -> transformers.Gemma3Processor:
    """Gemma 3's own, without pan and scan (its default): the image squashed to a square."""
    words = tokenizer(
        image_token="<image_soft_token>", boi_token="<start_of_image>", eoi_token="<end_of_image>"
    )
    return transformers.Gemma3Processor(
        transformers.Gemma3ImageProcessorPil(size={"height": _SIDE_gemma3, "width": _SIDE_gemma3}),
        words,
        chat_template=template("<start_of_image>"),
        image_seq_length=_TOKENS,
    )


MODEL_mistral3 = transformers.Mistral3ForConditionalGeneration
_PATCH_mistral3, _MERGE, _LONGEST = 14, 2, 140


def config_mistral3() -> transformers.Mistral3Config:
    """A Pixtral tower whose patches are merged two by two, and a Mistral."""
    return transformers.Mistral3Config(
        vision_config=transformers.PixtralVisionConfig(
            **VISION, image_size=_LONGEST, patch_size=_PATCH_mistral3
        ),
        text_config=text_config(transformers.MistralConfig, sliding_window=None),
        image_token_index=FIRST_SPECIAL,
        spatial_merge_size=_MERGE,
        tie_word_embeddings=False,
    )


def processor_mistral3() -> Any:
    """Pixtral's own: the longest edge at most 140 pixels, both edges rounded up to merged patches."""
    words = tokenizer(image_token="[IMG]", image_break_token="[IMG_BREAK]", image_end_token="[IMG_END]")
    return pixtral_processor()(
        transformers.PixtralImageProcessorPil(
            size={"longest_edge": _LONGEST}, patch_size={"height": _PATCH_mistral3, "width": _PATCH_mistral3}
        ),
        words,
        patch_size=_PATCH_mistral3,
        spatial_merge_size=_MERGE,
        chat_template=template("[IMG]"),
    )
