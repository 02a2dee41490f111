"""Kinds of questions in benchmarks: which ones a reader keeps, and how many there are."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from interp.errors import DataError
from interp.inputs.answers import plain
from interp.inputs.argument_checks import check_one_of
from interp.inputs.sample import Sample
from interp.inputs.text import brief

__all__ = [
    "KINDS",
    "QUESTIONS",
    "Wanted",
    "checked_names",
    "chosen_splits",
    "is_yes_or_no",
    "question_counts",
]

QUESTIONS = ("closed", "open", "all")
"""What a reader keeps: "closed" is questions with few possible answers, multiple-choice ones too."""
KINDS = ("closed", "choice", "open")
"""`meta["kind"]` of a sample: closed without options (yes or no, left or right), multiple choice, open."""
_WORDS = {"closed": "closed questions", "choice": "multiple-choice questions", "open": "open questions"}


@dataclass(frozen=True)
class Wanted:
    """Which questions a reader keeps; the others are counted.

    Attributes:
        questions: "closed" (with multiple choice), "open" or "all".
        splits: The splits to keep.
        left_out: What was left out, such as "open questions of test" → how many.

    Raises:
        DataError: `questions` is not known.
    """

    questions: str
    splits: tuple[str, ...]
    left_out: Counter[str] = field(default_factory=Counter)

    def __post_init__(self) -> None:
        check_one_of("questions", self.questions, QUESTIONS, DataError)

    def takes(self, kind: str, split: str) -> bool:
        """Whether a question of this kind and split is kept; counts it if not."""
        fits = self.questions == "all" or (kind == "open") == (self.questions == "open")
        kept = fits and split in self.splits
        if not kept:
            self.left_out[f"{_WORDS[kind]} of {split}"] += 1
        return kept


def chosen_splits(split: str, known: Sequence[str], source: str, every: str = "all") -> tuple[str, ...]:
    """Returns the splits that `split` names: one of `known`, or all of them.

    Raises:
        DataError: The source has no such split.
    """
    if isinstance(split, str) and split == every:
        return tuple(known)
    if not isinstance(split, str) or split not in known:
        raise DataError(
            f"{source} has the splits {', '.join(known)}, and {every!r} for every one; got {brief(split)}."
        )
    return (split,)


def checked_names(name: str, given: Any, example: str) -> tuple[str, ...]:
    """Returns a list of names as a tuple.

    Raises:
        DataError: Anything but a list of at least one text; the message shows `example`.
    """
    listed = isinstance(given, list | tuple | set | frozenset) and all(isinstance(one, str) for one in given)
    if not listed or not given:
        raise DataError(f'{name} is a list of names, such as ["{example}"]; got {brief(given)}.')
    return tuple(given)


def is_yes_or_no(answer: str | None) -> bool:
    """Whether an answer is "yes" or "no", without regard to case, space and a full stop.

    >>> [is_yes_or_no(answer) for answer in ("Yes", " no.", "No, it is not", None)]
    [True, True, False, False]
    """
    return answer is not None and plain(answer) in ("yes", "no")


def question_counts(samples: Iterable[Sample]) -> dict[tuple[str, str, str], int]:
    """Returns (benchmark, split, kind) → number of samples, in the order in which they first appear.

    Kinds are those of `KINDS`. Samples that could not be read, or that no benchmark's reader made, are counted under
    empty texts.

    Raises:
        DataError: Something else than samples.

    >>> from interp.inputs.sample import Sample
    >>> about = {"benchmark": "VQA-RAD", "split": "test", "kind": "closed"}
    >>> question_counts([Sample("a.png", "Is it?", answer="yes", meta=about)] * 3)
    {('VQA-RAD', 'test', 'closed'): 3}
    """
    names = ("benchmark", "split", "kind")
    listed = (
        tuple(samples) if isinstance(samples, Iterable) and not isinstance(samples, Sample) else (samples,)
    )
    if not all(isinstance(one, Sample) for one in listed):
        raise DataError(
            f"question_counts takes samples, such as interp.data.vqa_rad gives; got {brief(samples)}."
        )
    found = Counter(tuple(str(one.meta.get(name) or "") for name in names) for one in listed)
    return {(benchmark, split, kind): n for (benchmark, split, kind), n in found.items()}
