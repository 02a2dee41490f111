"""Tiny models of families for documents and of other towers than a plain ViT's."""

from __future__ import annotations

from typing import Any

import torch
import transformers

from interp.conformance.tiny.kit import FIRST_SPECIAL, VISION, TinyFamily, template, text_config, tokenizer

__all__ = ["FAMILIES"]

_DEEPSEEK_SIDE, _DEEPSEEK_PATCH = 56, 8


def deepseek_vl_config() -> transformers.DeepseekVLConfig:
    """A SigLIP tower of 7×7 patches and a Llama."""
    return transformers.DeepseekVLConfig(
        text_config=text_config(transformers.LlamaConfig),
        vision_config=transformers.SiglipVisionConfig(
            **VISION, image_size=_DEEPSEEK_SIDE, patch_size=_DEEPSEEK_PATCH, vision_use_head=False
        ),
        image_token_id=FIRST_SPECIAL,
        tie_word_embeddings=False,
    )


def deepseek_vl_processor() -> transformers.DeepseekVLProcessor:
    """DeepSeek-VL's own: the image fitted into a square and padded."""
    images = transformers.DeepseekVLImageProcessorPil(
        size={"height": _DEEPSEEK_SIDE, "width": _DEEPSEEK_SIDE}, min_size=_DEEPSEEK_PATCH
    )
    return transformers.DeepseekVLProcessor(
        images,
        tokenizer(image_token="<image_placeholder>"),
        chat_template=template("<image_placeholder>"),
        num_image_tokens=(_DEEPSEEK_SIDE // _DEEPSEEK_PATCH) ** 2,
    )


class DeepseekVLHybridForConditionalGeneration(transformers.DeepseekVLHybridForConditionalGeneration):
    """With a part of SAM's earlier features that is not zero, as transformers initialises it."""

    def __init__(self, config: transformers.DeepseekVLHybridConfig) -> None:
        super().__init__(config)
        torch.nn.init.constant_(self.model.high_res_vision_alpha, 0.5)


def deepseek_vl_hybrid_config() -> transformers.DeepseekVLHybridConfig:
    """The same, and a SAM of 14×14 patches, whose features two convolutions bring to 7×7."""
    small = deepseek_vl_config()
    return transformers.DeepseekVLHybridConfig(
        text_config=small.text_config,
        vision_config=small.vision_config,
        high_res_vision_config=transformers.SamVisionConfig(
            hidden_size=32,
            num_hidden_layers=2,
            num_attention_heads=2,
            output_channels=16,
            image_size=2 * _DEEPSEEK_SIDE,
            patch_size=_DEEPSEEK_PATCH,
            window_size=7,
            global_attn_indexes=[1],
            mlp_dim=48,
            initializer_range=0.1,
        ),
        image_token_id=FIRST_SPECIAL,
        tie_word_embeddings=False,
    )


def deepseek_vl_hybrid_processor() -> transformers.DeepseekVLHybridProcessor:
    """DeepSeek-VL's own for two towers: the image fitted into a square and padded, and that square shrunk."""
    images = transformers.DeepseekVLHybridImageProcessorPil(
        size={"height": _DEEPSEEK_SIDE, "width": _DEEPSEEK_SIDE},
        high_res_size={"height": 2 * _DEEPSEEK_SIDE, "width": 2 * _DEEPSEEK_SIDE},
        min_size=_DEEPSEEK_PATCH,
    )
    return transformers.DeepseekVLHybridProcessor(
        images,
        tokenizer(image_token="<image_placeholder>"),
        chat_template=template("<image_placeholder>"),
        num_image_tokens=(_DEEPSEEK_SIDE // _DEEPSEEK_PATCH) ** 2,
    )


_VIP_SIDE, _VIP_PATCH = 56, 14


def vipllava_config() -> transformers.VipLlavaConfig:
    """A CLIP tower of 4×4 patches, whose features are those of three layers side by side, and a Llama."""
    return transformers.VipLlavaConfig(
        vision_config=transformers.CLIPVisionConfig(
            **{**VISION, "num_hidden_layers": 3}, image_size=_VIP_SIDE, patch_size=_VIP_PATCH
        ),
        text_config=text_config(transformers.LlamaConfig, intermediate_size=80),
        image_token_index=FIRST_SPECIAL,
        image_seq_length=(_VIP_SIDE // _VIP_PATCH) ** 2,
        vision_feature_layer=[-2, -3, 3],
    )


def vipllava_processor() -> transformers.LlavaProcessor:
    """LLaVA's with CLIP's image processor: shortest edge, centre crop."""
    images = transformers.CLIPImageProcessorPil(
        size={"shortest_edge": _VIP_SIDE}, crop_size={"height": _VIP_SIDE, "width": _VIP_SIDE}
    )
    return transformers.LlavaProcessor(
        images,
        tokenizer(image_token="<image>"),
        patch_size=_VIP_PATCH,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        chat_template=template("<image>"),
    )


_FAST_SIDE, _FAST_STRIDE = 128, 16


class FastVlmForConditionalGeneration(transformers.FastVlmForConditionalGeneration):
    """With a tower whose biases are not zero, or it would not see how bright a patch is."""

    def __init__(self, config: transformers.FastVlmConfig) -> None:
        super().__init__(config)
        for name, weight in self.model.vision_tower.named_parameters():
            if name.endswith("bias"):
                torch.nn.init.normal_(weight, std=0.1)


def fast_vlm_config() -> transformers.FastVlmConfig:
    """A ConvNeXt of stride 16, which stands for FastViT (that needs timm), and a Qwen2."""
    return transformers.FastVlmConfig(
        vision_config=transformers.ConvNextConfig(
            hidden_sizes=[16, 24, 32],
            depths=[1, 1, 1],
            num_stages=3,
            hidden_size=32,  # pyright: ignore[reportCallIssue]
        ),
        text_config=text_config(transformers.Qwen2Config),
        image_token_index=FIRST_SPECIAL,
        image_seq_length=(_FAST_SIDE // _FAST_STRIDE) ** 2,
    )


def fast_vlm_processor() -> transformers.LlavaProcessor:
    """LLaVA's, as FastVLM's own code prepares an image: padded to a square and resized."""
    images = transformers.LlavaImageProcessorPil(
        size={"shortest_edge": _FAST_SIDE},
        crop_size={"height": _FAST_SIDE, "width": _FAST_SIDE},
        do_pad=True,
        image_mean=[0.0] * 3,
        image_std=[1.0] * 3,
    )
    return transformers.LlavaProcessor(
        images,
        tokenizer(image_token="<image>"),
        patch_size=_FAST_STRIDE,
        vision_feature_select_strategy="full",
        num_additional_image_tokens=0,
        chat_template=template("<image>"),
    )


_OVIS_SIDE, _OVIS_PATCH, _OVIS_STRIDE = 60, 10, 2
_OVIS_WORDS = {
    "image_token": "<IMG_ATOM>",
    "start_token": "<IMG_START>",
    "grid_token": "<IMG_GRID>",
    "col_token": "<IMG_COL>",
    "row_token": "<IMG_ROW>",
    "end_token": "<IMG_END>",
    "placeholder_token": "<image>",
}


def ovis2_config() -> transformers.Ovis2Config:
    """Tiles of 6×6 patches merged to 3×3 tokens; 40 visual words, and a Qwen2."""
    return transformers.Ovis2Config(
        vision_config={
            **VISION,
            "image_size": _OVIS_SIDE,
            "patch_size": _OVIS_PATCH,
            "hidden_stride": _OVIS_STRIDE,
            "vocab_size": 45,
            "num_visual_indicator_tokens": 5,
        },
        text_config=text_config(transformers.Qwen2Config),
        image_token_id=FIRST_SPECIAL,
        visual_indicator_token_ids=[FIRST_SPECIAL + i for i in range(1, 6)],
        hidden_size=64,
        vocab_size=256,
        tie_word_embeddings=False,
    )


def ovis2_processor() -> transformers.Ovis2Processor:
    """Ovis 2's own: the whole image, then up to six tiles that cover it."""
    images = transformers.Ovis2ImageProcessorPil(
        size={"height": _OVIS_SIDE, "width": _OVIS_SIDE}, crop_to_patches=True, max_patches=6
    )
    return transformers.Ovis2Processor(
        images, tokenizer(**_OVIS_WORDS), image_seq_length=9, chat_template=template("<image>")
    )


_GOT_SIDE, _GOT_PATCH, _GOT_TOKENS = 96, 4, 36


class GotOcr2ForConditionalGeneration(transformers.GotOcr2ForConditionalGeneration):
    """With position embeddings that are not zero, as transformers initialises them."""

    def __init__(self, config: transformers.GotOcr2Config) -> None:
        super().__init__(config)
        places: Any = self.model.vision_tower.pos_embed
        torch.nn.init.normal_(places, std=0.1)


def got_ocr2_config() -> transformers.GotOcr2Config:
    """SAM's tower of 24×24 patches, halved twice to 6×6 tokens, and a Qwen2."""
    return transformers.GotOcr2Config(
        vision_config={
            "hidden_size": 32,
            "mlp_dim": 48,
            "output_channels": 64,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "image_size": _GOT_SIDE,
            "patch_size": _GOT_PATCH,
            "window_size": 4,
            "global_attn_indexes": [1],
            "initializer_range": 0.02,
        },
        text_config=text_config(transformers.Qwen2Config),
        image_token_index=FIRST_SPECIAL,
        image_seq_length=_GOT_TOKENS,
        tie_word_embeddings=False,
    )


def got_ocr2_processor() -> transformers.GotOcr2Processor:
    """GOT-OCR's own: the page squashed to a square; no tiles unless asked for."""
    images = transformers.GotOcr2ImageProcessorPil(size={"height": _GOT_SIDE, "width": _GOT_SIDE})
    words = tokenizer(image_token="<imgpad>", start_token="<img>", end_token="</img>")
    processor = transformers.GotOcr2Processor(images, words, chat_template=template("<imgpad>"))
    processor.num_image_tokens = _GOT_TOKENS
    return processor


_LIGHTON_PATCH, _LIGHTON_MERGE, _LIGHTON_LONGEST = 14, 2, 154


def lighton_ocr_config() -> transformers.LightOnOcrConfig:
    """A Pixtral tower whose patches are merged two by two, and a Qwen3."""
    return transformers.LightOnOcrConfig(
        vision_config=transformers.PixtralVisionConfig(
            **VISION, image_size=_LIGHTON_LONGEST, patch_size=_LIGHTON_PATCH
        ),
        text_config=text_config(transformers.Qwen3Config, head_dim=16),
        image_token_id=FIRST_SPECIAL,
        spatial_merge_size=_LIGHTON_MERGE,
        tie_word_embeddings=False,
    )


def lighton_ocr_processor() -> Any:
    """LightOnOCR's own: the longest edge at most 154 pixels, both edges rounded up to patches."""
    words = tokenizer(
        image_token="<|image_pad|>", image_break_token="<|vision_pad|>", image_end_token="<|vision_end|>"
    )
    return transformers.LightOnOcrProcessor(
        transformers.PixtralImageProcessorPil(
            size={"longest_edge": _LIGHTON_LONGEST},
            patch_size={"height": _LIGHTON_PATCH, "width": _LIGHTON_PATCH},
        ),
        words,
        patch_size=_LIGHTON_PATCH,
        spatial_merge_size=_LIGHTON_MERGE,
        chat_template=template("<|image_pad|>"),
    )


FAMILIES = {
    "deepseek_vl_hybrid": TinyFamily(
        DeepseekVLHybridForConditionalGeneration, deepseek_vl_hybrid_config, deepseek_vl_hybrid_processor
    ),
    "deepseek_vl": TinyFamily(
        transformers.DeepseekVLForConditionalGeneration, deepseek_vl_config, deepseek_vl_processor
    ),
    "vipllava": TinyFamily(
        transformers.VipLlavaForConditionalGeneration, vipllava_config, vipllava_processor
    ),
    "fast_vlm": TinyFamily(FastVlmForConditionalGeneration, fast_vlm_config, fast_vlm_processor, whole=False),
    "ovis2": TinyFamily(transformers.Ovis2ForConditionalGeneration, ovis2_config, ovis2_processor),
    "got_ocr2": TinyFamily(GotOcr2ForConditionalGeneration, got_ocr2_config, got_ocr2_processor, whole=False),
    "lighton_ocr": TinyFamily(
        transformers.LightOnOcrForConditionalGeneration, lighton_ocr_config, lighton_ocr_processor
    ),
}
"""Each family's tiny model by its name."""
