"""Tiny random models with real processors, built in memory, once per session."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from functools import cache
from typing import Any

import numpy as np
import torch
import transformers
from tokenizers import Tokenizer, pre_tokenizers, processors
from tokenizers import models as tokenizer_models

from interp.inputs.sample import Sample

transformers.logging.set_verbosity_error()

IMAGE_TOKEN = 5
VOCABULARY = 160
WORDS = (
    *("<pad>", "<s>", "</s>", "<unk>", "<spare>", "<image>", "user", "assistant", ":", "?", ".", ","),
    *(
        "what",
        "where",
        "is",
        "the",
        "a",
        "in",
        "of",
        "there",
        "left",
        "right",
        "lung",
        "nodule",
        "circle",
        "red",
    ),
    *(
        "answer",
        "question",
        "using",
        "single",
        "word",
        "or",
        "phrase",
        "write",
        "general",
        "description",
        "image",
    ),
    *("yes", "no", "system", "be", "brief", "-", "x", "ray"),
)
TEMPLATE = (
    "{% for m in messages %}{{ m['role'] }} : {% for c in m['content'] %}"
    "{% if c['type'] == 'image' %}<image> {% else %}{{ c['text'] }} {% endif %}{% endfor %}{% endfor %}"
    "{% if add_generation_prompt %}assistant :{% endif %}"
)


def tokenizer() -> transformers.PreTrainedTokenizerFast:
    """Words split at white space and punctuation, `<s>` in front; made-up words for the rest of the ids."""
    words = [*WORDS, *(f"w{i}" for i in range(VOCABULARY - len(WORDS)))]
    backend = Tokenizer(tokenizer_models.WordLevel({w: i for i, w in enumerate(words)}, unk_token="<unk>"))
    backend.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Punctuation()]
    )
    backend.normalizer = None
    backend.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=backend,
        pad_token="<pad>",
        bos_token="<s>",
        eos_token="</s>",
        unk_token="<unk>",
        extra_special_tokens={"image_token": "<image>"},
        padding_side="right",
    )


def processor(side: int = 56, patch: int = 14, *, pad: bool = False) -> transformers.LlavaProcessor:
    """LLaVA's processor: centre-crop, or pad to a square."""
    images = transformers.LlavaImageProcessorPil(
        size={"shortest_edge": side}, crop_size={"height": side, "width": side}, do_pad=pad
    )
    return transformers.LlavaProcessor(
        images,
        tokenizer(),
        patch_size=patch,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        chat_template=TEMPLATE,
    )


def config(
    *,
    layers: int = 3,
    heads: int = 4,
    key_value_heads: int = 2,
    hidden: int = 64,
    side: int = 56,
    patch: int = 14,
) -> transformers.LlavaConfig:
    """A LLaVA of a CLIP tower and a Llama with grouped queries."""
    vision = transformers.CLIPVisionConfig(
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=2,
        image_size=side,
        patch_size=patch,
    )
    text = transformers.LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=hidden,
        intermediate_size=96,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=key_value_heads,
        head_dim=hidden // heads,
        max_position_embeddings=2048,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=2,
    )
    return transformers.LlavaConfig(
        vision_config=vision,
        text_config=text,
        image_token_id=IMAGE_TOKEN,
        vision_feature_layer=-2,
        vision_feature_select_strategy="default",
    )


@cache
def _llava(attention: str, **options: Any) -> transformers.LlavaForConditionalGeneration:
    torch.manual_seed(0)
    model = transformers.LlavaForConditionalGeneration._from_config(
        config(**options), attn_implementation=attention
    )
    for name, weight in model.named_parameters():
        if name.endswith(("q_proj.weight", "k_proj.weight")):
            weight.data.mul_(3)  # rows far from uniform, so that a wrong mask or scale shows
        if name == "lm_head.weight":
            weight.data.mul_(20)
    return model.eval()


def llava(attention: str = "sdpa", **options: Any) -> transformers.LlavaForConditionalGeneration:
    """A new tiny LLaVA, always with the same weights for the same options; nothing is shared with others."""
    return copy.deepcopy(_llava(attention, **options))


def picture(width: int = 80, height: int = 64, seed: int = 0) -> np.ndarray:
    """A smooth random image, (row, col, 3) uint8."""
    coarse = np.random.default_rng(seed).integers(0, 255, (4, 4, 3))
    return np.kron(coarse, np.ones((height // 4, width // 4, 1))).astype(np.uint8)


def sample(question: str = "where is the nodule?", seed: int = 0, **fields: Any) -> Sample:
    """A sample with one picture."""
    return Sample(picture(seed=seed), question, **fields)


def samples() -> list[Sample]:
    """Three samples with prompts of different lengths."""
    questions: Sequence[str] = (
        "is it red?",
        "where is the nodule in the left lung?",
        "what is there, in the lung?",
    )
    return [sample(question, seed=i) for i, question in enumerate(questions)]


def uneven_samples() -> list[Sample]:
    """Three samples with pictures of different shapes and prompts of different lengths, for models of any family."""
    rng = np.random.default_rng(0)
    sizes = ((64, 80), (84, 140), (90, 60))
    questions = ("is there red?", "where is the nodule in the left lung?", "what is there, in the lung?")
    pictures = [rng.integers(0, 255, (*size, 3)).astype(np.uint8) for size in sizes]
    return [Sample(one, question) for one, question in zip(pictures, questions, strict=True)]
