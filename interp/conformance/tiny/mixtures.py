"""Tiny models of the families with a mixture of experts, and of dense ones with the same image part."""

from __future__ import annotations

from typing import Any

import torch
import transformers

from interp.conformance.tiny import qwen_vl
from interp.conformance.tiny.kit import FIRST_SPECIAL, VISION, TinyFamily, template, text_config, tokenizer
from interp.models.families.llama import Llama4ImageProcessorPil
from interp.models.processors import images_only

__all__ = ["FAMILIES"]


def qwen3_vl_moe_config() -> transformers.Qwen3VLMoeConfig:
    """Qwen3-VL's tower; the first layer is dense, in the others each token goes to two of six experts."""
    dense: Any = qwen_vl.qwen3_vl_config()
    return transformers.Qwen3VLMoeConfig(
        text_config=text_config(
            transformers.Qwen3VLMoeTextConfig,
            head_dim=16,
            rope_parameters=dense.text_config.rope_parameters,
            num_experts=6,
            num_experts_per_tok=2,
            moe_intermediate_size=48,
            mlp_only_layers=[0],
            tie_word_embeddings=False,
        ),
        vision_config=qwen_vl.QWEN3_VL_VISION,
        **qwen_vl.TOKENS,
    )


_GLM_PATCH = 14
_GLM_TOKENS = ("image_token", "video_token", "image_start", "image_end", "video_start", "video_end")
_GLM_IDS: dict[str, Any] = {
    f"{name.removesuffix('_token')}_token_id": FIRST_SPECIAL + i for i, name in enumerate(_GLM_TOKENS)
}
_GLM_VISION: dict[str, Any] = {
    "depth": 2,
    "hidden_size": 32,
    "out_hidden_size": 64,
    "num_heads": 2,
    "intermediate_size": 48,
    "image_size": 8 * _GLM_PATCH,
    "patch_size": _GLM_PATCH,
}
_GLM_ROPE: dict[str, Any] = {
    "rope_type": "default",
    "rope_theta": 10000.0,
    "mrope_section": [1, 1, 2],
    "partial_rotary_factor": 0.5,
}


def _glm_processor(kind: type[Any], images: type[Any]) -> Any:
    """A GLM processor without videos, for images of 9 to 60 tokens of 2×2 patches; its limits count two frames."""
    cell = 2 * (2 * _GLM_PATCH) ** 2
    words = tokenizer(
        image_token="<|image|>",
        video_token="<|video|>",
        image_start="<|begin_of_image|>",
        image_end="<|end_of_image|>",
        video_start="<|begin_of_video|>",
        video_end="<|end_of_video|>",
    )
    return images_only(kind)(
        images(patch_size=_GLM_PATCH, size={"shortest_edge": 9 * cell, "longest_edge": 60 * cell}),
        words,
        chat_template=template("<|begin_of_image|> <|image|> <|end_of_image|>"),
    )


def glm4v_config() -> transformers.Glm4vConfig:
    """Patches of 14 px, merged 2×2 by a convolution; rope of three axes over half of each head."""
    return transformers.Glm4vConfig(
        text_config=text_config(transformers.Glm4vTextConfig, rope_parameters=_GLM_ROPE),
        vision_config=_GLM_VISION,
        **_GLM_IDS,
    )


def glm4v_processor() -> Any:
    """GLM-4.1V's own, for images of 9 to 60 tokens."""
    return _glm_processor(transformers.Glm4vProcessor, transformers.Glm4vImageProcessorPil)


def glm46v_config() -> transformers.Glm46VConfig:
    """GLM-4.1V's tower and decoder."""
    dense = glm4v_config()
    return transformers.Glm46VConfig(
        text_config=dense.text_config, vision_config=dense.vision_config, **_GLM_IDS
    )


def glm46v_processor() -> Any:
    """GLM-4.6V's own, for images of 9 to 60 tokens."""
    return _glm_processor(transformers.Glm46VProcessor, transformers.Glm46VImageProcessorPil)


class Glm4vMoeForConditionalGeneration(transformers.Glm4vMoeForConditionalGeneration):
    """With a bias of the choice of experts that is not zero, as transformers initialises it."""

    def __init__(self, config: transformers.Glm4vMoeConfig) -> None:
        super().__init__(config)
        text: Any = config.text_config
        layers: Any = self.model.language_model.layers
        for layer in layers[text.first_k_dense_replace :]:
            torch.nn.init.normal_(layer.mlp.gate.e_score_correction_bias, std=0.05)


def glm4v_moe_config() -> transformers.Glm4vMoeConfig:
    """GLM-4.1V's tower; after a dense layer each token goes to two of eight experts, from two of four groups."""
    return transformers.Glm4vMoeConfig(
        text_config=text_config(
            transformers.Glm4vMoeTextConfig,
            rope_parameters=_GLM_ROPE,
            n_routed_experts=8,
            num_experts_per_tok=2,
            n_group=4,
            topk_group=2,
            routed_scaling_factor=1.5,
            moe_intermediate_size=48,
        ),
        vision_config=_GLM_VISION,
        **_GLM_IDS,
    )


_LLAMA4_SIDE, _LLAMA4_PATCH = 56, 7


class Llama4ForConditionalGeneration(transformers.Llama4ForConditionalGeneration):
    """With a vision tower whose position embeddings are not zero, as transformers leaves them."""

    def __init__(self, config: transformers.Llama4Config) -> None:
        super().__init__(config)
        torch.nn.init.normal_(self.vision_model.positional_embedding_vlm, std=0.1)


def llama4_config() -> transformers.Llama4Config:
    """Tiles of 8×8 patches, shuffled to 4×4 tokens.

    Layers 0 and 2 see chunks of 48 tokens, with rope and normalised queries and keys; layer 1 sees everything, without
    them. In layers 1 and 2 each token goes to one of four experts.
    """
    return transformers.Llama4Config(
        vision_config=transformers.Llama4VisionConfig(
            **{**VISION, "intermediate_size": 128},
            image_size=_LLAMA4_SIDE,
            patch_size=_LLAMA4_PATCH,
            vision_output_dim=48,
            projector_input_dim=48,
            projector_output_dim=48,
            rope_parameters={"rope_type": "default", "rope_theta": 10000.0},
        ),
        text_config=text_config(
            transformers.Llama4TextConfig,
            head_dim=16,
            intermediate_size_mlp=96,
            num_local_experts=4,
            moe_layers=[1, 2],
            no_rope_layers=[1, 0, 1],
            attention_chunk_size=48,
        ),
        image_token_index=FIRST_SPECIAL,
        boi_token_index=FIRST_SPECIAL + 1,
        eoi_token_index=FIRST_SPECIAL + 2,
    )


def llama4_processor() -> transformers.Llama4Processor:
    """Llama 4's own, for canvases of at most four tiles of 56 px."""
    names = ("patch", "image_start", "image_end", "image", "tile_x_separator", "tile_y_separator")
    return transformers.Llama4Processor(
        Llama4ImageProcessorPil(size={"height": _LLAMA4_SIDE, "width": _LLAMA4_SIDE}, max_patches=4),
        tokenizer(**{f"{name}_token": f"<|{name}|>" for name in names}),
        patch_size=_LLAMA4_PATCH,
        chat_template=template("<|image|>"),
    )


FAMILIES = {
    "llama4": TinyFamily(Llama4ForConditionalGeneration, llama4_config, llama4_processor),
    "qwen3_vl_moe": TinyFamily(
        transformers.Qwen3VLMoeForConditionalGeneration, qwen3_vl_moe_config, qwen_vl.qwen3_vl_processor
    ),
    "glm4v": TinyFamily(transformers.Glm4vForConditionalGeneration, glm4v_config, glm4v_processor),
    "glm46v": TinyFamily(transformers.Glm46VForConditionalGeneration, glm46v_config, glm46v_processor),
    "glm4v_moe": TinyFamily(Glm4vMoeForConditionalGeneration, glm4v_moe_config, glm4v_processor),
}
"""Each family's tiny model by its name."""
