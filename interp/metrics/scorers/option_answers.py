"""Scorers of closed answers: the package's strict rule, HuatuoGPT-Vision's rule, and the likeliest option.

`HuatuoCompat` follows the published scorer with its quirks, so that numbers can be compared with published ones.
`OptionLogProbability` scores which option the model finds most likely, without a generated text.
"""

from __future__ import annotations

import difflib
import math
import re
import string
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from interp.errors import StudyError
from interp.inputs.answers import answer_place, is_right, plain
from interp.inputs.argument_checks import check_one_of
from interp.inputs.prompt import Prompt, Target
from interp.inputs.sample import Sample
from interp.inputs.text import brief
from interp.metrics.scorers.scorer import check_asked, check_extract, checked_texts, extracted

__all__ = ["HuatuoCompat", "OptionLogProbability", "Strict"]


@dataclass(frozen=True)
class Strict:
    """An answer is right if it is the sample's own and nothing else (`interp.inputs.answers.is_right`).

    1 if the text is the answer without regard to case, and to quotes, dashes, stops and space at its ends; where the
    prompt letters options, its letter, its text or both. Else 0: an answer that says more ("yes, there is") is wrong,
    unless `extract` takes the answer out of it. No answer (None) is 0.

    Args:
        extract: The part of the text that is compared; see `extracted`.

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


_LETTER = re.compile(r"(?:is |是|\*|\W|\ |\(|为|^|'|\"|#)(?![aA] )([a-nA-N])(?=\W|$)", re.DOTALL)
"""A letter from A to N that stands alone; not an "a" before a space, the article."""


@dataclass(frozen=True)
class HuatuoCompat:
    """The first letter in the answer decides; without one, the option named last, or else the most similar option.

    1. The first letter from A to N, in either case, that stands alone is the answer. The comparison with the right
       option's letter is **case-sensitive**: "b" decides too, and is always wrong. So do the "I" of "I see a mass", the
       "e" of "e.g.", and letters beyond the options.
    2. Without one, the option whose text occurs last in the answer, in any case, as part of words too: "no" in
       "not known".
    3. Without one, the option with the largest ratio of `difflib.SequenceMatcher` to the answer, the last of equal
       ones: an empty answer names the last option.

    The score is None for a sample without an answer, without options (the original leaves these out), or whose answer
    is none of its options (where the original stops). It is 0 where no text was generated (None).

    **Where we differ.** In steps 2 and 3 the original compares with all fields of its row, not with the options, and
    stops with an error on the first answer without a letter, such as "Yes". We compare with the options, which the
    original must intend.

    Whether the prompt letters the options makes no difference; letters are always read.

    >>> from interp import Prompt, Sample
    >>> sample = Sample("scan.png", "Which organ?", answer="liver", options=("spleen", "liver"))
    >>> HuatuoCompat().scores(["B.", "b", "It is the liver", "A liver"], [sample] * 4, Prompt())
    [1.0, 0.0, 1.0, 1.0]

    Source: `scorer.py` beside HuatuoGPT-Vision's `eval.py` (arXiv 2406.19280), whose regular expression this is.
    """

    name = "Huatuo's rule"
    unit = "share right"
    direction = "higher"
    needs_log_probabilities = False

    def scores(
        self, texts: Sequence[str | None], samples: Sequence[Sample], prompt: Prompt
    ) -> list[float | None]:
        """Returns 1 for each answer that is right by Huatuo's rule, 0 for others, None where it cannot be applied."""
        return [_score(text, sample) for text, sample in checked_texts(texts, samples, prompt)]

    def to_dict(self) -> dict[str, Any]:
        """The scorer as JSON values, part of a study's hash."""
        return {"scorer": self.name}


def _score(text: str | None, sample: Sample) -> float | None:
    place = answer_place(sample, Prompt())
    if place is None or not sample.options:
        return None
    return 0.0 if text is None else float(_named(text, sample.options) == string.ascii_uppercase[place])


def _named(text: str, options: Sequence[str]) -> str:
    """The letter that a text names, as it is written."""
    if found := _LETTER.search(text):
        return found.group(1)
    answer, lower = text.lower(), [option.lower() for option in options]
    last = [answer.rfind(option) for option in lower]
    if max(last) >= 0:
        return string.ascii_uppercase[last.index(max(last))]
    ratios = [difflib.SequenceMatcher(None, option, answer).ratio() for option in lower]
    return string.ascii_uppercase[max(range(len(ratios)), key=lambda i: (ratios[i], i))]


YES_OR_NO = ("yes", "no")


@dataclass(frozen=True)
class OptionLogProbability:
    """A sample is right if its answer has the largest log-probability among its options.

    A study computes the log-probability of each of `answers(sample, prompt)` with `target(answer)`, and gives them to
    `scores`. Ties count by share: if k options are equally likely and the answer is one of them, the score is 1/k.
    The score differs from the accuracy of generated texts: the model cannot answer anything but an option, so models
    that do not keep to the form of an answer gain.

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
