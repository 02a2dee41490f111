"""Texts that lenses read: where the words of a corpus are, and texts encoded without an image."""

from __future__ import annotations

import hashlib
import inspect
import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from interp.errors import ModelError, PromptError
from interp.inputs.files import unreadable
from interp.inputs.prompt import PAPER_PROMPT
from interp.inputs.sample import Sample
from interp.inputs.text import word_spans
from interp.inputs.tokens import TokenMap
from interp.tracing.encoding.batch import PER_TOKEN, Batch, Encoded, Images
from interp.tracing.encoding.rendering import Rendered
from interp.tracing.wrapped_model import WrappedModel

__all__ = [
    "TEMPLATES",
    "Occurrence",
    "as_corpus",
    "corpus_digest",
    "encoded_texts",
    "filled",
    "occurrences",
    "packed",
]


SLOT = "{word}"
TEMPLATES = (
    "A photo of a {word}.",
    "There is a {word} in the image.",
    "What is visible in this image? The {word}.",
    "The color is {word}.",
    "Question: which one is it? Answer: {word}",
)
"""The bundled corpus; each template makes a text for each word. "What is visible", "there is a" and "answer" are in the
organisms' vocabulary; the other words are not."""


def as_corpus(corpus: Any) -> tuple[str, ...]:
    """The texts of a corpus: a list of texts, or the lines of a text file; `TEMPLATES` for None.

    Raises:
        PromptError: No texts, or a file that cannot be read.
    """
    if corpus is None:
        return TEMPLATES
    if isinstance(corpus, str | Path):
        if problem := unreadable(Path(corpus)):
            raise PromptError(
                f"corpus is a list of texts or a text file with one a line; {str(corpus)!r:.100} {problem} Give the "
                "path of a file, or a list: corpus=[…]."
            )
        try:
            corpus = Path(corpus).read_text("utf-8").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise PromptError(f"the corpus {str(corpus)!r:.100} is no text in UTF-8: {error}.") from error
    listed = isinstance(corpus, Iterable) and not isinstance(corpus, bytes | dict | set)
    texts: tuple[Any, ...] = tuple(corpus) if listed else ()
    if not texts or not all(isinstance(text, str) for text in texts):
        raise PromptError(f"corpus is a list of texts or a text file with one a line; got {corpus!r:.100}.")
    texts = tuple(text.strip() for text in texts if text.strip())
    if not texts:
        raise PromptError("the corpus holds no text but empty lines. Give a list of texts: corpus=[…].")
    return texts


def corpus_digest(corpus: Sequence[str]) -> str:
    """Hex SHA-256 of the texts, in order."""
    return hashlib.sha256(json.dumps(list(corpus)).encode()).hexdigest()


def filled(corpus: Sequence[str], words: Iterable[str]) -> list[str]:
    """The texts, without repeats; a text with "{word}" makes one text for each word."""
    listed = list(words)
    return list(
        dict.fromkeys(
            text.replace(SLOT, word) for text in corpus for word in (listed if SLOT in text else [""])
        )
    )


@dataclass(frozen=True)
class Occurrence:
    """A word in a text.

    Attributes:
        word: The word, casefolded.
        position: The position of its last token in the text.
        before: The ids of all tokens up to and including that one; equal ids give equal embeddings.
    """

    word: str
    position: int
    before: tuple[int, ...]


def occurrences(tokenizer: Any, text: str, words: Iterable[str] = ()) -> Iterator[Occurrence]:
    """The words of a text, except one at its first token, whose embedding has no context.

    Args:
        tokenizer: A fast tokenizer, which says where in the text its tokens are.
        text: The text.
        words: Words of several parts to find as well, such as "blood vessel".

    Raises:
        ModelError: A slow tokenizer.
    """
    if not getattr(tokenizer, "is_fast", False):
        raise ModelError(
            f"{type(tokenizer).__name__} does not say where in a text its tokens are, so the words of a corpus cannot "
            "be found. Wrap the model with a processor whose tokenizer is fast."
        )
    found = tokenizer(text, truncation=False, padding=False, return_offsets_mapping=True)
    ids, spans = found["input_ids"], found["offset_mapping"]
    own = [at for at, (start, stop) in enumerate(spans) if stop > start]
    for word, start, stop in _spelt(text, words):
        tokens = [at for at in own if spans[at][0] < stop and spans[at][1] > start]
        if tokens and tokens[-1] != own[0]:
            yield Occurrence(word, tokens[-1], tuple(ids[: tokens[-1] + 1]))


def _spelt(text: str, words: Iterable[str]) -> Iterator[tuple[str, int, int]]:
    """Each word of a text, with the characters at which it starts and stops (half-open)."""
    spans = word_spans(text)
    spelled = [text[start:stop].casefold() for start, stop in spans]
    for word, span in zip(spelled, spans, strict=True):
        yield word, *span
    for word in words:
        wanted = [word[start:stop].casefold() for start, stop in word_spans(word)]
        if len(wanted) > 1:
            for i in range(len(spans) - len(wanted) + 1):
                if spelled[i : i + len(wanted)] == wanted:
                    yield word.casefold(), spans[i][0], spans[i + len(wanted) - 1][1]


def packed(tokenizer: Any, texts: Sequence[str], n_tokens: int) -> list[str]:
    """The texts joined by spaces, in order, into texts of at most `n_tokens` tokens; longer texts stay alone."""
    joined: list[str] = []
    for text in texts:
        longer = f"{joined[-1]} {text}" if joined else text
        if joined and len(tokenizer(longer)["input_ids"]) <= n_tokens:
            joined[-1] = longer
        else:
            joined.append(text)
    return joined


def encoded_texts(
    mllm: WrappedModel, texts: Sequence[str], marked: Sequence[Sequence[int]] | None = None
) -> Batch:
    """The texts as one left-padded batch of prompts without image tokens.

    Args:
        mllm: The model.
        texts: The texts, each of one token or more.
        marked: For each text, the positions that are treated as image tokens, such as the one where a vector is put;
            negative positions count from the end.

    Raises:
        PromptError: An empty text, a text with the image placeholder, a marked position that the text does not have, or
            a text that is too long for the model.
    """
    encoder, singles = mllm.encoder, []
    types = [name for name in PER_TOKEN[2:] if name in inspect.signature(mllm.hf.forward).parameters]
    for i, text in enumerate(texts):
        ids = list(encoder.processor.tokenizer(text, truncation=False, padding=False)["input_ids"])
        if not ids or len(encoder.adapter.image_positions(np.array(ids), encoder.config)):
            raise PromptError(
                f"a text without an image has at least one token and no image placeholder; got {text!r:.100}. Leave it "
                "out, or remove the placeholder from it."
            )
        inputs = {"input_ids": torch.tensor([ids]), "attention_mask": torch.ones(1, len(ids)).long()}
        inputs |= {name: torch.zeros(1, len(ids)).long() for name in types}
        singles.append(_alone(text, inputs, () if marked is None else marked[i]))
    stand_ins = [Sample.unusable("a text has no image", id=f"text {i}") for i in range(len(texts))]
    return encoder.joined(stand_ins, PAPER_PROMPT, singles)


def _alone(text: str, inputs: dict[str, Tensor], marked: Sequence[int]) -> Encoded:
    """The encoding of one text, with marked positions in the place of image tokens."""
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
