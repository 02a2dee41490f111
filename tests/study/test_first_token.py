from __future__ import annotations

import numpy as np
import pytest

from interp.errors import SampleError
from interp.inputs.prompt import Prompt
from interp.inputs.sample import Sample
from interp.study.first_token import FirstToken, first_token
from tests.tiny import picture

WORDS = ("yes", "Yes", " yes", "no", "not", "north", " left")


class Tokenizer:
    """Cuts after the first three letters, so that words may begin alike; a space in front makes another token."""

    def encode(self, text: str, add_special_tokens: bool = True) -> list[int]:
        starts = [
            i for i, word in enumerate(WORDS) if text == word or (len(word) > 3 and text.startswith(word[:4]))
        ]
        return starts or [WORDS.index("no")] if text.startswith("no") else starts

    def decode(self, tokens: list[int]) -> str:
        return "".join(WORDS[token] for token in tokens)


def made(answer: str | None, options: tuple[str, ...] | None = None) -> Sample:
    return Sample(picture(), "is it?", answer=answer, options=options)


def logits(*values: float) -> np.ndarray:
    return np.array([*values, *[0.0] * (len(WORDS) - len(values))], np.float32)


def followed(
    values: np.ndarray, sample: Sample, target: str = "answer", prompt: Prompt | None = None
) -> FirstToken:
    return first_token(values, sample, prompt or Prompt(options="none"), Tokenizer(), target)


def test_the_spelling_is_the_models() -> None:
    assert followed(logits(1, 3, 2), made("yes")).text == "Yes"
    assert followed(logits(1, 2, 3), made("yes")).token == 2
    assert followed(logits(1, 2, 3, 9), made("yes")).token == 2  # not the likeliest of all


def test_of_equally_likely_spellings_the_lowest_token_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Spellings are found in no order that another process repeats."""
    monkeypatch.setattr("interp.study.first_token._first_tokens", lambda *_: {2: "yes", 0: "yes", 1: "yes"})
    assert followed(logits(1, 1, 1), made("yes")).token == 0
    assert followed(logits(1, 2, 2), made("yes")).token == 1


def test_an_answer_in_capitals_is_followed_as_it_is_written() -> None:
    class Capitals(Tokenizer):
        def encode(self, text: str, add_special_tokens: bool = True) -> list[int]:
            return [{"MRI": 4, "Mri": 5, "mri": 6}[text]] if text in ("MRI", "Mri", "mri") else []

    found = first_token(
        logits(0, 0, 0, 0, 3, 2, 1), made("MRI"), Prompt(options="none"), Capitals(), "answer"
    )
    assert found.token == 4


def test_greedy_is_the_likeliest_whatever_the_answer() -> None:
    found = followed(logits(1, 2, 3, 9), made("yes"), "greedy")
    assert (found.text, found.token) == ("no", 3)
    assert found.right(0, Tokenizer())
    assert found.right(1, Tokenizer())
    assert found.right(3, Tokenizer()) is False
    assert followed(logits(1, 2), made(None), "greedy").right(1, Tokenizer()) is None


def test_no_answer_to_follow() -> None:
    with pytest.raises(SampleError, match=r'has no answer to follow .* use target="greedy"'):
        followed(logits(1), made(None))


def test_options_that_begin_alike_cannot_be_told_apart() -> None:
    sample = made("no", ("no", "nope", "yes"))
    with pytest.raises(SampleError, match="'no' and the option 'nope' begin with the same token 'no'"):
        followed(logits(1), sample)
    assert followed(logits(1), made("no", ("no", "yes"))).text == "no"
    assert followed(logits(1), sample, "greedy").text == "yes"
