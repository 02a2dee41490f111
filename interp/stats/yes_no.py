"""Marks of yes-or-no answers: how often a model is right, and how readily it says yes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
import pandas as pd
from jaxtyping import Float

from interp.errors import StudyError
from interp.inputs.answers import plain
from interp.stats.groups import Groups, population_note
from interp.stats.intervals import bootstrap_statistic

__all__ = ["yes_no_marks"]

_REFUSALS = frozenset(("No", "not", "no"))


def yes_no_marks(
    answers: Sequence[str | None],
    truth: Sequence[str],
    groups: Groups = None,
    *,
    rule: Literal["whole", "pope"] = "whole",
    n: int = 2000,
    level: float = 0.95,
    seed: int = 0,
) -> pd.DataFrame:
    """Returns accuracy, precision, recall, F1 and the share of yes, "yes" being the positive class, with intervals.

    With said and true answers: `accuracy` = right / all; `precision` = true among said yes; `recall` = said yes among
    true yes; `f1` = 2 TP / (2 TP + FP + FN); `yes_ratio` = said yes / all, which on balanced questions is 0.5 for a
    model without a leaning; `neither` = answers that are neither / all, which count as wrong and as not yes. All in
    [0, 1]; higher is better for the first four. A ratio without a denominator (no yes was said) is NaN.

    Args:
        answers: (row,) what the model said; None for an answer that did not come.
        truth: (row,) "yes" or "no".
        groups: (row,) what was sampled independently, such as the picture; None: every row.
        rule: "whole": the whole text is yes or no, by the rule of `interp.inputs.answers`. "pope": as POPE's code reads
            long answers: no where the first sentence holds the word "No", "no" or "not", else yes.
        n, level, seed: As in `interp.stats.bootstrap`.

    Returns:
        One row per measure: measure, mean, low, high (over groups), n, n_groups, note.

    Raises:
        StudyError: Lengths that differ, a truth that is neither, or an unknown rule.

    >>> yes_no_marks(["yes", "Yes.", "no", "maybe"], ["yes", "no", "no", "yes"]).set_index("measure")["mean"].to_dict()
    {'accuracy': 0.5, 'precision': 0.5, 'recall': 0.5, 'f1': 0.5, 'yes_ratio': 0.5, 'neither': 0.25}

    Source: Li et al. 2023 (POPE, arXiv 2305.10355).
    """
    if rule not in ("whole", "pope"):
        raise StudyError(f'rule is "whole" or "pope"; got {rule!r}.')
    if len(answers) != len(truth):
        raise StudyError(
            f"expected an answer to each question; got {len(answers)} answers and {len(truth)} truths."
        )
    wrong = [one for one in truth if not isinstance(one, str) or plain(one) not in ("yes", "no")]
    if wrong:
        raise StudyError(f'the truth of a question is "yes" or "no"; got {wrong[0]!r:.100}.')
    said = [_said(answer, rule) for answer in answers]
    columns = [
        np.array([one == "yes" for one in said], float),
        np.array([one == "no" for one in said], float),
        np.array([plain(one) == "yes" for one in truth], float),
    ]
    rows = []
    for name, mark in _MARKS.items():
        found = bootstrap_statistic(mark, columns, groups, n=n, level=level, seed=seed)
        numbers = {"mean": found.mean, "low": found.low, "high": found.high, "n": found.n}
        rows.append(
            {"measure": name, **numbers, "n_groups": found.n_groups, "note": population_note(found.n_groups)}
        )
    return pd.DataFrame(rows)


def _said(answer: str | None, rule: str) -> str | None:
    """What an answer says: "yes", "no", or None for neither."""
    if answer is None:
        return None
    if rule == "pope":
        words = answer.split(".")[0].replace(",", "").split(" ")
        return "no" if _REFUSALS & set(words) else "yes"
    found = plain(answer)
    return found if found in ("yes", "no") else None


Flags = Float[np.ndarray, " row"]


def _ratio(a: float, b: float) -> float:
    return float(a / b) if b else float("nan")


def _accuracy(yes: Flags, no: Flags, true: Flags) -> float:
    return _ratio((yes * true + no * (1 - true)).sum(), len(true))


def _precision(yes: Flags, no: Flags, true: Flags) -> float:
    return _ratio((yes * true).sum(), yes.sum())


def _recall(yes: Flags, no: Flags, true: Flags) -> float:
    return _ratio((yes * true).sum(), true.sum())


def _f1(yes: Flags, no: Flags, true: Flags) -> float:
    return _ratio(2 * (yes * true).sum(), yes.sum() + true.sum())


def _yes_ratio(yes: Flags, no: Flags, true: Flags) -> float:
    return _ratio(yes.sum(), len(true))


def _neither(yes: Flags, no: Flags, true: Flags) -> float:
    return _ratio((1 - yes - no).sum(), len(true))


_MARKS = {
    "accuracy": _accuracy,
    "precision": _precision,
    "recall": _recall,
    "f1": _f1,
    "yes_ratio": _yes_ratio,
    "neither": _neither,
}
