"""Methods against one another, on the same samples, with Holm's adjustment."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Any

import pandas as pd

from interp.errors import StudyError
from interp.study.frames import rows_of, where
from interp.study.paired_measures import change, with_holm

if TYPE_CHECKING:
    from interp.study.refinement_result import RefinementCell, RefinementResult

__all__ = ["compare_methods"]


def compare_methods(
    result: RefinementResult, measure: str, *, over: str = "method", level: float = 0.95
) -> pd.DataFrame:
    """One row per pair of cells that differ along one axis alone: a after minus b after, sample by sample.

    `p_holm` is adjusted over the rows of this table, which are one family. Methods are compared with the plain
    model in `RefinementResult.summary`.

    Args:
        result: What to compare.
        measure: "correct", "logprob", "probability" or "ar".
        over: The axis along which to compare.
        level: Coverage of the intervals.

    Returns:
        Columns `over`, `where`, `a`, `b`, `measure`, `mean_a`, `mean_b`, `difference`, `low`, `high`, `n`,
        `n_groups`, `left_out` (samples not measured on both sides), `p` (signs of whole groups flipped), `p_holm`,
        `smallest_p`, `only_a_right` and `only_b_right` with McNemar's exact `p_flips` (of "correct"), and `note`.

    Raises:
        StudyError: A measure that was not measured, an unknown axis, or nothing to compare.
    """
    if measure not in result.measures:
        raise StudyError(f"measure is one of {', '.join(result.measures)}; got {measure!r}.")
    if over not in result.axes:
        raise StudyError(f"over is one of the axes {', '.join(result.axes)}; got {over!r}.")
    cells = [cell for cell in result.cells if cell.measured]
    pairs = [(a, b) for a, b in itertools.combinations(cells, 2) if _differ(a, b) == [over]]
    pairs = [(a, b) for a, b in pairs if a.study.data == b.study.data]
    if not pairs:
        raise StudyError(
            f"there is nothing to compare over {over}: no two cells on the same samples differ in it alone. Vary it "
            "with a Grid."
        )
    return with_holm([_row(result, pair, measure, over, level) for pair in pairs])


def _differ(a: RefinementCell, b: RefinementCell) -> list[str]:
    return [axis for axis in a.labels if a.labels[axis] != b.labels[axis]]


def _row(
    result: RefinementResult,
    pair: tuple[RefinementCell, RefinementCell],
    measure: str,
    over: str,
    level: float,
) -> dict[str, Any]:
    a, b = (_after(result, cell, measure) for cell in pair)
    both = b.merge(a, on=["index", "group"], suffixes=("_b", "_a"))
    rows = both.rename(columns={"value_b": "before", "value_a": "after"})
    found = change(rows, measure, level=level, seed=result.seed)
    shared = [
        axis for axis in result.axes if axis != over and len({c.labels[axis] for c in result.cells}) > 1
    ]
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


def _after(result: RefinementResult, cell: RefinementCell, measure: str) -> pd.DataFrame:
    """The cell's values under its method, by the sample's place in the data."""
    scores = cell.frame("scores")
    own = where(scores, (scores.measure == measure) & (scores.when == "after"))
    samples = rows_of(result.samples, cell.labels)[["index", "group"]]
    return own[["index", "value"]].merge(samples, on="index")
