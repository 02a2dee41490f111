from __future__ import annotations

import math
import sys
import warnings
from typing import Any

import pytest

from interp import Prompt
from interp.errors import StudyError
from interp.metrics.scorers import Bleu1, OpenRecall, normalised_words, open_average
from tests.metrics.scorers.answers import asked


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("The left lung.", ["left", "lung"]),
        ("Two (2) nodules; none large", ["2", "2", "nodules", "0", "large"]),
        ("well-defined", ["well", "defined"]),
        ("well -defined", ["well", "defined"]),
        ("1,000 a/b", ["1000", "ab"]),
        ("5.6 cm. e.g.", ["5.6", "cm", "eg"]),
        ("dont", ["don't"]),
        ("Oede\u0300me, 左肺", ["oedème", "左肺"]),
        ("the", []),
        ("", []),
    ],
)
def test_words_as_llava_med_compares_them(text: str, words: list[str]) -> None:
    assert normalised_words(text) == words


def test_bleu_by_hand() -> None:
    sample = asked("in the left lower lobe")  # in, left, lower, lobe
    texts = ["left lower lobe", "left left", "It is in the left lower lobe", "liver", "", None]
    expected = [math.exp(1 - 4 / 3), 0.5 * math.exp(1 - 2), 4 / 6, 0, 0, 0]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert Bleu1().scores(texts, [sample] * 6, Prompt()) == pytest.approx(expected)
    assert Bleu1().scores(["x", "the"], [asked(None), asked("the")], Prompt()) == [None, 0]
    assert Bleu1(extract="first_line").scores(["lobe\nof the lung"], [asked("lobe")], Prompt()) == [1]


def test_recall_by_hand() -> None:
    sample = asked("left lower lobe of the left lung")  # 2 left, lower, lobe, of, lung: 6 words
    texts = ["the left lobe", "lobe lobe lobe lobe", "liver", "", "Left lower lobe of the left lung, it is"]
    # left 1 + lobe 1 of 2 + lower, of, lung 3; lobe 4 of 4 + left 2, lower, of, lung 3
    assert OpenRecall().scores(texts, [sample] * 5, Prompt()) == [2 / 5, 4 / 9, 0, 0, 1]
    assert OpenRecall(clean=True).scores(texts, [sample] * 5, Prompt()) == [2 / 6, 1 / 6, 0, 0, 1]
    for rule in (OpenRecall(), OpenRecall(clean=True)):
        assert rule.scores(["x", "the", None], [asked(None), asked("the"), sample], Prompt()) == [None, 0, 0]


def test_the_average_of_several() -> None:
    assert open_average([1.0, 0.0, None], [0.5, 1.0, 1.0], [0.0, 0.5, 1.0]) == [0.5, 0.5, None]
    with pytest.raises(StudyError, match=r"open_average takes lists .*got lengths \[1, 2\]"):
        open_average([1.0], [1.0, 0.0])


def test_a_missing_extra_says_which(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "nltk", None)
    monkeypatch.setitem(sys.modules, "nltk.translate.bleu_score", None)
    with pytest.raises(
        StudyError, match=r"Bleu1 needs the library nltk; install it with: pip install 'interp\[eval\]'"
    ):
        Bleu1().scores(["x"], [asked("x")], Prompt())


def test_each_setting_is_part_of_a_scorer_as_json() -> None:
    assert Bleu1(extract="first_line").to_dict() == {"scorer": "BLEU-1", "extract": "first_line"}
    recall = {"scorer": "recall", "clean": True, "extract": "last_line"}
    assert OpenRecall(clean=True, extract="last_line").to_dict() == recall
    assert OpenRecall().to_dict() == {"scorer": "recall", "clean": False, "extract": "whole"}


@pytest.mark.parametrize(
    "given", [(), ("ab", "cd"), ([1.0], "a"), ([1.0], 1.0), ([1.0], iter([1.0])), ([1.0], ["a"])]
)
def test_what_is_no_list_of_scores_is_refused(given: Any, unchecked: None) -> None:
    with pytest.raises(StudyError, match=r"open_average takes lists|a score is a finite number"):
        open_average(*given)


@pytest.mark.parametrize("given", [([1.0, 0.5], [1.0]), ([1.0], [math.nan]), ([1.0], [True])])
def test_scores_of_other_answers_are_not_averaged(given: Any) -> None:
    with pytest.raises(StudyError, match=r"got lengths \[1, 2\]|a score is a finite number"):
        open_average(*given)
