"""Scorers by name, for scripts and the command line."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType

from interp.errors import StudyError
from interp.inputs.text import brief, meant
from interp.metrics.scorers.bert_score import BertScore
from interp.metrics.scorers.open_answers import Bleu1, OpenRecall
from interp.metrics.scorers.option_answers import HuatuoCompat, OptionLogProbability, Strict
from interp.metrics.scorers.scorer import Scorer

__all__ = ["SCORERS", "scorer_named"]

SCORERS: Mapping[str, Callable[[], Scorer]] = MappingProxyType(
    {
        "strict": Strict,
        "huatuo": HuatuoCompat,
        "log_probability": OptionLogProbability,
        "bleu1": Bleu1,
        "recall": OpenRecall,
        "clean_recall": lambda: OpenRecall(clean=True),
        "bert_score": BertScore,
    }
)
"""Name → makes the scorer with its default settings."""


def scorer_named(name: str) -> Scorer:
    """Returns the scorer of a name, with its default settings.

    Raises:
        StudyError: No scorer has that name.

    >>> scorer_named("recall")
    OpenRecall(clean=False, extract='whole')
    """
    if not isinstance(name, str) or name not in SCORERS:
        raise StudyError(
            f"the scorers by name are {', '.join(SCORERS)}; got {brief(name)}.{meant(name, SCORERS)}"
        )
    return SCORERS[name]()
