from __future__ import annotations

import pytest

from interp.inputs.answers import accepted, is_right, named_option, other_options, plain
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


SIGNED = [
    ("<1 cm", ">1 cm"),
    ("HER2+", "HER2-"),
    ("HER2+", "HER2−"),
    ("C", "C++", "C#"),
    ("-", "−", "+"),
    ("a", "A"),
    ("5", "5 %", "-5", ".5"),
    ("é", "e"),
    ("T1", "T1.", "(T1)?"),
]


@pytest.mark.parametrize("options", SIGNED, ids=" ".join)
def test_signs_and_case_tell_options_apart(
    options: tuple[str, ...],
) -> None:
    asked = CHOICE.replace(options=options)
    letters = [accepted(asked.replace(answer=option), Prompt()) for option in options]
    assert letters == list("ABCD"[: len(options)])
    for prompt in (Prompt(), Prompt(options="none")):
        for answer in options:
            said = [accepted(asked.replace(answer=option), prompt) for option in options]
            right = [is_right(text, asked.replace(answer=answer), prompt) for text in said]
            assert right == [option == answer for option in options]


@pytest.mark.parametrize(
    ("text", "options", "place"),
    [
        ("<1 cm.", ("<1 cm", ">1 cm"), 0),
        ("1 cm", ("<1 cm", ">1 cm"), None),  # either
        ("1 cm", ("<1 cm", "2 cm"), 0),  # only one is left
        ("her2-", ("HER2+", "HER2−"), 1),
        ("HER2", ("HER2+", "HER2−"), None),
        ("c.", ("C", "C++", "C#"), 0),
        ("“C++”!", ("C", "C++", "C#"), 1),
        ("YES", ("Yes", "yes"), None),
        ("cafe\u0301", ("café", "cafe"), 0),
        ("—", ("-", "−"), None),
        ("−5", ("5", "-5"), 1),
        ("maybe", ("yes", "no"), None),
        ("cafe\u0301", ("CAFÉ", "café"), 1),  # letters are composed before case is left out
        (" YES ", ("yes.", "yes"), 1),  # and case before punctuation
    ],
)
def test_a_text_names_one_option_or_none(text: str, options: tuple[str, ...], place: int | None) -> None:
    assert named_option(text, options) == place


@pytest.mark.parametrize(
    ("text", "answer", "right"),
    [(">1 cm", "<1 cm", False), ("HER2+", "HER2-", False), ("C", "C++", False), ("5", "-5", False),
     ("her2-.", "HER2−", True), ("* C++ *", "C++", True), ("“Yes”", "yes", True), ("-yes", "yes", True)],
)  # fmt: skip
def test_signs_count_in_open_answers_too(text: str, answer: str, right: bool) -> None:
    assert is_right(text, OPEN.replace(answer=answer), Prompt()) is right


def test_a_letter_is_read_before_a_text_that_only_resembles_it() -> None:
    languages = CHOICE.replace(options=("C++", "Java", "Go"), answer="C++")
    assert is_right("C", languages, Prompt()) is False  # the letter of Go
    assert is_right("A. C++", languages, Prompt()) is True
    assert accepted(languages.replace(answer="C"), Prompt()) == "C"
    assert is_right("C++", languages, Prompt()) is True
    sizes = CHOICE.replace(options=("<1 cm", "2 cm"), answer="<1 cm")
    assert is_right("1 cm", sizes, Prompt()) is True
    assert accepted(sizes.replace(answer="1 cm"), Prompt()) == "A"


@pytest.mark.parametrize("text", ["", " ", "AB", "."])
def test_no_letter_is_not_the_first_option(text: str) -> None:
    assert is_right(text, CHOICE.replace(answer="spleen"), Prompt()) is False


def test_without_an_answer_or_options_every_option_is_another() -> None:
    assert other_options(OPEN, Prompt()) == []
    assert other_options(CHOICE.replace(answer=None), Prompt()) == ["spleen", "liver", "left kidney"]
    assert other_options(CHOICE, Prompt()) == ["spleen", "left kidney"]
    assert is_right(None, CHOICE, Prompt()) is False  # still reasoning


def test_a_single_point_before_a_number_counts() -> None:
    assert [plain(text) for text in (".5", "...5", ".x", "x.5", "5.")] == [".5", "5", "x", "x.5", "5"]
    assert [plain(text) for text in ("<$5.", "(5 %)°", "$<5")] == ["<$5", "5%°", "$<5"]


def test_an_ambiguous_answer_is_no_option() -> None:
    sizes = CHOICE.replace(options=("<1 cm", ">1 cm"), answer="1 cm")
    assert accepted(sizes, Prompt()) == "1 cm"
    assert other_options(sizes, Prompt(options="none")) == ["<1 cm", ">1 cm"]
    assert other_options(sizes.replace(answer=">1 CM"), Prompt(options="none")) == ["<1 cm"]
