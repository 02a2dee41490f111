"""Tiny models of the families whose grids keep the image's shape, are pooled or overlap: Gemma 4 and others."""

from __future__ import annotations

from importlib import import_module
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
from interp.models.processors import gemma4_unified_processor as gemma4_unified_class
from interp.models.processors import images_only, molmo2_images
from interp.models.processors import molmo2_processor as molmo2_class
from interp.models.without_torchvision import gemma4_unified_images, module_of

__all__ = ["FAMILIES"]

_GEMMA4_PATCH, _GEMMA4_POOL = 4, 2
_SLIDING, _FULL = "sliding_attention", "full_attention"
_GEMMA4_LAYERS: dict[str, Any] = {
    "layers": 5,
    "head_dim": 16,
    "global_head_dim": 32,
    "num_global_key_value_heads": 1,
    "attention_k_eq_v": True,
    "sliding_window": 12,
    "layer_types": [_SLIDING, _FULL, _SLIDING, _SLIDING, _FULL],
    "num_kv_shared_layers": 2,
    "use_bidirectional_attention": "vision",
}
_GEMMA4_IDS: dict[str, Any] = {
    "audio_config": None,
    "image_token_id": FIRST_SPECIAL,
    "boi_token_id": FIRST_SPECIAL + 1,
    "eoi_token_id": FIRST_SPECIAL + 2,
    "audio_token_id": FIRST_SPECIAL + 3,
    "boa_token_id": FIRST_SPECIAL + 4,
    "eoa_token_index": FIRST_SPECIAL + 5,
    "video_token_id": FIRST_SPECIAL + 6,
    "tie_word_embeddings": False,
}


class Gemma4ForConditionalGeneration(transformers.Gemma4ForConditionalGeneration):
    """With a tower's positions and layers' scales that differ, unlike as transformers initialises them."""

    def __init__(self, config: transformers.Gemma4Config) -> None:
        super().__init__(config)
        tower: Any = self.model.vision_tower
        tower = tower.patch_embedder
        torch.nn.init.normal_(tower.position_embedding_table, std=0.5)
        torch.nn.init.normal_(tower.input_proj.weight, std=2.0)  # so that a patch's own pixels count most
        _vary_layers(self.model.language_model)


class Gemma4UnifiedForConditionalGeneration(transformers.Gemma4UnifiedForConditionalGeneration):
    """With positions and layers' scales that differ, too."""

    def __init__(self, config: transformers.Gemma4UnifiedConfig) -> None:
        super().__init__(config)
        vision: Any = self.model.embed_vision
        torch.nn.init.normal_(vision.pos_embedding, std=0.5)
        _vary_layers(self.model.language_model)


def _vary_layers(decoder: Any) -> None:
    for layer in decoder.layers:
        layer.layer_scalar.data.uniform_(0.7, 1.3)
        layer.self_attn.q_norm.weight.data.uniform_(0.2, 0.3)  # the product is not scaled


def gemma4_config() -> transformers.Gemma4Config:
    """Patches pooled 2×2, image blocks that see both ways, per-layer inputs; the last two layers have no keys.

    Layer 3 (sliding) shares the keys of layer 2, layer 4 (full) those of layer 1. Full layers have one key-value head,
    which is its keys too, of another size than the two of sliding layers.
    """
    return transformers.Gemma4Config(
        text_config=text_config(
            transformers.Gemma4TextConfig,
            **_GEMMA4_LAYERS,
            hidden_size_per_layer_input=8,
            vocab_size_per_layer_input=VOCABULARY,
        ),
        vision_config=transformers.Gemma4VisionConfig(
            **VISION,
            num_key_value_heads=2,
            head_dim=16,
            patch_size=_GEMMA4_PATCH,
            pooling_kernel_size=_GEMMA4_POOL,
            position_embedding_size=512,
        ),
        **_GEMMA4_IDS,
    )


def gemma4_processor() -> Any:
    """Gemma 4's own, without videos: the image resized to at most 70 tokens' worth of whole 8×8 px cells."""
    words = tokenizer(
        image_token="<|image|>",
        boi_token="<|image>",
        eoi_token="<image|>",
        audio_token="<|audio|>",
        boa_token="<|audio>",
        eoa_token="<audio|>",
        video_token="<|video|>",
    )
    images = transformers.Gemma4ImageProcessorPil(
        patch_size=_GEMMA4_PATCH, max_soft_tokens=70, pooling_kernel_size=_GEMMA4_POOL
    )
    return images_only(module_of("gemma4.processing_gemma4").Gemma4Processor)(
        transformers.Gemma4AudioFeatureExtractor(),
        images,
        words,
        None,
        image_seq_length=70,
        chat_template=template("<|image|>"),
    )


def gemma4_unified_config() -> transformers.Gemma4UnifiedConfig:
    """Cells of 2×2 patches projected by themselves, image blocks that see both ways, shared keys as in `gemma4`."""
    return transformers.Gemma4UnifiedConfig(
        text_config=text_config(
            transformers.Gemma4UnifiedTextConfig,
            **_GEMMA4_LAYERS,
        ),
        vision_config=transformers.Gemma4UnifiedVisionConfig(
            patch_size=_GEMMA4_PATCH,
            pooling_kernel_size=_GEMMA4_POOL,
            mm_embed_dim=48,
            output_proj_dims=48,
            mm_posemb_size=70,
        ),
        **_GEMMA4_IDS,
    )


def gemma4_unified_processor() -> Any:
    """Its own, without videos; images as in `gemma4_processor`."""
    sounds = import_module("transformers.models.gemma4_unified.feature_extraction_gemma4_unified")
    images = gemma4_unified_images()(
        patch_size=_GEMMA4_PATCH, max_soft_tokens=70, pooling_kernel_size=_GEMMA4_POOL
    )
    return gemma4_unified_class()(
        sounds.Gemma4UnifiedAudioFeatureExtractor(),
        images,
        gemma4_processor().tokenizer,
        None,
        image_seq_length=70,
        chat_template=template("<|image|>"),
    )


_COHERE_SIDE, _COHERE_PATCH, _COHERE_FACTOR = 48, 8, 2


def _cohere_text() -> transformers.Cohere2Config:
    """Two of three layers see eight tokens back; the other has no positions, as Cohere 2 has them."""
    sliding = "sliding_attention"
    return text_config(
        transformers.Cohere2Config, sliding_window=8, layer_types=[sliding, "full_attention", sliding]
    )


def _siglip(side: int, patch: int) -> transformers.SiglipVisionConfig:
    return transformers.SiglipVisionConfig(**VISION, image_size=side, patch_size=patch, vision_use_head=False)


class _Local:
    """A tower whose layers mix patches little, so that a patch's own pixels count most in its token."""

    model: Any

    def __init__(self, config: Any) -> None:
        super().__init__(config)  # pyright: ignore[reportCallIssue]
        for layer in self.model.vision_tower.encoder.layers:
            layer.self_attn.out_proj.weight.data.mul_(0.1)


class AyaVisionForConditionalGeneration(_Local, transformers.AyaVisionForConditionalGeneration):
    """Aya Vision."""


class Cohere2VisionForConditionalGeneration(_Local, transformers.Cohere2VisionForConditionalGeneration):
    """Command A Vision."""


def aya_vision_config() -> transformers.AyaVisionConfig:
    """Tiles of 6×6 patches, shuffled to 3×3 tokens, and a Cohere 2."""
    return transformers.AyaVisionConfig(
        vision_config=_siglip(_COHERE_SIDE, _COHERE_PATCH),
        text_config=_cohere_text(),
        downsample_factor=_COHERE_FACTOR,
        image_token_index=FIRST_SPECIAL,
        tie_word_embeddings=False,
    )


def aya_vision_processor() -> transformers.AyaVisionProcessor:
    """Aya Vision's own: up to six tiles by aspect ratio, then a thumbnail."""
    words = tokenizer(
        patch_token="<|IMG_PATCH|>",
        start_token="<|START_OF_IMG|>",
        end_token="<|END_OF_IMG|>",
        global_token="TILE_GLOBAL",
        image_token="<image>",
        **{f"tile_{i}": f"TILE_{i}" for i in range(1, 7)},
    )
    return transformers.AyaVisionProcessor(
        _cohere_images(),
        words,
        patch_size=_COHERE_PATCH,
        img_size=_COHERE_SIDE,
        downsample_factor=_COHERE_FACTOR,
        chat_template=template("<image>"),
    )


def cohere2_vision_config() -> transformers.Cohere2VisionConfig:
    """Tiles of 6×6 patches, shuffled to 3×3 tokens, and a Cohere 2."""
    return transformers.Cohere2VisionConfig(
        vision_config=_siglip(_COHERE_SIDE, _COHERE_PATCH),
        text_config=_cohere_text(),
        downsample_factor=_COHERE_FACTOR,
        alignment_intermediate_size=96,
        image_token_id=FIRST_SPECIAL,
        tie_word_embeddings=False,
    )


def cohere2_vision_processor() -> transformers.Cohere2VisionProcessor:
    """Command A Vision's own, but for the image processor: without torchvision the one it was derived from."""
    images = _cohere_images()
    images.patch_size = _COHERE_SIDE // _COHERE_PATCH // _COHERE_FACTOR
    words = tokenizer(
        image_token="<|IMG_PATCH|>",
        boi_token="<|START_OF_IMG|>",
        eoi_token="<|END_OF_IMG|>",
        img_line_break_token="<|IMG_LINE_BREAK|>",
    )
    return transformers.Cohere2VisionProcessor(images, words, chat_template=template("<|IMG_PATCH|>"))


def _cohere_images() -> Any:
    side = {"height": _COHERE_SIDE, "width": _COHERE_SIDE}
    return transformers.GotOcr2ImageProcessorPil(size=side, crop_to_patches=True, max_patches=6)


_MOLMO2: Any = getattr(transformers, "Molmo2ForConditionalGeneration", None)  # older versions have none
_MOLMO2_SIDE, _MOLMO2_PATCH = 42, 6
_MOLMO2_WORDS = (
    "im_patch",
    "im_end",
    "im_start",
    "low_res_im_start",
    "im_col",
    "frame_start",
    "frame_end",
    "im_low",
)


def molmo2_config() -> transformers.Molmo2Config:
    """Views of 7×7 patches pooled to 4×4 tokens, features of two layers of the tower, qk-norm."""
    names = {name: FIRST_SPECIAL + i for i, name in enumerate(_MOLMO2_WORDS)}
    return transformers.Molmo2Config(
        text_config=text_config(
            transformers.Molmo2TextConfig, head_dim=16, additional_vocab_size=0, tie_word_embeddings=False
        ),
        vision_config=transformers.Molmo2VisionConfig(
            **VISION,
            num_key_value_heads=2,
            head_dim=16,
            image_size=[_MOLMO2_SIDE, _MOLMO2_SIDE],
            patch_size=_MOLMO2_PATCH,
        ),
        adapter_config=transformers.Molmo2AdapterConfig(
            vision_feature_layer=[1, 0],
            hidden_size=32,
            num_attention_heads=2,
            num_key_value_heads=2,
            head_dim=16,
            intermediate_size=48,
            text_hidden_size=64,
        ),
        image_patch_id=names["im_patch"],
        image_end_token_id=names["im_end"],
        image_start_token_id=names["im_start"],
        low_res_image_start_token_id=names["low_res_im_start"],
        frame_start_token_id=names["frame_start"],
        frame_end_token_id=names["frame_end"],
    )


def molmo2_processor() -> Any:
    """Molmo 2's own, without videos: up to four crops that overlap by two patches, and the whole image."""
    words = tokenizer(
        **{name: f"<{name}>" for name in _MOLMO2_WORDS}, image_token="<|image|>", video_token="<|video|>"
    )
    images = molmo2_images()(
        size={"height": _MOLMO2_SIDE, "width": _MOLMO2_SIDE},
        patch_size=_MOLMO2_PATCH,
        max_crops=4,
        overlap_margins=[1, 1],
    )
    return molmo2_class()(images, None, words, chat_template=template("<|image|>"))


FAMILIES = {
    "aya_vision": TinyFamily(AyaVisionForConditionalGeneration, aya_vision_config, aya_vision_processor),
    "cohere2_vision": TinyFamily(
        Cohere2VisionForConditionalGeneration, cohere2_vision_config, cohere2_vision_processor
    ),
    "gemma4": TinyFamily(Gemma4ForConditionalGeneration, gemma4_config, gemma4_processor),
    "gemma4_unified": TinyFamily(
        Gemma4UnifiedForConditionalGeneration, gemma4_unified_config, gemma4_unified_processor
    ),
    "molmo2": TinyFamily(_MOLMO2, molmo2_config, molmo2_processor),
}
"""Each family's tiny model by its name."""
