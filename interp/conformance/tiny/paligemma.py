"""A tiny PaliGemma."""

from __future__ import annotations

import transformers

from interp.conformance.tiny.kit import FIRST_SPECIAL, VISION, text_config, tokenizer

__all__ = ["MODEL", "config", "processor"]

MODEL = transformers.PaliGemmaForConditionalGeneration
_SIDE, _PATCH = 70, 14


def config() -> transformers.PaliGemmaConfig:
    """A SigLIP tower of 5×5 patches and a Gemma that sees the whole prompt."""
    return transformers.PaliGemmaConfig(
        vision_config=transformers.SiglipVisionConfig(
            **VISION, image_size=_SIDE, patch_size=_PATCH, vision_use_head=False
        ),
        text_config=text_config(transformers.GemmaConfig, head_dim=16),
        image_token_index=FIRST_SPECIAL,
        projection_dim=64,
        hidden_size=64,
        tie_word_embeddings=False,
    )


def processor() -> transformers.PaliGemmaProcessor:
    """PaliGemma's own: no chat template; it writes `<s>` after the last image and a newline at the end."""
    images = transformers.SiglipImageProcessorPil(size={"height": _SIDE, "width": _SIDE})
    images.image_seq_length = (_SIDE // _PATCH) ** 2  # pyright: ignore[reportAttributeAccessIssue]
    return transformers.PaliGemmaProcessor(images, tokenizer(image_token="<image>"))
