from __future__ import annotations

import pytest

from interp import Prompt
from interp.metrics.scorers import HuatuoCompat
from tests.metrics.scorers.answers import asked


@pytest.mark.parametrize(
    ("text", "right"),
    [
        ("B", True),
        ("(B) liver", True),
        ("The answer is B.", True),
        ("答案是B", True),
        ("b", False),  # found, but the comparison is of capitals
        ("B or A", True),
        ("A or B", True),  # "A " is taken for the article
        ("A, or B", False),
        ("I see the liver", False),  # the first letter is I
        ("e.g. the liver", False),  # and here e
        ("H", False),
        ("The LIVER, not the spleen", False),  # the last option named
        ("Not the spleen but the liver.", True),
        ("A liver", True),  # the article is no letter
        ("livr", True),  # the most similar
        ("spln", False),
        ("", True),  # of equal ones the last
        (None, False),
    ],
)
def test_answers_by_hand(text: str | None, right: bool) -> None:
    sample = asked("liver", "spleen", "liver")
    assert HuatuoCompat().scores([text], [sample], Prompt()) == [float(right)]


def test_options_inside_words_and_inside_each_other() -> None:
    sample = asked("Yes", "Yes", "No")
    texts = ["Yes.", "yes", "No", "Yes, nothing abnormal", "unknown"]
    assert HuatuoCompat().scores(texts, [sample] * 5, Prompt()) == [1, 1, 0, 0, 0]
    nested = asked("lung", "left lung", "lung")
    assert HuatuoCompat().scores(["left lung", "lung"], [nested] * 2, Prompt()) == [1, 1]


def test_what_the_original_leaves_out() -> None:
    samples = [asked(None, "a b", "c d"), asked("yes"), asked("perhaps", "yes", "no")]
    assert HuatuoCompat().scores(["A"] * 3, samples, Prompt()) == [None] * 3
