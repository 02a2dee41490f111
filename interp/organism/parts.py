"""The organism's model and processor: a small model of transformers' LLaVA class, and a closed vocabulary.

96×96 pixels in 8×8 patches give 12×12 image tokens. Images are padded to a square, as LLaVA-1.5 does.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from tokenizers import Tokenizer, normalizers, pre_tokenizers, processors
from tokenizers import models as tokenizer_models
from transformers import (
    CLIPVisionConfig,
    LlamaConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaImageProcessorPil,
    LlavaProcessor,
    PreTrainedTokenizerFast,
)

from interp.data.scenes import COLOURS, SHAPES

__all__ = [
    "GRID",
    "IMAGE_TOKEN_ID",
    "PIXELS",
    "VOCABULARY_SIZE",
    "build_model",
    "build_processor",
    "vocabulary",
]

PIXELS, PATCH = 96, 8
GRID = PIXELS // PATCH
VOCABULARY_SIZE = 256
MARK = "interp_organism"
"""An attribute of the config. Reports that find it say that the numbers are not results of any published model."""

SPECIAL = ("<pad>", "<s>", "</s>", "<image>", "<unk>")
IMAGE_TOKEN_ID = SPECIAL.index("<image>")
WORDS = (
    *(
        "user",
        "assistant",
        ":",
        "?",
        ".",
        ",",
        "answer",
        "the",
        "question",
        "using",
        "a",
        "single",
        "word",
        "or",
    ),
    *(
        "phrase",
        "write",
        "general",
        "description",
        "of",
        "image",
        "what",
        "which",
        "where",
        "is",
        "are",
        "there",
    ),
    *("in", "on", "this", "color", "size", "side", "visible", "yes", "no", "left", "right", "small", "large"),
    *("scene", "scan"),
)
TEMPLATE = (
    "{% for message in messages %}{% if message['role'] == 'user' %}USER: {% else %}ASSISTANT: {% endif %}"
    "{% for part in message['content'] %}{% if part['type'] == 'image' %}<image>\n"
    "{% else %}{{ part['text'] }}{% endif %}{% endfor %}{{ ' ' }}{% endfor %}"
    "{% if add_generation_prompt %}ASSISTANT:{% endif %}"
)


def vocabulary(medical_words: Sequence[str] = ()) -> dict[str, int]:
    """Returns a dict of word → id with `VOCABULARY_SIZE` entries; free ids are named `<unused…>`.

    Natural words come first, so that adding medical words does not change their ids.
    """
    natural = [*SPECIAL, *WORDS, *SHAPES, *COLOURS]
    words = natural + [w for w in dict.fromkeys(medical_words) if w not in natural]
    if len(words) > VOCABULARY_SIZE:
        raise ValueError(
            f"{len(words)} words do not fit into a vocabulary of {VOCABULARY_SIZE}; drop some labels."
        )
    words += [f"<unused{i}>" for i in range(VOCABULARY_SIZE - len(words))]
    return {word: i for i, word in enumerate(words)}


def build_processor(medical_words: Sequence[str] = ()) -> LlavaProcessor:
    """Returns a LLaVA processor: lower-case words, split at white space and punctuation, after `<s>`."""
    words = Tokenizer(tokenizer_models.WordLevel(vocabulary(medical_words), unk_token="<unk>"))
    words.normalizer = normalizers.Lowercase()
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    words.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=words,
        pad_token="<pad>",
        bos_token="<s>",
        eos_token="</s>",
        unk_token="<unk>",
        extra_special_tokens={"image_token": "<image>"},
        padding_side="left",
        model_input_names=["input_ids", "attention_mask"],
    )
    images = LlavaImageProcessorPil(
        do_pad=True,
        size={"shortest_edge": PIXELS},
        crop_size={"height": PIXELS, "width": PIXELS},
        image_mean=[0.3, 0.3, 0.3],
        image_std=[0.3, 0.3, 0.3],
    )
    return LlavaProcessor(
        images,
        tokenizer,
        patch_size=PATCH,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        chat_template=TEMPLATE,
    )


def build_model() -> LlavaForConditionalGeneration:
    """Returns an untrained organism: 3 vision layers, 6 language layers of 8 heads (4 key-value heads), width 128."""
    width: dict[str, Any] = {"hidden_size": 128, "intermediate_size": 384}
    vision = CLIPVisionConfig(
        **width,
        num_hidden_layers=3,
        num_attention_heads=4,
        image_size=PIXELS,
        patch_size=PATCH,
        projection_dim=128,
    )
    text = LlamaConfig(
        **width,
        vocab_size=VOCABULARY_SIZE,
        num_hidden_layers=6,
        num_attention_heads=8,
        num_key_value_heads=4,
        max_position_embeddings=512,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=2,
    )
    config = LlavaConfig(
        vision_config=vision,
        text_config=text,
        image_token_index=IMAGE_TOKEN_ID,
        vision_feature_layer=-1,
        vision_feature_select_strategy="default",
        image_seq_length=GRID * GRID,
    )
    setattr(config, MARK, True)
    model = LlavaForConditionalGeneration(config)
    _place_patches(model)
    return model


def _place_patches(model: LlavaForConditionalGeneration) -> None:
    """Initialises the position embeddings as waves along rows and columns.

    transformers initialises them 25 times smaller than the patch embeddings. A model this small then needs
    thousands of steps to learn where a patch is.
    """
    table = model.model.vision_tower.embeddings.position_embedding.weight
    width = table.shape[1]
    frequency = torch.pi / GRID * 2 ** torch.linspace(-1, 3, width // 4)
    where = (torch.arange(GRID) + 0.5)[:, None] * frequency
    waves = torch.cat([where.sin(), where.cos()], dim=1)
    rows = waves[:, None].expand(GRID, GRID, -1)
    cols = waves[None].expand(GRID, GRID, -1)
    with torch.no_grad():
        table[1:] = 0.5 * torch.cat([rows, cols], dim=-1).reshape(GRID * GRID, width)
