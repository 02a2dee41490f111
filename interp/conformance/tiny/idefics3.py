"""A tiny Idefics3."""

from __future__ import annotations

import transformers

from interp.conformance.tiny.kit import FIRST_SPECIAL, VISION, template, text_config, tokenizer

__all__ = ["MODEL", "TOKENS", "config", "processor"]

MODEL = transformers.Idefics3ForConditionalGeneration
_SIDE, _PATCH, _SHUFFLE = 84, 14, 2
TOKENS = {
    "image_token": "<image>",
    "fake_image_token": "<fake_token_around_image>",
    "global_image_token": "<global-img>",
    "end_of_utterance_token": "<end_of_utterance>",
    **{f"row_{r}_col_{c}": f"<row_{r}_col_{c}>" for r in (1, 2, 3) for c in (1, 2, 3)},
}
"""Special tokens, of SmolVLM as well."""


def config() -> transformers.Idefics3Config:
    """Tiles of 6×6 patches, shuffled to 3×3 tokens, and a Llama."""
    return transformers.Idefics3Config(
        vision_config={**VISION, "image_size": _SIDE, "patch_size": _PATCH},
        text_config=text_config(transformers.LlamaConfig),
        image_token_id=FIRST_SPECIAL,
        scale_factor=_SHUFFLE,
        tie_word_embeddings=False,
    )


def processor() -> transformers.Idefics3Processor:
    """Idefics3's own: up to 3×3 tiles, then the whole image squashed to one."""
    images = transformers.Idefics3ImageProcessorPil(
        size={"longest_edge": 3 * _SIDE}, max_image_size={"longest_edge": _SIDE}
    )
    return transformers.Idefics3Processor(
        images,
        tokenizer(**TOKENS),
        image_seq_len=(_SIDE // _PATCH // _SHUFFLE) ** 2,
        chat_template=template("<image>"),
    )
