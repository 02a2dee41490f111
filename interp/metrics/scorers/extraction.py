"""Takes the answer out of a longer text, by an explicit rule."""

from __future__ import annotations

import re
import string
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

from interp.errors import StudyError
from interp.inputs.argument_checks import check_one_of, check_whole
from interp.inputs.text import brief, word_spans

__all__ = ["EXTRACTS", "as_text", "check_extract", "extracted"]


def extracted(text: str, extract: str = "whole", n_options: int = 26) -> str:
    """Returns the part of a text that is scored.

    Args:
        text: A generated answer.
        extract: "whole" leaves the text as it is. "first_word" is the first word: "Yes, there is" is "Yes".
            "first_line" and "last_line" are the first and last line that are not empty. "first_letter" is the first
            letter of an option that stands alone, in either case: "The answer is (b)." is "b"; an "a" before a space
            and another word is taken for the article, and a text without a letter is left whole. A word or line that
            is not there is an empty text.
        n_options: How many options there are, for "first_letter".

    Raises:
        StudyError: `extract` is not known, or another argument is of the wrong type.

    >>> [extracted("The answer is (b).\\nBecause.", how, 4) for how in EXTRACTS]
    ['The answer is (b).\\nBecause.', 'The', 'The answer is (b).', 'Because.', 'b']
    """
    check_extract(extract)
    as_text("text", text)
    if extract == "first_letter":
        return _first_letter(text, check_whole("n_options", n_options, 0, StudyError))
    return _RULES[extract](text)


def as_text(name: str, value: Any) -> str:
    """Returns a text; raises `StudyError` for anything else."""
    if not isinstance(value, str):
        raise StudyError(f"{name} is a text; got {type(value).__name__} {brief(value)}.")
    return value


def check_extract(extract: str) -> None:
    """Raises `StudyError` for a rule that is not in `EXTRACTS`."""
    check_one_of("extract", extract, EXTRACTS, StudyError)


def _first_word(text: str) -> str:
    start, end = next(iter(word_spans(text)), (0, 0))
    return text[start:end]


def _lines(text: str) -> list[str]:
    return [line.strip() for line in text.splitlines() if line.strip()] or [""]


def _first_letter(text: str, n_options: int) -> str:
    letters = string.ascii_uppercase[:n_options]
    if not letters:
        return text
    found = re.search(rf"(?<!\w)(?![Aa] +\w)[{letters}{letters.lower()}](?!\w)", text)
    return found.group() if found else text


_RULES: Mapping[str, Callable[[str], str]] = MappingProxyType(
    {
        "whole": lambda text: text,
        "first_word": _first_word,
        "first_line": lambda text: _lines(text)[0],
        "last_line": lambda text: _lines(text)[-1],
    }
)
EXTRACTS = (*_RULES, "first_letter")
"""The rules that take an answer out of a text."""
