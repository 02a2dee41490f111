"""What the model would answer, judged by the first token only; texts match by the rule of `interp.inputs.answers`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
from jaxtyping import Float

from interp.errors import MapError, SampleError
from interp.inputs.answers import accepted, bare, other_options, plain
from interp.inputs.prompt import Prompt
from interp.inputs.sample import Sample

__all__ = ["FirstToken", "answer_columns", "first_token"]

_FOUND: WeakKeyDictionary[Any, dict[str, Mapping[int, str]]] = WeakKeyDictionary()
"""Tokenizer → answer → the first tokens of its spellings, with their texts: a study's samples share few answers."""

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
    shares = np.exp(values - values.max())
    probability = shares[sorted(starts)].sum() / shares.sum()
    logprob = float(np.log(probability)) if probability > 0 else float("-inf")
    return {"predicted": predicted, "correct": plain(predicted) in starts.values(), "logprob": logprob}


def _first_tokens(tokenizer: Any, answer: str) -> Mapping[int, str]:
    """First tokens of the answer's spellings that are more than punctuation, each with its text as it is compared.

    Found once per tokenizer.
    """
    known = _FOUND.setdefault(tokenizer, {})
    if answer not in known:
        known[answer] = _found_first_tokens(tokenizer, answer)
    return known[answer]


def _found_first_tokens(tokenizer: Any, answer: str) -> Mapping[int, str]:
    spellings = {answer, answer.lower(), answer.capitalize()}
    ids = [
        tokenizer.encode(before + spelling, add_special_tokens=False)
        for spelling in spellings
        for before in ("", " ")
    ]
    texts = {found[0]: _text(tokenizer, found[0]) for found in ids if found}
    return {token: plain(text) for token, text in texts.items() if bare(text)}


def _text(tokenizer: Any, token: int) -> str:
    return str(tokenizer.decode([token])).strip()


@dataclass(frozen=True)
class FirstToken:
    """The token whose probability stands for an answer.

    Attributes:
        token: The token's id.
        text: The token's text.
        begins: The texts of first tokens, without case and punctuation, that begin the sample's own answer; None for
            a sample without an answer.
    """

    token: int
    text: str
    begins: frozenset[str] | None

    def right(self, predicted: int, tokenizer: Any) -> bool | None:
        """Whether a token begins the sample's own answer; None where there is none to compare with."""
        return None if self.begins is None else plain(_text(tokenizer, predicted)) in self.begins


def first_token(
    logits: Float[np.ndarray, " token_id"], sample: Sample, prompt: Prompt, tokenizer: Any, target: str
) -> FirstToken:
    """What a sample's answer begins with.

    "greedy": the model's most likely token. "answer": among the first tokens of the spellings of the sample's own
    answer (as `answer_columns` has them) the one the model finds most likely, which is how it is spelt in context.

    Raises:
        MapError: The logits hold NaN, +∞ or nothing but −∞.
        SampleError: "answer" for a sample without one, or whose first token begins another of its options too.
    """
    columns = answer_columns(logits, sample, prompt, tokenizer)
    starts = {} if sample.answer is None else _first_tokens(tokenizer, accepted(sample, prompt))
    begins = frozenset(starts.values()) or None
    if target == "greedy":
        return FirstToken(int(np.argmax(logits)), str(columns["predicted"]), begins)
    if not starts:
        raise SampleError(
            'the sample has no answer to follow the probability of. Give it one, or use target="greedy".'
        )
    token = max(sorted(starts), key=lambda start: float(logits[start]))
    text = _text(tokenizer, token)
    for option in _others(sample, prompt):
        if token in _first_tokens(tokenizer, option):
            raise SampleError(
                f"the answer {sample.answer!r} and the option {option!r} begin with the same token {text!r}, whose "
                'probability cannot tell them apart. Letter the options, as Prompt(options="letters") does.'
            )
    return FirstToken(token, text, begins)


def _others(sample: Sample, prompt: Prompt) -> list[str]:
    """The other options, where the answer's first token must differ from theirs; letters always differ."""
    return [] if prompt.options == "letters" else other_options(sample, prompt)
