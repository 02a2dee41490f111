from __future__ import annotations

import pytest

from interp import Prompt
from interp.errors import StudyError
from interp.inputs.answers import is_right
from interp.metrics.scorers import EXTRACTS, Scorer, Strict, extracted, scorer_named
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
    with pytest.raises(StudyError, match="extract is 'whole' or 'first_word'"):
        Strict(extract="letter")


def test_what_is_no_list_of_answers() -> None:
    with pytest.raises(StudyError, match="got 2 answers of 1 samples"):
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
