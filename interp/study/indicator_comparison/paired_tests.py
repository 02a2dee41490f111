"""Paired tests by group of indicators against one another and against baselines, with Holm's adjustment."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pandas as pd

from interp.errors import StudyError
from interp.indicators import CentrePrior, RandomMap
from interp.metrics import METRICS
from interp.stats import holm, paired, paired_test, population_note
from interp.study.dataframes import below, rows_of, where
from interp.study.result import GridResult
from interp.study.runs import GridCell
from interp.study.study import is_level

__all__ = ["BETTER", "baselines", "better", "compare_indicators", "found", "no_baseline"]

BETTER = {"deletion": "lower", "insertion": "higher", "comprehensiveness": "higher", "sufficiency": "lower"}
USUAL = 0.05


def better(measure: str) -> str:
    """Whether "higher" or "lower" values of a measure are better; "" for agreement and sanity checks."""
    return METRICS[measure].better if measure in METRICS else BETTER.get(measure, "")


def baselines(study: Any) -> list[str]:
    """The labels of the indicators that do not depend on the model: the centre prior and random maps."""
    known = study.indicators.items()
    return [label for label, indicator in known if isinstance(indicator, CentrePrior | RandomMap)]


def no_baseline(result: GridResult) -> str:
    """Why no indicator has a verdict, where a cell has no baseline; empty where each cell has one."""
    if all(baselines(cell.study) for cell in result.cells if cell.measured):
        return ""
    return "No baseline among the indicators, so none can get ✓ or ✗: add CentrePrior() and RandomMap() to indicators=."


def compare_indicators(
    result: GridResult, measure: str, against: str | None = None, *, level: float = 0.95
) -> pd.DataFrame:
    """Every pair of indicators in each cell, on the samples for which both have a value.

    Args:
        result: The result whose indicators are compared.
        measure: A metric, or a measure of faithfulness.
        against: The truth or the removal; by default the cell's first.
        level: Coverage of the intervals.

    Returns:
        Columns: axes…, `a`, `b`, `measure`, `against`, `mean_a`, `mean_b`, `difference` (a − b), `low`, `high`, `n`,
        `n_groups`, `p` (signs of whole groups flipped), `p_holm` (over the pairs of a cell), `smallest_p`, `note`.

    Raises:
        StudyError: The measure was not measured anywhere.
    """
    known = dict.fromkeys(result.scores.measure)
    if not isinstance(measure, str) or not (against is None or isinstance(against, str)):
        raise StudyError(
            f"measure is one of {', '.join(known)}, against a truth or a removal by name; got {measure!r}, {against!r}."
        )
    is_level("level", level)
    parts = [_pairs(result, cell, measure, against, level) for cell in result.cells if cell.measured]
    full = [part for part in parts if len(part)]
    if not full:
        raise StudyError(
            f"expected one of the measures {', '.join(known)}, of two indicators or more; got {measure!r}."
        )
    return below(full)


def _pairs(
    result: GridResult, cell: GridCell, measure: str, against: str | None, level: float
) -> pd.DataFrame:
    wide = values_of(result, cell, measure, against)
    labels = [label for label in cell.study.indicators if label in wide]
    rows = []
    for a, b in itertools.combinations(labels, 2):
        first, second = wide[a].to_numpy(float), wide[b].to_numpy(float)
        rows.append({"a": a, "b": b, **_tested(first, second, wide["group"], level, result.seed)})
    frame = pd.DataFrame(rows)
    if frame.empty:
        return frame
    frame.insert(list(frame.columns).index("p") + 1, "p_holm", holm(frame.p.to_numpy(float)))
    named = {**cell.labels, "measure": measure, "against": against or _first(cell, measure)}
    for place, (name, value) in enumerate(named.items()):
        frame.insert(place if name in cell.labels else place + 2, name, value)
    return frame


def values_of(result: GridResult, cell: GridCell, measure: str, against: str | None) -> pd.DataFrame:
    """One row per sample of a cell: `index`, `group` and one column per indicator."""
    own = rows_of(result.values, cell.labels)
    own = where(own, (own.measure == measure) & (own.against == (against or _first(cell, measure))))
    return own.pivot(index=["index", "group"], columns="indicator", values="value").reset_index()


def _first(cell: GridCell, measure: str) -> str:
    study = cell.study
    removals = [removal.name for removal in study.removals]
    return study.truth[0] if measure in METRICS else (removals or [""])[0]


def _tested(a: np.ndarray, b: np.ndarray, groups: Any, level: float, seed: int) -> dict[str, Any]:
    known = ~(np.isnan(a) | np.isnan(b))
    names = np.asarray(groups, object)
    gap = paired(a, b, names, level=level, seed=seed)
    test = paired_test(a, b, names, seed=seed)
    nan = float("nan")
    return {
        "mean_a": float(a[known].mean()) if known.any() else nan,
        "mean_b": float(b[known].mean()) if known.any() else nan,
        "difference": gap.mean,
        "low": gap.low,
        "high": gap.high,
        "n": gap.n,
        "n_groups": gap.n_groups,
        "p": test.p,
        "smallest_p": test.smallest_p,
        "note": population_note(gap.n_groups),
    }


def found(result: GridResult, measure: str | None = None, level: float = 0.95) -> pd.DataFrame:
    """Which indicators find the truth: one row per (axes…, indicator) that is no baseline.

    An indicator **finds** the truth if it is better than every baseline among the indicators on the same samples: the
    interval of each difference lies on the better side of zero, and the largest p of the paired tests (signs of whole
    groups flipped), which tests "better than all baselines", is at most 0.05 after Holm's adjustment over the cell's
    indicators.

    Returns:
        Columns: axes…, `indicator`, `mean`, `low`, `high` of the first metric (or `measure`) against the first truth,
            `n`, `n_groups`, `best_baseline` (the best mean among the baselines), `p_holm`, `finds`, `note`. `finds` is
            None without baselines or with fewer than 20 groups.
    """
    if measure is not None and (not isinstance(measure, str) or measure not in METRICS):
        raise StudyError(
            f"measure is one of {', '.join(METRICS)}, or None for the first measured; got {measure!r}."
        )
    parts = []
    for cell in (one for one in result.cells if one.measured):
        chosen = measure or cell.study.metrics[0]
        summary = rows_of(result.summary(level), cell.labels)
        keep = (summary.measure == chosen) & (summary.against == cell.study.truth[0])
        rows = where(summary, keep).set_index("indicator")
        parts.append(_verdicts(result, cell, chosen, rows, level))
    return below(parts)


def _verdicts(
    result: GridResult, cell: GridCell, measure: str, rows: pd.DataFrame, level: float
) -> pd.DataFrame:
    sign = 1 if better(measure) == "higher" else -1
    nothing = [label for label in baselines(cell.study) if label in rows.index]
    labels = [label for label in cell.study.indicators if label in rows.index and label not in nothing]
    wide = values_of(result, cell, measure, None)
    signed = {label: sign * wide[label].to_numpy(float) for label in (*labels, *nothing)}
    tests = {
        label: [_tested(signed[label], signed[base], wide["group"], level, result.seed) for base in nothing]
        for label in labels
    }
    worst = [max((test["p"] for test in tests[label]), default=float("nan")) for label in labels]
    frame = []
    for label, p in zip(labels, holm(worst), strict=True):
        row = rows.loc[label]
        wins = all(test["low"] > 0 for test in tests[label]) and bool(p <= USUAL)
        means = [sign * float(rows.loc[base, "mean"]) for base in nothing]  # pyright: ignore[reportArgumentType]
        frame.append(
            {
                **cell.labels,
                "indicator": label,
                "measure": measure,
                **{name: row[name] for name in ("mean", "low", "high", "n", "n_groups")},
                "best_baseline": sign * max(means) if means else float("nan"),
                "p_holm": float(p),
                "finds": None if not nothing or row["note"] else wins,
                "note": row["note"],
            }
        )
    return pd.DataFrame(frame)
