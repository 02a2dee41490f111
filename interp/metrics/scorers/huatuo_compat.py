"""The rule of HuatuoGPT-Vision's scorer, with its quirks, for numbers that can be set beside published ones."""

from __future__ import annotations

import difflib
import re
import string
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from interp.inputs.answers import answer_place
from interp.inputs.prompt import Prompt
from interp.inputs.sample import Sample
from interp.metrics.scorers.scorer import checked_texts

__all__ = ["HuatuoCompat"]

_LETTER = re.compile(r"(?:is |是|\*|\W|\ |\(|为|^|'|\"|#)(?![aA] )([a-nA-N])(?=\W|$)", re.DOTALL)
"""A letter from A to N that stands alone; not an "a" before a space, the article."""


@dataclass(frozen=True)
class HuatuoCompat:
    """The first letter of a text decides; else the option that it names last; else the most similar option.

    1. The first letter from A to N, in either case, that stands alone is the answer. The comparison with the right
       option's letter is **case-sensitive**: "b" decides too, and is always wrong. So do the "I" of "I see a mass", the
       "e" of "e.g.", and letters beyond the options.
    2. Without one, the option whose text occurs last in the answer, in any case, as part of words too: "no" in
       "not known".
    3. Without one, the option with the largest ratio of `difflib.SequenceMatcher` to the answer, the last of equal
       ones: an empty answer names the last option.

    None for a sample without an answer, without options (the original leaves these out), or whose answer is none of its
    options (where the original stops). No answer (None) is 0.

    **Where we differ.** In steps 2 and 3 the original looks at all fields of its row, not at the options, and stops
    with an error on the first answer without a letter, such as "Yes". We look at the options, which is what it must
    mean.

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
