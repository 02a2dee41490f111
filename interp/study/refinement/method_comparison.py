"""Compares before with after and methods with one another, on the same samples, with Holm's adjustment."""

from __future__ import annotations

import itertools
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Float

from interp.errors import StudyError
from interp.inputs.text import count
from interp.stats import bootstrap, flips, holm, paired_test, population_note
from interp.study.dataframes import rows_of, where
from interp.study.result import GridResult
from interp.study.runs import GridCell

__all__ = ["MARKS", "MEASURES", "change", "compare_methods", "measures_of", "with_holm"]

MEASURES = {
    "correct": "accuracy",
    "logprob": "log p of the answer",
    "probability": "p of the answer",
    "ar": "attention ratio",
}
"""Short name → what tables call its mean."""
MARKS = ("correct",)
"""The measures that are 1 for right and 0 for wrong."""


def change(
    rows: pd.DataFrame, measure: str, *, level: float, seed: int, marks: Collection[str] = MARKS
) -> dict[str, Any]:
    """The mean of after − before over the samples that have both, with its interval over groups and tests.

    A log-probability of −∞, where a contrast rules the answer out, has no difference; such samples are left out and
    counted. For marks the flips are also counted and tested.

    Args:
        rows: One row per sample with the columns `before`, `after` and `group`.
        measure: The measure's short name.
        level: Coverage of the interval.
        seed: The seed of the bootstrap and of the sign flips.
        marks: The measures that are 1 for right and 0 for wrong.

    Returns:
        before and after (means over the same samples), difference (above 0: larger after), low, high, n, n_groups,
        n_undefined, n_ruled_out, p (signs of whole groups flipped), smallest_p (the smallest p that so few groups
        allow), wrong_to_right, right_to_wrong and p_flips (McNemar's exact test; all three None except for marks), and
        note.
    """
    before, after = (_numbers(rows[when]) for when in ("before", "after"))
    infinite = np.isinf(before) | np.isinf(after)
    before, after = (np.where(infinite, np.nan, values) for values in (before, after))
    known = ~(np.isnan(before) | np.isnan(after))
    groups = np.asarray(rows["group"], object)
    interval = bootstrap(after - before, groups, level=level, seed=seed)
    test = paired_test(after, before, groups, seed=seed)
    nan = float("nan")
    return {
        "before": float(before[known].mean()) if known.any() else nan,
        "after": float(after[known].mean()) if known.any() else nan,
        "difference": interval.mean,
        "low": interval.low,
        "high": interval.high,
        "n": interval.n,
        "n_groups": interval.n_groups,
        "n_undefined": int((~known & ~infinite).sum()),
        "n_ruled_out": int(infinite.sum()),
        "p": test.p,
        "smallest_p": test.smallest_p,
        **_flipped(before, after, measure in marks),
        "note": " ".join(_notes(measure in marks, after - before, infinite, interval.n_groups, test.note)),
    }


def with_holm(rows: Sequence[Mapping[str, Any]], names: Sequence[str] = ("measure", "p")) -> pd.DataFrame:
    """The rows as a table with `p_holm` after `p`, adjusted over the rows of each measure, which are one family.

    Args:
        rows: The rows, each with `measure` and `p`.
        names: The columns of the table if there are no rows.
    """
    table = pd.DataFrame(list(rows)) if len(rows) else pd.DataFrame(columns=list(names))
    adjusted = np.full(len(rows), np.nan)
    for measure in dict.fromkeys(row["measure"] for row in rows):
        family = [place for place, row in enumerate(rows) if row["measure"] == measure]
        adjusted[family] = holm([rows[place]["p"] for place in family])
    table.insert(list(table.columns).index("p") + 1, "p_holm", adjusted)
    return table


def _numbers(column: Any) -> Float[np.ndarray, " sample"]:
    return np.asarray(column, np.float64)


def _flipped(before: np.ndarray, after: np.ndarray, marked: bool) -> dict[str, Any]:
    if not marked:
        return {"wrong_to_right": None, "right_to_wrong": None, "p_flips": None}
    found = flips(before, after)
    return {
        "wrong_to_right": found.wrong_to_right,
        "right_to_wrong": found.right_to_wrong,
        "p_flips": found.p,
    }


def _notes(marked: bool, gaps: np.ndarray, infinite: np.ndarray, n_groups: int, tested: str) -> list[str]:
    known = gaps[~np.isnan(gaps)]
    notes = [population_note(n_groups)] if n_groups else []
    if marked and len(known) and not known.any():
        share = 100 * (1 - 0.025 ** (1 / n_groups))
        notes.append(
            f"No mark changed, so resampling sees no variation and the interval [0, 0] is too sure: with "
            f"{count(n_groups, 'group')} a change in up to {share:.1f} % of the groups is not excluded."
        )
    elif tested and n_groups > 1:
        notes.append(tested)
    if infinite.any():
        notes.append(
            f"{count(int(infinite.sum()), 'sample')} left out because the answer was ruled out (log-probability −∞): "
            "read the probability instead."
        )
    return [note for note in notes if note]


def compare_methods(
    result: GridResult,
    measure: str,
    *,
    over: str = "method",
    level: float = 0.95,
    names: Iterable[str] = MEASURES,
    marks: Collection[str] = MARKS,
) -> pd.DataFrame:
    """One row per pair of cells that differ along one axis alone: a after minus b after, sample by sample.

    `p_holm` is adjusted over the rows of this table, which are one family. `PairedResult.summary` compares methods with
    the plain model.

    Args:
        result: The result whose cells are compared.
        measure: The short name of a measure, such as "correct".
        over: The axis along which to compare.
        level: Coverage of the intervals.
        names: The possible measures, in the order of tables.
        marks: The measures that are 1 for right and 0 for wrong.

    Returns:
        Columns `over`, `where`, `a`, `b`, `measure`, `mean_a`, `mean_b`, `difference` (a − b), `low`, `high`, `n`,
        `n_groups`, `left_out` (samples not measured on both sides), `p` (signs of whole groups flipped), `p_holm`,
        `smallest_p`, for marks `only_a_right`, `only_b_right` and McNemar's exact `p_flips`, and `note`.

    Raises:
        StudyError: The measure was not measured, the axis is unknown, or there is nothing to compare.
    """
    known = measures_of(result, names)
    if not isinstance(measure, str) or measure not in known:
        raise StudyError(f"measure is one of {', '.join(known)}; got {measure!r}.")
    if not isinstance(over, str) or over not in result.axes:
        raise StudyError(f"over is one of the axes {', '.join(result.axes)}; got {over!r}.")
    cells = [cell for cell in result.cells if cell.measured]
    both = [(a, b) for a, b in itertools.combinations(cells, 2) if _differ(a, b) == [over]]
    both = [(a, b) for a, b in both if a.study.data == b.study.data]
    if not both:
        raise StudyError(
            f"there is nothing to compare over {over}: no two cells on the same samples differ in it alone. Vary "
            "another field than data with a Grid, and compare over that."
        )
    return with_holm([_row(result, pair, measure, over, level, marks) for pair in both])


def measures_of(result: GridResult, names: Iterable[str] = MEASURES) -> tuple[str, ...]:
    """The measures that are defined on at least one sample, in the order of the names."""
    found = set(where(result.scores, result.scores.value.notna()).measure)
    return tuple(name for name in names if name in found)


def _differ(a: GridCell, b: GridCell) -> list[str]:
    return [axis for axis in a.labels if a.labels[axis] != b.labels[axis]]


def _row(
    result: GridResult,
    pair: tuple[GridCell, GridCell],
    measure: str,
    over: str,
    level: float,
    marks: Collection[str],
) -> dict[str, Any]:
    a, b = (_after(result, cell, measure) for cell in pair)
    both = b.merge(a, on=["index", "group"], suffixes=("_b", "_a"))
    rows = both.rename(columns={"value_b": "before", "value_a": "after"})
    found = change(rows, measure, level=level, seed=result.seed, marks=marks)
    shared = [axis for axis in result.varied if axis != over]
    return {
        "over": over,
        "where": " · ".join(pair[0].labels[axis] for axis in shared),
        "a": pair[0].labels[over],
        "b": pair[1].labels[over],
        "measure": measure,
        "mean_a": found["after"],
        "mean_b": found["before"],
        **{name: found[name] for name in ("difference", "low", "high", "n", "n_groups")},
        "left_out": len(a) + len(b) - 2 * found["n"],
        "p": found["p"],
        "smallest_p": found["smallest_p"],
        "only_a_right": found["wrong_to_right"],
        "only_b_right": found["right_to_wrong"],
        "p_flips": found["p_flips"],
        "note": found["note"],
    }


def _after(result: GridResult, cell: GridCell, measure: str) -> pd.DataFrame:
    """The cell's values under its method, with each sample's index and group."""
    scores = cell.frame("scores")
    own = where(scores, (scores.measure == measure) & (scores.when == "after"))
    samples = rows_of(result.samples, cell.labels)[["index", "group"]]
    return own[["index", "value"]].merge(samples, on="index")
