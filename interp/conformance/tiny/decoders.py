"""Tiny models whose decoder is of another form: stacked streams, convolutions, gated DeltaNet, latents as keys."""

from __future__ import annotations

from typing import Any

import torch
import transformers
from huggingface_hub.dataclasses import strict

from interp.conformance.tiny.kit import (
    FIRST_SPECIAL,
    VISION,
    VOCABULARY,
    TinyFamily,
    template,
    text_config,
    tokenizer,
)
from interp.conformance.tiny.qwen_vl import QWEN3_VL_VISION, TOKENS, qwen3_vl_processor
from interp.models.families.kimi_k25 import KimiImages
from interp.models.processors import images_only, minicpmv_processor
from interp.models.processors import lfm2_vl_processor as lfm2_vl_class
from interp.models.without_torchvision import lfm2_vl_images

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


_PATCH, _FACTOR = 8, 2
_LAYERS = ["conv", "full_attention", "conv", "full_attention", "conv"]


def lfm2_vl_config() -> transformers.Lfm2VlConfig:
    """SigLIP 2 with patches merged 2×2; convolutions first and last, as in the published models, attention between."""
    text = text_config(
        transformers.Lfm2Config,
        layers=len(_LAYERS),
        layer_types=_LAYERS,
        block_auto_adjust_ff_dim=False,
        tie_word_embeddings=False,
    )
    vision = transformers.Siglip2VisionConfig(
        **VISION, patch_size=_PATCH, num_patches=64, vision_use_head=False
    )
    return transformers.Lfm2VlConfig(
        text_config=text,
        vision_config=vision,
        image_token_id=FIRST_SPECIAL,
        projector_hidden_size=32,
        downsample_factor=_FACTOR,
        tie_word_embeddings=False,
    )


def lfm2_vl_processor() -> Any:
    """LFM2-VL's own: 4 to 12 tokens for a small image; 2 to 4 tiles of 4×4 tokens and a thumbnail for a large one."""
    images = lfm2_vl_images()(
        downsample_factor=_FACTOR,
        encoder_patch_size=_PATCH,
        min_image_tokens=4,
        max_image_tokens=12,
        tile_size=64,
        min_tiles=2,
        max_tiles=4,
    )
    words = tokenizer(
        image_token="<image>",
        image_start_token="<|image_start|>",
        image_end_token="<|image_end|>",
        image_thumbnail_token="<|img_thumbnail|>",
        **{f"tile_{r}_{c}": f"<|img_row_{r}_col_{c}|>" for r in range(1, 5) for c in range(1, 5)},
    )
    return lfm2_vl_class()(images, words, chat_template=template("<image>"))


_TEXT: dict[str, Any] = {
    "head_dim": 16,
    "linear_conv_kernel_dim": 4,
    "linear_key_head_dim": 8,
    "linear_value_head_dim": 12,
    "linear_num_key_heads": 2,
    "linear_num_value_heads": 6,
    "tie_word_embeddings": False,
    "rope_parameters": {
        "rope_type": "default",
        "rope_theta": 10000.0,
        "partial_rotary_factor": 0.5,
        "mrope_section": [2, 1, 1],
        "mrope_interleaved": True,
    },
}
"""Arguments of both language models: three DeltaNet heads to a key head, rope on half of each attention head."""

_VISION = {name: value for name, value in QWEN3_VL_VISION.items() if name != "deepstack_visual_indexes"}


def qwen3_5_config() -> transformers.Qwen3_5Config:
    """Eight layers in the family's own mixture: three of gated DeltaNet, then one of attention with an output gate."""
    text = text_config(transformers.Qwen3_5TextConfig, layers=8, **_TEXT)
    return transformers.Qwen3_5Config(text_config=text, vision_config=_VISION, **TOKENS)


def qwen3_5_moe_config() -> transformers.Qwen3_5MoeConfig:
    """Four layers of the same mixture; a token takes two of four experts in each, and one that all tokens share."""
    text = text_config(
        transformers.Qwen3_5MoeTextConfig,
        layers=4,
        num_experts=4,
        num_experts_per_tok=2,
        moe_intermediate_size=32,
        shared_expert_intermediate_size=32,
        **_TEXT,
    )
    return transformers.Qwen3_5MoeConfig(text_config=text, vision_config=_VISION, **TOKENS)


_SLICES = ("image_start", "image_end", "slice_start", "slice_end", "image_id_start", "image_id_end")


def minicpmv4_6_config() -> transformers.MiniCPMV4_6Config:
    """SigLIP with a merge of windows of 2×2 patches after its first layer, a merge behind it, and a Qwen3.5 text."""
    return transformers.MiniCPMV4_6Config(
        text_config=text_config(transformers.Qwen3_5TextConfig, layers=4, **_TEXT),
        vision_config={**VISION, "num_hidden_layers": 3, "image_size": 64, "patch_size": 8},
        insert_layer_id=0,
        image_size=64,
        image_token_id=FIRST_SPECIAL,
        video_token_id=FIRST_SPECIAL + 1,
    )


def minicpmv4_6_processor() -> Any:
    """MiniCPM-V's, without videos: views of about 96×96 pixels, 3×3 tokens; at most four slices."""
    words = tokenizer(
        image_token="<|image_pad|>",
        video_token="<|video_pad|>",
        **{f"{name}_token": f"<{name}>" for name in _SLICES},
    )
    images = transformers.MiniCPMV4_6ImageProcessorPil(scale_resolution=96, patch_size=8, max_slice_nums=4)
    return minicpmv_processor()(images, None, words, chat_template=template("<|image_pad|>"))


_KIMI_PATCH, _KIMI_MERGE = 8, 2


class Kimi_K25ForConditionalGeneration(transformers.Kimi_K25ForConditionalGeneration):  # noqa: N801
    """With latent projections that are large enough for rows of attention that are far from even."""

    def __init__(self, config: transformers.Kimi_K25Config) -> None:
        super().__init__(config)
        for name, weight in self.model.language_model.named_parameters():
            if name.endswith(("q_b_proj.weight", "kv_b_proj.weight")):
                torch.nn.init.normal_(weight, std=0.4)


def kimi_k25_config() -> transformers.Kimi_K25Config:
    """MoonViT, patches merged 2×2; a DeepSeek V3 with values narrower than keys, two of three layers with experts."""
    return transformers.Kimi_K25Config(
        vision_config={
            **VISION,
            "patch_size": _KIMI_PATCH,
            "pos_emb_height": 8,
            "pos_emb_width": 8,
        },
        text_config=text_config(
            transformers.DeepseekV3Config,
            num_key_value_heads=4,
            q_lora_rank=24,
            kv_lora_rank=16,
            qk_nope_head_dim=16,
            qk_rope_head_dim=8,
            v_head_dim=12,
            n_routed_experts=4,
            n_shared_experts=1,
            num_experts_per_tok=2,
            n_group=1,
            topk_group=1,
            moe_intermediate_size=32,
            first_k_dense_replace=1,
        ),
        projection_hidden_size=VISION["hidden_size"],
        image_token_id=FIRST_SPECIAL,
        video_token_id=FIRST_SPECIAL + 1,
        vision_start_token_id=FIRST_SPECIAL + 2,
        vision_end_token_id=FIRST_SPECIAL + 3,
        tie_word_embeddings=False,
    )


def kimi_k25_processor() -> Any:
    """Kimi's, without videos: images of at most 240 patches, 24 along a side."""
    words = tokenizer(
        image_token="<|media_pad|>",
        video_token="<|kimi_k25_video_placeholder|>",
        begin_token="<|media_begin|>",
        end_token="<|media_end|>",
    )
    settings: dict[str, Any] = {"max_patches": 240, "patch_size": _KIMI_PATCH, "merge_size": _KIMI_MERGE}
    images = KimiImages(size={"max_height": 24, "max_width": 24}, **settings)
    chat = template("<|media_begin|> <|media_pad|> <|media_end|>")
    return images_only(transformers.Kimi_K25Processor)(images, words, chat_template=chat)


FAMILIES = {
    "gemma3n": TinyFamily(Gemma3nForConditionalGeneration, gemma3n_config, gemma3n_processor, whole=False),
    "lfm2_vl": TinyFamily(transformers.Lfm2VlForConditionalGeneration, lfm2_vl_config, lfm2_vl_processor),
    "minicpmv4_6": TinyFamily(
        transformers.MiniCPMV4_6ForConditionalGeneration, minicpmv4_6_config, minicpmv4_6_processor
    ),
    "qwen3_5": TinyFamily(transformers.Qwen3_5ForConditionalGeneration, qwen3_5_config, qwen3_vl_processor),
    "qwen3_5_moe": TinyFamily(
        transformers.Qwen3_5MoeForConditionalGeneration, qwen3_5_moe_config, qwen3_vl_processor
    ),
    "kimi_k25": TinyFamily(Kimi_K25ForConditionalGeneration, kimi_k25_config, kimi_k25_processor),
}
"""Each family's tiny model by its name."""
