"""Tiny models whose decoder keeps latents in the place of keys and values."""

from __future__ import annotations

from typing import Any

import torch
import transformers

from interp.conformance.tiny.kit import FIRST_SPECIAL, VISION, TinyFamily, template, text_config, tokenizer
from interp.models.families.kimi_k25 import KimiImages
from interp.models.processors import images_only

__all__ = ["FAMILIES"]

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
    "kimi_k25": TinyFamily(Kimi_K25ForConditionalGeneration, kimi_k25_config, kimi_k25_processor),
}
"""Each family's tiny model by its name."""
