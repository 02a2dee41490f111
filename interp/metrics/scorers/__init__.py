"""Scores of generated answers: from 0 to 1, higher is better. Each scorer is a frozen value, part of a study's hash."""

from __future__ import annotations

from interp.metrics.scorers.bert_score import BertScore
from interp.metrics.scorers.open_answers import Bleu1, OpenRecall, normalised_words, open_average
from interp.metrics.scorers.option_answers import HuatuoCompat, OptionLogProbability, Strict
from interp.metrics.scorers.scorer import EXTRACTS, Scorer, extracted
from interp.metrics.scorers.scorer_names import SCORERS, scorer_named

__all__ = [
    "EXTRACTS",
    "SCORERS",
    "BertScore",
    "Bleu1",
    "HuatuoCompat",
    "OpenRecall",
    "OptionLogProbability",
    "Scorer",
    "Strict",
    "extracted",
    "normalised_words",
    "open_average",
    "scorer_named",
]
