from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from interp import Prompt, Target
from interp.errors import StudyError
from interp.inputs.answers import is_right
from interp.metrics.scorers import (
    EXTRACTS,
    HuatuoCompat,
    OptionLogProbability,
    Scorer,
    Strict,
    extracted,
    scorer_named,
)
from interp.metrics.scorers.scorer import checked_texts
from interp.metrics.scorers.scorer_names import SCORERS
from tests.metrics.scorers.answers import asked

TEXTS = ("Yes.", "yes", " YES ", "No", "yes, there is", "", "Ja", None)


def test_the_packages_own_rule() -> None:
    sample = asked("yes")
    found = Strict().scores(TEXTS, [sample] * len(TEXTS), Prompt())
    assert found == [1, 1, 1, 0, 0, 0, 0, 0]
    assert found == [float(bool(is_right(text, sample, Prompt()))) for text in TEXTS]
    assert Strict().scores(["yes"], [asked(None)], Prompt()) == [None]


def test_letters_texts_and_options_equal_but_for_punctuation() -> None:
    sample = asked("<1 cm", "<1 cm", ">1 cm", "1 cm")
    texts = ["a", "(A)", "<1 CM.", "A. <1 cm", ">1 cm", "1 cm", "A or B", "Ⅰ cm"]
    assert Strict().scores(texts, [sample] * 8, Prompt()) == [1, 1, 1, 1, 0, 0, 0, 0]
    accents = asked("Oedème", "Oedème", "Fracture")
    assert Strict().scores(["oede\u0300me", "OEDÈME"], [accents] * 2, Prompt()) == [1, 1]
    assert Strict().scores(["A"], [accents], Prompt(options="none")) == [0]


def test_an_answer_is_taken_out_of_a_longer_text() -> None:
    sample = asked("liver", "spleen", "liver")
    text = "A closer look.\n\nThe answer is (b)."
    assert [Strict(extract=how).scores([text], [sample], Prompt()) for how in EXTRACTS] == [
        [0],
        [0],
        [0],
        [0],
        [1],
    ]
    assert Strict(extract="first_word").scores(["Yes, a mass"], [asked("yes")], Prompt()) == [1]
    assert Strict(extract="last_line").scores(["Hm.\n B \n"], [sample], Prompt()) == [1]
    assert [extracted("", how, 2) for how in EXTRACTS] == [""] * 5
    assert [
        extracted(text, "first_letter", 3) for text in ("E then C", "a mass", "A mass: b", "Bc", "A")
    ] == [
        "C",
        "a mass",
        "b",
        "Bc",
        "A",
    ]
    lines = " \n  B \n C  \n "
    assert [extracted(lines, how) for how in ("first_line", "last_line")] == ["B", "C"]
    assert [extracted(text, "first_letter", n) for text, n in (("so B", 0), ("so B", 1), ("so B", 2))] == [
        "so B",
        "so B",
        "B",
    ]
    with pytest.raises(StudyError, match="n_options is a whole number of at least 0; got -1"):
        extracted("B", "first_letter", -1)
    with pytest.raises(StudyError, match="extract is 'whole' or 'first_word'"):
        Strict(extract="letter")


def test_what_is_no_list_of_answers() -> None:
    with pytest.raises(StudyError, match="got 2 answers of 1 sample"):
        Strict().scores(["yes", "no"], [asked("yes")], Prompt())
    with pytest.raises(
        StudyError, match="an answer is a text, or None where none came; got int 3 at place 0"
    ):
        checked_texts([3], [asked("yes")], Prompt())
    with pytest.raises(StudyError, match="a scorer takes the list of samples that were answered; got "):
        checked_texts(["yes"], ["scan.png"], Prompt())
    with pytest.raises(StudyError, match=r"a scorer takes the prompt that was used, .*; got None"):
        checked_texts(["yes"], [asked("yes")], None)
    with pytest.raises(StudyError, match="a scorer takes a list of answers"):
        Strict().scores("yes", [asked("yes")] * 3, Prompt())


def test_scorers_are_values_with_names() -> None:
    made = [scorer_named(name) for name in SCORERS]
    assert all(isinstance(one, Scorer) and one.direction == "higher" and one.unit for one in made)
    assert len({one.name for one in made}) == len(made)
    assert len({str(one.to_dict()) for one in made}) == len({*made}) == len(made)
    assert [one.name for one in made if one.needs_log_probabilities] == ["log-probability of options"]
    assert Strict(extract="first_word").to_dict() == {"scorer": "strict", "extract": "first_word"}
    with pytest.raises(StudyError, match=r"the scorers by name are strict, huatuo, .*got 'exact'"):
        scorer_named("exact")


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
        ("THE SPLEEN", False),
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


RULE = OptionLogProbability()
SAMPLE = asked("liver", "spleen", "liver", "lung")


def test_the_likeliest_option_and_ties_by_share() -> None:
    values = [
        [-3.0, -0.1, -4.0],
        np.array([-0.1, -3.0, -4.0]),
        [-1.0, -1.0, -2.0],
        [-1.0] * 3,
        [-np.inf, -9.0, -np.inf],
        [-1.0, 0.0, -2.0],
    ]
    assert RULE.scores(values, [SAMPLE] * 6, Prompt()) == [1, 0, 0.5, pytest.approx(1 / 3), 1, 1]


def test_what_is_scored_and_how() -> None:
    assert RULE.answers(SAMPLE, Prompt()) == ("A", "B", "C")
    assert RULE.answers(SAMPLE, Prompt(options="none")) == ("spleen", "liver", "lung")
    assert OptionLogProbability(of="text").answers(SAMPLE, Prompt()) == ("spleen", "liver", "lung")
    assert (RULE.answers(asked("Yes."), Prompt()), RULE.answers(asked("left"), Prompt())) == (
        ("yes", "no"),
        (),
    )
    assert OptionLogProbability(normalise="mean").target("B") == Target("B", reduce="mean")
    assert RULE.scores([[-2.0, -1.0], None, []], [asked("No"), asked("left"), asked(None)], Prompt()) == [
        1,
        None,
        None,
    ]


@pytest.mark.parametrize("values", [[-1.0, -2.0], [-1.0, float("nan"), -1.0], [0.4, -1.0, -1.0], None])
def test_what_is_no_log_probability(values: object) -> None:
    with pytest.raises(
        StudyError, match=r"sample \w+: expected the log-probabilities of 3 options, each at most 0"
    ):
        RULE.scores([values], [SAMPLE], Prompt())  # pyright: ignore[reportArgumentType]
    with pytest.raises(StudyError, match="each sample has a list of log-probabilities"):
        RULE.scores([], [SAMPLE], Prompt())
    with pytest.raises(StudyError, match="of is 'letter' or 'text'; got 'word'"):
        OptionLogProbability(of="word")
    with pytest.raises(StudyError, match="normalise is 'sum' or 'mean'; got 'length'"):
        OptionLogProbability(normalise="length")


def test_rounding_above_0_is_no_error(unchecked: None) -> None:
    assert RULE.scores([[1e-7, -1.0, -2.0]], [SAMPLE], Prompt()) == [0]
    assert RULE.scores(np.array([[-2.0, -1.0, -2.0]]), [SAMPLE], Prompt()) == [1]
    assert RULE.scores([[-np.inf] * 3], [SAMPLE], Prompt()) == [pytest.approx(1 / 3)]


@pytest.mark.parametrize("given", ["x", 3, None, {0: [-1.0]}, iter([[-1.0] * 3])])
def test_what_is_no_list_of_log_probabilities(given: Any, unchecked: None) -> None:
    with pytest.raises(StudyError, match="each sample has a list of log-probabilities, one an option"):
        RULE.scores(given, [SAMPLE], Prompt())


def test_samples_come_as_a_list(unchecked: None) -> None:
    wrong: Any = iter([SAMPLE])
    for call in (
        lambda: checked_texts(["x"], wrong, Prompt()),
        lambda: RULE.scores([[-1.0] * 3], wrong, Prompt()),
    ):
        with pytest.raises(StudyError, match="a scorer takes the list of samples that were answered"):
            call()
