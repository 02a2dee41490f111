from __future__ import annotations

import pytest

from interp.inputs.answers import accepted, is_right, plain
from interp.inputs.prompt import Prompt
from interp.inputs.sample import Sample

OPEN = Sample("a.png", "Is it?", answer="Yes")
CHOICE = Sample("a.png", "Which?", answer="liver", options=("spleen", "liver", "left kidney"))


@pytest.mark.parametrize(
    ("text", "right"),
    [
        ("yes", True),
        (" YES. ", True),
        ('"Yes"', True),
        ("- - yes", True),
        ("* yes *\n", True),
        ("(yes).", True),
        ("yes, there is", False),
        ("yesterday", False),
        ("ye", False),
        ("", False),
        ("no", False),
    ],
)
def test_the_whole_text_counts(text: str, right: bool) -> None:
    assert is_right(text, OPEN, Prompt()) is right


@pytest.mark.parametrize(
    ("text", "right"),
    [
        ("B", True),
        ("b.", True),
        ("(B)", True),
        ("liver", True),
        ("B. liver", True),
        ("(b) Liver.", True),
        ("B liver", True),
        ("A", False),
        ("B. spleen", False),
        ("A. liver", False),
        ("bliver", False),
        ("B or C", False),
        ("the liver", False),
    ],
)
def test_lettered_options_by_letter_by_text_or_both(text: str, right: bool) -> None:
    assert is_right(text, CHOICE, Prompt()) is right
    assert (
        is_right(text, CHOICE.replace(answer="B"), Prompt()) is right
    )  # the answer may be given as a letter


def test_letters_mean_nothing_where_options_are_not_lettered() -> None:
    unlettered = Prompt(options="none")
    assert is_right("B", CHOICE, unlettered) is False
    assert is_right("liver", CHOICE, unlettered) is True


def test_an_option_whose_text_is_a_letter_goes_by_its_text() -> None:
    named = CHOICE.replace(answer="A", options=("B", "A"))
    assert is_right("B", named, Prompt()) is True  # the letter of the option "A"


def test_an_answer_outside_the_options_is_compared_as_text() -> None:
    assert is_right("pancreas", CHOICE.replace(answer="pancreas"), Prompt()) is True


def test_without_an_answer_nothing_is_right_or_wrong() -> None:
    assert is_right("yes", OPEN.replace(answer=None), Prompt()) is None


def test_an_answer_of_punctuation_alone_is_compared_as_it_is() -> None:
    sign = OPEN.replace(answer="+")
    assert is_right(" + ", sign, Prompt()) is True
    assert is_right("-", sign, Prompt()) is False
    assert is_right("", sign, Prompt()) is False


def test_ends_are_stripped_of_punctuation_and_space() -> None:
    assert plain(" .- Yes, sir! -. ") == "yes, sir"


@pytest.mark.parametrize(
    ("answer", "letter"),
    [("liver", "B"), ("- Liver.", "B"), ("B", "B"), ("b", "B"), ("(c)", "C"), ("pancreas", "pancreas")],
)
def test_the_accepted_text_is_the_letter_of_a_lettered_option(answer: str, letter: str) -> None:
    sample = CHOICE.replace(answer=answer)
    assert accepted(sample, Prompt()) == letter
    assert accepted(sample, Prompt(options="none")) == answer


def test_the_accepted_text_is_right() -> None:
    for answer in ("liver", "B", "left kidney", "A"):
        sample = CHOICE.replace(answer=answer)
        for prompt in (Prompt(), Prompt(options="none")):
            assert is_right(accepted(sample, prompt), sample, prompt) is True
