"""The package's own rule of what is right."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from interp.inputs.answers import is_right
from interp.inputs.prompt import Prompt
from interp.inputs.sample import Sample
from interp.metrics.scorers.scorer import check_extract, checked_texts, extracted

__all__ = ["Strict"]


@dataclass(frozen=True)
class Strict:
    """Right is an answer that is the sample's own and nothing else, as `interp.inputs.answers.is_right` says.

    1 if the text is the answer without regard to case, and to quotes, dashes, stops and space at its ends; where the
    prompt letters options, its letter, its text or both. Else 0: an answer that says more ("yes, there is") is wrong,
    unless `extract` takes the answer out of it. No answer (None) is 0.

    Args:
        extract: What of the text is compared, as for `extracted`.

    Raises:
        StudyError: `extract` is not known.

    >>> from interp import Prompt, Sample
    >>> sample = Sample("scan.png", "Is there a nodule?", answer="yes")
    >>> Strict().scores(["Yes.", "Yes, there is"], [sample] * 2, Prompt())
    [1.0, 0.0]
    >>> Strict(extract="first_word").scores(["Yes, there is"], [sample], Prompt())
    [1.0]
    """

    extract: str = "whole"

    name = "strict"
    unit = "share right"
    direction = "higher"
    needs_log_probabilities = False

    def __post_init__(self) -> None:
        check_extract(self.extract)

    def scores(
        self, texts: Sequence[str | None], samples: Sequence[Sample], prompt: Prompt
    ) -> list[float | None]:
        """Returns 1 for each right answer, 0 for a wrong one, None for a sample without an answer."""
        return [self._score(text, sample, prompt) for text, sample in checked_texts(texts, samples, prompt)]

    def to_dict(self) -> dict[str, Any]:
        """The scorer as JSON values, part of a study's hash."""
        return {"scorer": self.name, **asdict(self)}

    def _score(self, text: str | None, sample: Sample, prompt: Prompt) -> float | None:
        part = None if text is None else extracted(text, self.extract, len(sample.options or ()))
        right = is_right(part, sample, prompt)
        return None if right is None else float(right)
