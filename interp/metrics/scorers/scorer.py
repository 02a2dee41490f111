"""What every scorer offers, and the checks that they share."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol, runtime_checkable

from interp.errors import StudyError
from interp.inputs.prompt import Prompt
from interp.inputs.sample import Sample
from interp.inputs.text import brief

__all__ = ["Scorer", "check_asked", "checked_texts"]


@runtime_checkable
class Scorer(Protocol):
    """A rule that scores answers against the samples' own. A frozen value: it compares, hashes and serialises.

    Attributes:
        name: The name in tables and figures.
        unit: What a mean of scores is, in words, such as "share right".
        direction: "higher": higher is better.
        needs_log_probabilities: Whether `scores` takes, in the place of texts, the log-probabilities of each sample's
            options, which are not generated but scored.
    """

    @property
    def name(self) -> str:
        """The name in tables and figures."""
        ...

    @property
    def unit(self) -> str:
        """What a mean of scores is, in words."""
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
            StudyError: The numbers of texts and samples differ, or a text is none.
        """
        ...

    def to_dict(self) -> dict[str, Any]:
        """Everything its numbers depend on, as JSON values."""
        ...


def checked_texts(texts: Any, samples: Any, prompt: Any) -> list[tuple[str | None, Sample]]:
    """Returns each text beside its sample.

    Raises:
        StudyError: The numbers differ, something is neither a text nor None, or other things than samples and a prompt
            were given.
    """
    check_asked(samples, prompt)
    if isinstance(texts, str) or not isinstance(texts, Sequence):
        raise StudyError(f"a scorer takes a list of answers, one a sample; got {brief(texts)}.")
    if len(texts) != len(samples):
        raise StudyError(f"each sample has one answer; got {len(texts)} answers of {len(samples)} samples.")
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
