"""Texts without an image, as they stand: no chat template, the tokenizer's own special tokens."""

from __future__ import annotations

import inspect
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from interp.errors import PromptError
from interp.inputs.prompt import PAPER_PROMPT
from interp.inputs.sample import Sample
from interp.inputs.tokens import TokenMap
from interp.tracing.encoding.batch import PER_TOKEN, Batch, Encoded, Images
from interp.tracing.encoding.rendering import Rendered
from interp.tracing.wrapped_model import WrappedModel

__all__ = ["encoded_texts"]


def encoded_texts(
    mllm: WrappedModel, texts: Sequence[str], marked: Sequence[Sequence[int]] | None = None
) -> Batch:
    """The texts as one left-padded batch of prompts without image tokens.

    Args:
        mllm: the model.
        texts: the texts, each of one token or more.
        marked: positions of each text that stand for image tokens, such as the one where a vector is put; negative
            ones count from the end.

    Raises:
        PromptError: An empty text, one that holds the image placeholder, a marked position that is not there, or a
            text that is too long for the model.
    """
    encoder, singles = mllm.encoder, []
    types = [name for name in PER_TOKEN[2:] if name in inspect.signature(mllm.hf.forward).parameters]
    for i, text in enumerate(texts):
        ids = list(encoder.processor.tokenizer(text, truncation=False, padding=False)["input_ids"])
        if not ids or len(encoder.adapter.image_positions(np.array(ids), encoder.config)):
            raise PromptError(
                f"a text without an image has a token or more and no image placeholder; got {text!r:.100}. Leave it "
                "out, or take the placeholder out of it."
            )
        inputs = {"input_ids": torch.tensor([ids]), "attention_mask": torch.ones(1, len(ids)).long()}
        inputs |= {name: torch.zeros(1, len(ids)).long() for name in types}
        singles.append(_alone(text, inputs, () if marked is None else marked[i]))
    stand_ins = [Sample.unusable("a text has no image", id=f"text {i}") for i in range(len(texts))]
    return encoder.joined(stand_ins, PAPER_PROMPT, singles)


def _alone(text: str, inputs: dict[str, Tensor], marked: Sequence[int]) -> Encoded:
    """One text alone."""
    length = inputs["input_ids"].shape[1]
    if any(not -length <= at < length for at in marked):
        raise PromptError(
            f"the text {text!r:.100} has {length} tokens; got position {list(marked)}. Name one from {-length} to "
            f"{length - 1}."
        )
    tokens = TokenMap(
        image=np.array([at % length for at in marked], np.int64),
        footprints=np.full((len(marked), 4), np.nan),
        grid=None,
        views=np.full(len(marked), "text"),
        image_index=np.zeros(len(marked), np.int64),
        sizes=((1, 1),) * len(marked),
        length=length,
    )
    return Encoded(Rendered(text, text, None), inputs, tokens, None, Images({}))
