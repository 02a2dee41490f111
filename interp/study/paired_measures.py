"""What changed on the same samples: paired differences by group, and answers that flipped."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Float

from interp.stats import bootstrap, flips, holm, paired_test, population_note

__all__ = ["MEASURES", "change", "with_holm"]

MEASURES = {
    "correct": "accuracy",
    "logprob": "log p of the answer",
    "probability": "p of the answer",
    "ar": "attention ratio",
}
"""Short name → what tables call its mean."""


def change(rows: pd.DataFrame, measure: str, *, level: float, seed: int) -> dict[str, Any]:
    """The mean of after − before over samples that have both, its interval over groups, and tests.

    A log-probability of −∞, where a contrast rules the answer out, has no difference: such samples are left out
    and counted. For marks (`correct`) the flips are counted and tested too.

    Args:
        rows: `before`, `after` and `group` of each sample.
        measure: One of `MEASURES`.
        level: Coverage of the interval.
        seed: Of the bootstrap and the permutations.

    Returns:
        before, after (means over the same samples), difference, low, high, n, n_groups, n_undefined, n_ruled_out, p
        (signs of whole groups flipped), smallest_p, wrong_to_right, right_to_wrong and p_flips (McNemar, exact; None
        but for marks) and note.
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
        **_flipped(before, after, measure),
        "note": " ".join(_notes(measure, after - before, infinite, interval.n_groups, test.note)),
    }


def with_holm(rows: Sequence[Mapping[str, Any]], names: Sequence[str] = ("measure", "p")) -> pd.DataFrame:
    """The rows as a table with `p_holm` after `p`, adjusted over the rows of each measure, which are one family.

    Args:
        rows: With `measure` and `p` each.
        names: The columns of a table without rows.
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


def _flipped(before: np.ndarray, after: np.ndarray, measure: str) -> dict[str, Any]:
    if measure != "correct":
        return {"wrong_to_right": None, "right_to_wrong": None, "p_flips": None}
    found = flips(before, after)
    return {
        "wrong_to_right": found.wrong_to_right,
        "right_to_wrong": found.right_to_wrong,
        "p_flips": found.p,
    }


def _notes(measure: str, gaps: np.ndarray, infinite: np.ndarray, n_groups: int, tested: str) -> list[str]:
    known = gaps[~np.isnan(gaps)]
    notes = [population_note(n_groups)] if n_groups else []
    if measure == "correct" and len(known) and not known.any():
        share = 100 * (1 - 0.025 ** (1 / n_groups))
        notes.append(
            f"No mark changed, so resampling sees no variation and the interval [0, 0] is too sure: with {n_groups} "
            f"groups a change in up to {share:.1f} % of them is not excluded."
        )
    elif tested and n_groups > 1:
        notes.append(tested)
    if infinite.any():
        notes.append(
            f"{int(infinite.sum())} samples left out whose answer was ruled out (log-probability −∞): read the "
            "probability instead."
        )
    return [note for note in notes if note]
