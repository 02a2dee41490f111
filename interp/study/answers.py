"""What the model would answer, judged by the first token only."""

from __future__ import annotations

import string
from collections.abc import Mapping
from typing import Any

import numpy as np
from jaxtyping import Float

from interp.errors import MapError
from interp.prompt import Prompt
from interp.sample import Sample

__all__ = ["accepted", "answer_columns"]

NOTHING: Mapping[str, Any] = {"predicted": None, "correct": None, "logprob": None}


def answer_columns(
    logits: Float[np.ndarray, " token_id"] | None, sample: Sample, prompt: Prompt, tokenizer: Any
) -> dict[str, Any]:
    """The greedy first token as text, whether it begins the answer, and the log-probability of beginning it.

    `correct` compares text, without case and punctuation; `logprob` sums the probabilities of the first
    tokens of the answer's spellings (as written, lower case, capitalised, with and without a space before).
    Both are None for a sample without an answer, all three without logits.

    Raises:
        MapError: The logits hold NaN, +∞ or nothing but −∞.
    """
    if logits is None:
        return dict(NOTHING)
    values = np.asarray(logits, np.float64)
    if np.isnan(values).any() or not np.isfinite(values.max()):
        raise MapError(
            f'the logits of sample {sample.id} hold NaN or infinity. Does the model overflow? Try dtype="float32".'
        )
    predicted = _text(tokenizer, int(values.argmax()))
    if sample.answer is None:
        return {**NOTHING, "predicted": predicted}
    starts = _first_tokens(tokenizer, accepted(sample, prompt))
    if not starts:
        return {**NOTHING, "predicted": predicted}
    pieces = {_plain(_text(tokenizer, token)) for token in starts}
    shares = np.exp(values - values.max())
    probability = shares[sorted(starts)].sum() / shares.sum()
    logprob = float(np.log(probability)) if probability > 0 else float("-inf")
    return {"predicted": predicted, "correct": _plain(predicted) in pieces, "logprob": logprob}


def accepted(sample: Sample, prompt: Prompt) -> str:
    """The text the prompt asks for: the option's letter when choices are lettered, else the answer."""
    answer = str(sample.answer)
    if prompt.options != "letters" or not sample.options:
        return answer
    plain = [_plain(option) for option in sample.options]
    return string.ascii_uppercase[plain.index(_plain(answer))] if _plain(answer) in plain else answer


def _first_tokens(tokenizer: Any, answer: str) -> set[int]:
    spellings = {answer, answer.lower(), answer.capitalize()}
    ids = [
        tokenizer.encode(before + spelling, add_special_tokens=False)
        for spelling in spellings
        for before in ("", " ")
    ]
    return {found[0] for found in ids if found and _plain(_text(tokenizer, found[0]))}


def _text(tokenizer: Any, token: int) -> str:
    return str(tokenizer.decode([token])).strip()


def _plain(text: str) -> str:
    return text.strip().strip(string.punctuation).strip().casefold()
