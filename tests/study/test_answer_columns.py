from __future__ import annotations

import numpy as np
import pytest

from interp.errors import MapError
from interp.inputs.answers import accepted
from interp.inputs.prompt import PAPER_PROMPT, Prompt
from interp.study.first_token import answer_columns
from tests.study.planted import WORDS, Tokenizer, sample

LOGITS = np.log([0.1, 0.1, 0.4, 0.2, 0.1, 0.1])  # "left" is the most likely


def test_the_greedy_token_is_compared_with_the_first_word() -> None:
    right = answer_columns(LOGITS, sample(0, answer="Left."), PAPER_PROMPT, Tokenizer())
    assert right["predicted"] == "left"
    assert right["correct"] is None  # "Left." is no word of this vocabulary: nothing to compare with
    found = answer_columns(LOGITS, sample(0, answer="LEFT"), PAPER_PROMPT, Tokenizer())
    assert found["correct"] is True
    assert found["logprob"] == pytest.approx(np.log(0.4))
    wrong = answer_columns(LOGITS, sample(0, answer="right lung"), PAPER_PROMPT, Tokenizer())
    assert wrong["correct"] is False
    assert wrong["logprob"] == pytest.approx(np.log(0.2))


def test_without_answer_or_logits_nothing_is_judged() -> None:
    nothing = answer_columns(None, sample(0), PAPER_PROMPT, Tokenizer())
    assert nothing == {"predicted": None, "correct": None, "logprob": None}
    open_ended = answer_columns(LOGITS, sample(0, answer=None), PAPER_PROMPT, Tokenizer())
    assert open_ended == {"predicted": "left", "correct": None, "logprob": None}


def test_lettered_choices_are_answered_with_the_letter() -> None:
    asked = sample(0, options=["Left", "Right"], answer="right")
    assert accepted(asked, PAPER_PROMPT) == "B"
    assert accepted(asked, Prompt(options="none")) == "right"
    assert accepted(asked.replace(answer="A"), PAPER_PROMPT) == "A"
    logits = np.where(np.array(WORDS) == "B", 5.0, 0.0)
    assert answer_columns(logits, asked, PAPER_PROMPT, Tokenizer())["correct"] is True


def test_nan_logits_are_an_error_of_the_sample() -> None:
    with pytest.raises(MapError, match=r"logits of sample s0 hold NaN.*float32"):
        answer_columns(np.full(6, np.nan), sample(0), PAPER_PROMPT, Tokenizer())
    for broken in (
        np.full(6, -np.inf),
        np.where(np.arange(6) == 2, np.inf, 0),
        np.where(np.arange(6), 0, np.nan),
    ):
        with pytest.raises(MapError, match="hold NaN or infinity"):
            answer_columns(broken, sample(0), PAPER_PROMPT, Tokenizer())
    ruled_out = np.where(np.arange(6) == WORDS.index("left"), -np.inf, 0.0)
    found = answer_columns(ruled_out, sample(0), PAPER_PROMPT, Tokenizer())
    assert (found["correct"], found["logprob"]) == (False, -np.inf)
