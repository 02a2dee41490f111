"""The interface of scorers, the checks that they share, and the rules that take an answer out of a longer text."""

from __future__ import annotations

import re
import string
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, Protocol, runtime_checkable

from interp.errors import StudyError
from interp.inputs.argument_checks import check_one_of, check_whole
from interp.inputs.prompt import Prompt
from interp.inputs.sample import Sample
from interp.inputs.text import brief, count, word_spans

__all__ = ["EXTRACTS", "Scorer", "as_text", "check_asked", "check_extract", "checked_texts", "extracted"]


@runtime_checkable
class Scorer(Protocol):
    """A rule that scores answers against the samples' own. A frozen value: it compares, hashes and serialises.

    Attributes:
        name: The name in tables and figures.
        unit: The meaning of a mean of scores, in words, such as "share right".
        direction: The better direction, "higher".
        needs_log_probabilities: Whether `scores` takes, in the place of texts, the log-probabilities of each sample's
            options, which are not generated but scored.
    """

    @property
    def name(self) -> str:
        """The name in tables and figures."""
        ...

    @property
    def unit(self) -> str:
        """The meaning of a mean of scores, in words."""
        ...

    @property
    def direction(self) -> str:
        """The better direction."""
        ...

    @property
    def needs_log_probabilities(self) -> bool:
        """Whether `scores` takes log-probabilities in the place of texts."""
        ...

    def scores(self, texts: Any, /, samples: Sequence[Sample], prompt: Prompt) -> list[float | None]:
        """Returns the score of each answer, from 0 to 1; None for a sample without an answer of its own.

        Args:
            texts: The generated answer of each sample; None where none came, because the thought took all tokens.
            samples: The samples, in the same order.
            prompt: The prompt that the answers were generated with; it says whether options are lettered.

        Raises:
            StudyError: The numbers of texts and samples differ, or a text is neither a text nor None.
        """
        ...

    def to_dict(self) -> dict[str, Any]:
        """Everything its numbers depend on, as JSON values."""
        ...


def checked_texts(texts: Any, samples: Any, prompt: Any) -> list[tuple[str | None, Sample]]:
    """Returns each text beside its sample.

    Raises:
        StudyError: The numbers differ, a text is neither a text nor None, or the other arguments are not samples and a
            prompt.
    """
    check_asked(samples, prompt)
    if isinstance(texts, str) or not isinstance(texts, Sequence):
        raise StudyError(f"a scorer takes a list of answers, one a sample; got {brief(texts)}.")
    if len(texts) != len(samples):
        raise StudyError(
            f"each sample has one answer; got {count(len(texts), 'answer')} of {count(len(samples), 'sample')}."
        )
    for place, text in enumerate(texts):
        if text is not None and not isinstance(text, str):
            raise StudyError(
                f"an answer is a text, or None where none came; got {type(text).__name__} {brief(text)} at place "
                f"{place}."
            )
    return list(zip(texts, samples, strict=True))


def check_asked(samples: Any, prompt: Any) -> None:
    """Raises `StudyError` for anything but a list of samples and a prompt."""
    if not isinstance(samples, Sequence) or not all(isinstance(one, Sample) for one in samples):
        raise StudyError(f"a scorer takes the list of samples that were answered; got {brief(samples)}.")
    if not isinstance(prompt, Prompt):
        raise StudyError(
            f"a scorer takes the prompt that was used, such as interp.PAPER_PROMPT; got {brief(prompt)}."
        )


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
