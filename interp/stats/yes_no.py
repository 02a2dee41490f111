"""Marks of yes-or-no answers: how often a model is right, and how readily it says yes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import pandas as pd
from jaxtyping import Float

from interp.errors import StudyError
from interp.inputs.answers import plain
from interp.stats.intervals import CHUNK, Groups, check_options, check_rows, interval_ends, population_note

__all__ = ["yes_no_change", "yes_no_marks"]

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
    _check(rule, truth, answers=answers)
    check_options(n, level, seed)
    values, resampled, n_groups = _ratios([answers], truth, groups, rule, n, seed)
    rows = []
    for place, name in enumerate(_MARKS):
        low, high = interval_ends(resampled[0, place], level)
        rows.append({"measure": name, "mean": values[0, place], "low": low, "high": high})
    return pd.DataFrame(rows).assign(n=len(truth), n_groups=n_groups, note=population_note(n_groups))


def yes_no_change(
    before: Sequence[str | None],
    after: Sequence[str | None],
    truth: Sequence[str],
    groups: Groups = None,
    *,
    rule: Literal["whole", "pope"] = "whole",
    n: int = 2000,
    level: float = 0.95,
    seed: int = 0,
) -> pd.DataFrame:
    """Returns how each mark of `yes_no_marks` changes between two answers to the same questions, with paired intervals.

    Both answers of a question are resampled together, by whole groups. A mark that has no denominator on either side
    makes the difference NaN; resamplings of which that holds are left out of the interval.

    Args:
        before: (row,) what was said before; None for an answer that did not come.
        after: (row,) what was said after, such as under a method.
        truth, groups, rule: As in `yes_no_marks`.
        n, level, seed: As in `interp.stats.bootstrap`.

    Returns:
        One row per measure: measure, before, after, difference (after − before), low, high (of the difference), n,
        n_groups, note.

    Raises:
        StudyError: As `yes_no_marks`.

    >>> found = yes_no_change(["yes", "yes", "no"], ["yes", "no", "no"], ["yes", "no", "no"]).set_index("measure")
    >>> found.loc["precision", ["before", "after", "difference"]].tolist()
    [0.5, 1.0, 0.5]

    Source: Li et al. 2023 (POPE, arXiv 2305.10355) for the marks.
    """
    _check(rule, truth, before=before, after=after)
    check_options(n, level, seed)
    values, resampled, n_groups = _ratios([before, after], truth, groups, rule, n, seed)
    rows = []
    for place, name in enumerate(_MARKS):
        low, high = interval_ends(resampled[1, place] - resampled[0, place], level)
        first, last = values[:, place].tolist()
        ends = {"difference": last - first, "low": low, "high": high}
        rows.append({"measure": name, "before": first, "after": last, **ends})
    return pd.DataFrame(rows).assign(n=len(truth), n_groups=n_groups, note=population_note(n_groups))


def _check(rule: Any, truth: Any, **answers: Any) -> None:
    if not isinstance(rule, str) or rule not in ("whole", "pope"):
        raise StudyError(f'rule is "whole" or "pope"; got {rule!r}.')
    for name, given in (*answers.items(), ("truth", truth)):
        if not isinstance(given, list | tuple) or not all(
            one is None or isinstance(one, str) for one in given
        ):
            raise StudyError(f"{name} are a list of texts, one for each question; got {given!r:.100}.")
    for given in answers.values():
        if len(given) != len(truth):
            raise StudyError(
                f"expected an answer to each question; got {len(given)} answers and {len(truth)} truths."
            )
    wrong = [one for one in truth if one is None or plain(one) not in ("yes", "no")]
    if wrong:
        raise StudyError(f'the truth of a question is "yes" or "no"; got {wrong[0]!r:.100}.')


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


def _parts(yes: Flags, no: Flags, true: Flags) -> list[tuple[Flags, Flags]]:
    """Each mark's numerator and denominator by row, in the order of `_MARKS`: a mark is a ratio of their sums."""
    every, hits = np.ones_like(yes), yes * true
    return [
        (hits + no * (1 - true), every),
        (hits, yes),
        (hits, true),
        (2 * hits, yes + true),
        (yes, every),
        (1 - yes - no, every),
    ]


_MARKS = ("accuracy", "precision", "recall", "f1", "yes_ratio", "neither")


def _ratios(
    sides: Sequence[Sequence[str | None]],
    truth: Sequence[str],
    groups: Groups,
    rule: str,
    n: int,
    seed: int,
) -> tuple[Float[np.ndarray, "side mark"], Float[np.ndarray, "side mark resampling"], int]:
    """The marks of each side, those of n draws of as many groups as there are, and the number of groups."""
    true = np.array([plain(one) == "yes" for one in truth], float)
    codes = check_rows(true, groups)[1]
    parts = []
    for answers in sides:
        said = [_said(answer, rule) for answer in answers]
        yes, no = (np.array([one == word for one in said], float) for word in ("yes", "no"))
        parts.append(_parts(yes, no, true))
    table = np.array(parts).reshape(len(sides), len(_MARKS), 2, len(true))
    n_groups = int(codes.max()) + 1 if len(codes) else 0
    by_group = np.zeros((n_groups, *table.shape[:-1]))
    np.add.at(by_group, codes, np.moveaxis(table, -1, 0))
    sums = np.moveaxis(by_group, 0, -1)
    drawn = np.zeros((*table.shape[:-1], 0)) if n_groups < 2 else _draws(sums, n, seed)
    with np.errstate(invalid="ignore", divide="ignore"):
        values, resampled = (whole[:, :, 0] / whole[:, :, 1] for whole in (sums.sum(axis=-1), drawn))
    return values, resampled, n_groups


def _draws(
    sums: Float[np.ndarray, "side mark part group"], n: int, seed: int
) -> Float[np.ndarray, "side mark part resampling"]:
    """Sums over n draws of as many groups as there are, with replacement."""
    n_groups, rng = sums.shape[-1], np.random.default_rng(seed)
    step, found = max(1, CHUNK // n_groups), []
    for start in range(0, n, step):
        drawn = rng.integers(0, n_groups, size=(min(step, n - start), n_groups))
        counts = np.stack([np.bincount(one, minlength=n_groups) for one in drawn])
        found.append(sums @ counts.T)
    return np.concatenate(found, axis=-1)
