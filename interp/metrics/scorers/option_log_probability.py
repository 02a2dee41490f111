"""Answers by what the model finds most likely among a sample's options, without generating a text."""

from __future__ import annotations

import math
import string
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from interp.errors import StudyError
from interp.inputs.answers import answer_place, plain
from interp.inputs.argument_checks import check_one_of
from interp.inputs.prompt import Prompt, Target
from interp.inputs.sample import Sample
from interp.inputs.text import brief
from interp.metrics.scorers.scorer import check_asked

__all__ = ["OptionLogProbability"]

YES_OR_NO = ("yes", "no")


@dataclass(frozen=True)
class OptionLogProbability:
    """Right is a sample whose answer has the largest log-probability among its options.

    A study computes the log-probability of each of `answers(sample, prompt)` with `target(answer)`, and gives them to
    `scores`. Ties count by share: if k options are equally likely and the answer is one of them, the score is 1/k.
    What is scored differs from an accuracy of generated texts: the model cannot answer anything else, so models that do
    not follow the form of an answer gain.

    Args:
        normalise: "sum" adds the log-probabilities of an option's tokens, which favours short options; "mean" divides
            by their number, which favours options whose later tokens follow from the first ones.
        of: "letter" scores the options' letters where the prompt letters them, "text" always their texts. A question
            answered yes or no that has no options has the options "yes" and "no".

    Raises:
        StudyError: `normalise` or `of` is not known.

    >>> from interp import Prompt, Sample
    >>> sample = Sample("scan.png", "Which organ?", answer="liver", options=("spleen", "liver"))
    >>> rule = OptionLogProbability()
    >>> rule.answers(sample, Prompt()), rule.scores([[-2.0, -0.5]], [sample], Prompt())
    (('A', 'B'), [1.0])
    """

    normalise: str = "sum"
    of: str = "letter"

    name = "log-probability of options"
    unit = "share right"
    direction = "higher"
    needs_log_probabilities = True

    def __post_init__(self) -> None:
        check_one_of("normalise", self.normalise, ("sum", "mean"), StudyError)
        check_one_of("of", self.of, ("letter", "text"), StudyError)

    def answers(self, sample: Sample, prompt: Prompt) -> tuple[str, ...]:
        """Returns the texts whose log-probabilities decide, in the order of the options; none where there are none."""
        check_asked([sample], prompt)
        if sample.options:
            lettered = self.of == "letter" and prompt.options == "letters"
            return tuple(string.ascii_uppercase[: len(sample.options)]) if lettered else sample.options
        return YES_OR_NO if sample.answer is not None and plain(sample.answer) in YES_OR_NO else ()

    def target(self, answer: str) -> Target:
        """Returns the target whose value is the log-probability of one of `answers`."""
        return Target(answer, reduce=self.normalise)

    def scores(
        self,
        log_probabilities: Sequence[Sequence[float] | np.ndarray | None],
        samples: Sequence[Sample],
        prompt: Prompt,
    ) -> list[float | None]:
        """Returns 1 where the answer is the likeliest option, 1/k where it is one of k likeliest, else 0.

        Args:
            log_probabilities: For each sample the log-probability of each of `answers(sample, prompt)`, in nats: at
                most 0, or −∞. None, or an empty list, for a sample that has no options.
            samples: The samples, in the same order.
            prompt: The prompt.

        Returns:
            None for a sample without an answer or without options, or whose answer is none of its options.

        Raises:
            StudyError: The numbers of samples or options differ, or a value is no log-probability.
        """
        check_asked(samples, prompt)
        listed = isinstance(log_probabilities, Sequence | np.ndarray) and not isinstance(
            log_probabilities, str
        )
        if not listed or len(log_probabilities) != len(samples):
            raise StudyError(
                f"each sample has a list of log-probabilities, one an option; got {brief(log_probabilities)} for "
                f"{len(samples)} samples."
            )
        pairs = zip(log_probabilities, samples, strict=True)
        return [self._score(values, sample, prompt) for values, sample in pairs]

    def to_dict(self) -> dict[str, Any]:
        """The scorer as JSON values, part of a study's hash."""
        return {"scorer": self.name, **asdict(self)}

    def _score(self, values: Any, sample: Sample, prompt: Prompt) -> float | None:
        place = _place(sample, prompt)
        if place is None:
            return None
        found = self._checked(values, sample, len(self.answers(sample, prompt)))
        best = [i for i, value in enumerate(found) if value == max(found)]
        return 1 / len(best) if place in best else 0.0

    def _checked(self, values: Any, sample: Sample, n: int) -> list[float]:
        """The log-probabilities of a sample's options as floats."""
        wrong = StudyError(
            f"sample {sample.id}: expected the log-probabilities of {n} options, each at most 0; got {brief(values)}. "
            "Score the texts that answers(sample, prompt) gives."
        )
        if isinstance(values, str) or values is None:
            raise wrong
        try:
            found = [float(value) for value in values]
        except (TypeError, ValueError):
            raise wrong from None
        if len(found) != n or any(math.isnan(value) or value > 1e-6 for value in found):
            raise wrong
        return found


def _place(sample: Sample, prompt: Prompt) -> int | None:
    """The place of the answer among the options, or between yes and no."""
    if sample.options:
        return answer_place(sample, prompt)
    answer = None if sample.answer is None else plain(sample.answer)
    return YES_OR_NO.index(answer) if answer in YES_OR_NO else None
