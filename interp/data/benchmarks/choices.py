"""Multiple-choice rows of benchmarks: the options, and which of them the answer is."""

from __future__ import annotations

import re
import string
from collections.abc import Sequence
from typing import Any

from interp.data.lines import Row
from interp.data.questions import QUESTIONS
from interp.data.table_rows import is_missing
from interp.errors import DataError
from interp.inputs.answers import named_option
from interp.inputs.argument_checks import check_one_of
from interp.inputs.text import brief

__all__ = ["answer_among", "check_multiple_choice", "letter_place", "unlettered"]


def unlettered(options: Sequence[str]) -> list[str]:
    """Returns options without the letters before them: "A: CT", "B: MRI" are "CT", "MRI".

    Letters are taken off only where every option has its own, so that "B: cells" among others stays as it is.

    >>> unlettered([" A:Diffuse ", "B: Focal"]), unlettered(["B: cells", "T: cells"])
    (['Diffuse', 'Focal'], ['B: cells', 'T: cells'])
    """
    found = [
        re.fullmatch(rf"\s*{letter}\s*[:.)]\s*(.*?)\s*", option, re.DOTALL)
        for letter, option in zip(string.ascii_uppercase, options, strict=False)
    ]
    if all(found) and len(found) == len(options):
        return [match.group(1) for match in found if match]
    return [option.strip() for option in options]


def letter_place(row: Row, name: str, n: int) -> int:
    """Returns the place of the option that a cell letters.

    Raises:
        DataError: It is no letter of the row's `n` options; the message names the row and the field.
    """
    value = row.values.get(name)
    letter = value.strip().upper() if isinstance(value, str) else ""
    letters = string.ascii_uppercase[:n]
    if len(letter) != 1 or letter not in letters:
        raise row.bad(name, f"expected the letter of one of {n} options, got {brief(value)}")
    return letters.index(letter)


def answer_among(row: Row, name: str, answer: Any, options: Sequence[str]) -> str:
    """Returns the option that an answer's text names.

    Raises:
        DataError: It is none of the options, or fits several alike; the message names the row and the field.
    """
    place = None if is_missing(answer) else named_option(str(answer).strip(), options)
    if place is None:
        raise row.bad(name, f"expected one of the options {brief(list(options))}, got {brief(answer)}")
    return options[place]


def check_multiple_choice(questions: str, source: str) -> None:
    """Refuses open questions of a benchmark that has none.

    Raises:
        DataError: `questions` is "open", or is not known.
    """
    check_one_of("questions", questions, QUESTIONS, DataError)
    if questions == "open":
        raise DataError(f"{source} is all multiple choice: it has no open questions. Use questions='closed'.")
