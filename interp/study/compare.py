"""Cells of a result against one another: every pair, tested by group, with Holm's adjustment."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from interp.errors import StudyError
from interp.metrics import METRICS
from interp.stats import (
    Interval,
    PermutationTest,
    holm,
    paired,
    paired_test,
    per_group,
    population_note,
    unpaired,
    unpaired_test,
)
from interp.study.dataframes import rows_of, where
from interp.study.layer_choice import LayerChoice, check_metric, layers_of, metrics_of
from interp.study.result import GridResult
from interp.study.runs import GridCell
from interp.study.size_matching import area_frame, matched, shown_groups

__all__ = ["compare", "compare_groups"]

ENOUGH = 0.5
"""The share of the smaller cell that both must have in common for a paired comparison."""


@dataclass(frozen=True)
class _Side:
    """One cell's values: `rows` has `key` (the sample itself), `group`, `value`, `area` and so on."""

    cell: GridCell
    layer: int
    rows: pd.DataFrame


@dataclass(frozen=True)
class _Pair:
    """Two sides brought together; `kind` is "sample", "group" or "none"."""

    a: _Side
    b: _Side
    axes: tuple[str, ...]
    kind: str
    rows: pd.DataFrame  # value_a, value_b, group of what is paired; empty when nothing is
    left_out: int

    @property
    def names(self) -> dict[str, str]:
        """What the comparison is over, where, and between which labels."""
        labels_a, labels_b = self.a.cell.labels, self.b.cell.labels
        over = [axis for axis in labels_a if labels_a[axis] != labels_b[axis]]
        shared = [axis for axis in labels_a if axis not in over and axis in self.axes]
        return {
            "over": " · ".join(over),
            "where": " · ".join(labels_a[axis] for axis in shared),
            "a": " · ".join(labels_a[axis] for axis in over),
            "b": " · ".join(labels_b[axis] for axis in over),
        }


def compare(
    result: GridResult,
    metric: str,
    *,
    layer: int | LayerChoice,
    over: str | None = None,
    level: float = 0.95,
) -> pd.DataFrame:
    """One row per pair of cells: their difference a − b in one metric, its interval, and a permutation test.

    - Cells that share samples are compared sample by sample (`paired` "sample"): the mean difference, its
      bootstrap over groups, and sign flips of whole groups.
    - Cells that share groups but not samples, such as two kinds of question about the same patients, are
      compared by the groups' means (`paired` "group").
    - Other cells are compared as two sets of groups (`paired` "none"); groups that stand on both sides are
      left out. Their boxes may differ in size, so the table also gives the difference on pairs of like box size
      (`matched`, see `interp.study.size_matching.matched`).

    At least half of the smaller cell must be shared for a paired comparison; `left_out` counts the values
    that took no part. `p_holm` is adjusted over the rows of this table, which are one family. A layer chosen
    on these same samples makes every p too small.

    Args:
        result: The result whose cells are compared.
        metric: The metric.
        layer: A layer, or a choice made on other samples (one layer per model).
        over: The axis along which to compare, all else equal; None for every pair of cells.
        level: Coverage of the intervals.

    Returns:
        Columns `over`, `where`, `a`, `b`, `metric`, `layer_a`, `layer_b`, `mean_a`, `mean_b`, `difference`,
        `low`, `high`, `paired`, `n` (pairs, or values of both sides), `n_groups` (of the smaller side),
        `left_out`, `p`, `p_holm`, `smallest_p`, `area_a`, `area_b` (median share of the tokens in the boxes),
        `matched`, `matched_low`, `matched_high`, `n_matched` and `note`.

    Raises:
        StudyError: A metric or layer that was not measured, an unknown axis, or nothing to compare.
    """
    rows = [_row(pair, metric, level, result.seed) for pair in _pairs(result, metric, layer, over)]
    adjusted = holm([row["p"] for row in rows])
    frame = pd.DataFrame(rows)
    frame.insert(list(frame.columns).index("p") + 1, "p_holm", adjusted)
    return frame


def compare_groups(
    result: GridResult, metric: str, *, layer: int | LayerChoice, over: str | None = None
) -> pd.DataFrame:
    """The differences of `compare` group by group, to be read instead of it where groups are few.

    Returns:
        Columns `over`, `where`, `a`, `b`, `group`, `mean_a`, `n_a`, `mean_b`, `n_b` and `difference`; NaN where
        a side lacks the group.

    Raises:
        StudyError: As `compare`.
    """
    parts = []
    for pair in _pairs(result, metric, layer, over):
        a, b = (_group_means(side.rows) for side in (pair.a, pair.b))
        both = a.merge(b, on="group", how="outer", suffixes=("_a", "_b"), sort=False)
        both["difference"] = both.mean_a - both.mean_b
        for place, (name, value) in enumerate(pair.names.items()):
            both.insert(place, name, value)
        parts.append(both)
    joined = pd.concat(parts, ignore_index=True)
    names = shown_groups(result)
    joined["group"] = [names.get(group, group) for group in joined.group]
    return joined.fillna({"n_a": 0, "n_b": 0}).astype({"n_a": int, "n_b": int})


def _pairs(result: GridResult, metric: str, layer: int | LayerChoice, over: str | None) -> Iterator[_Pair]:
    check_metric(result, metric)
    if over is not None and not (isinstance(over, str) and over in result.axes):
        raise StudyError(f"over is one of the axes {', '.join(result.axes)}, or None; got {over!r}.")
    layers = layers_of(result, layer)
    able = [c for c in result.cells if metric in c.study.metrics and c.labels["model"] in layers]
    found = [pair for pair in itertools.combinations(able, 2) if _comparable(*pair, over)]
    if metric in metrics_of(result) and not found:
        raise StudyError(
            f"there is nothing to compare{'' if over is None else f' over {over}'}: no two cells with "
            f"{metric} differ {'at all' if over is None else 'in it alone'}. Vary an axis with a Grid."
        )
    frame = area_frame(result, metric, layer)
    sides = {
        c.key: _Side(c, layers[c.labels["model"]], _keyed(c, rows_of(frame, c.labels)))
        for c in {cell.key: cell for pair in found for cell in pair}.values()
    }
    for a, b in found:
        yield _paired_up(sides[a.key], sides[b.key], result.varied)


def _comparable(a: GridCell, b: GridCell, over: str | None) -> bool:
    differ = [axis for axis in a.labels if a.labels[axis] != b.labels[axis]]
    return over is None or differ == [over]


def _keyed(cell: GridCell, rows: pd.DataFrame) -> pd.DataFrame:
    """The rows with a key that only the same sample has in two cells: its content, and its count among equals.

    Ids may repeat, and two data sets may name one sample differently.
    """
    contents = pd.Series([hash(sample) for sample in cell.study.data]).astype(
        str
    )  # the hash is of the content
    keys = contents + "#" + contents.groupby(contents).cumcount().astype(str)
    return rows.assign(key=keys[rows["index"]].to_numpy())


def _paired_up(a: _Side, b: _Side, axes: tuple[str, ...]) -> _Pair:
    first, second = (where(side.rows, side.rows.value.notna()) for side in (a, b))
    total = len(first) + len(second)
    shared = first.merge(second, on="key", suffixes=("_a", "_b"))
    if len(shared) and len(shared) >= ENOUGH * min(len(first), len(second)):
        rows = shared.rename(columns={"group_a": "group"})
        return _Pair(a, b, axes, "sample", rows, total - 2 * len(shared))
    means = [_group_means(side) for side in (first, second)]
    both = means[0].merge(means[1], on="group", suffixes=("_a", "_b"))
    if len(both) and len(both) >= ENOUGH * min(map(len, means)):
        rows = both.rename(columns={"mean_a": "value_a", "mean_b": "value_b"})
        return _Pair(a, b, axes, "group", rows, total - int(both.n_a.sum() + both.n_b.sum()))
    apart = [where(side, ~side.group.isin(both.group)) for side in (first, second)]
    a, b = _Side(a.cell, a.layer, apart[0]), _Side(b.cell, b.layer, apart[1])
    return _Pair(a, b, axes, "none", shared.iloc[:0], total - len(apart[0]) - len(apart[1]))


def _group_means(rows: pd.DataFrame) -> pd.DataFrame:
    table = per_group(rows.value.to_numpy(float), rows.group.to_numpy(object))
    return table.drop(columns="n_nan")


def _row(pair: _Pair, metric: str, level: float, seed: int) -> dict[str, Any]:
    interval, test = _tested(pair, level, seed)
    mean_a, mean_b = _means(pair)
    like = _like_sizes(pair, level, seed)
    words = (population_note(interval.n_groups), test.note, _size_note(pair, metric))
    return {
        **pair.names,
        "metric": metric,
        "layer_a": pair.a.layer,
        "layer_b": pair.b.layer,
        "mean_a": mean_a,
        "mean_b": mean_b,
        "difference": interval.mean,
        "low": interval.low,
        "high": interval.high,
        "paired": pair.kind,
        "n": interval.n if pair.kind != "group" else int(pair.rows.n_a.sum() + pair.rows.n_b.sum()),
        "n_groups": interval.n_groups,
        "left_out": pair.left_out,
        "p": test.p,
        "smallest_p": test.smallest_p,
        "area_a": pair.a.rows.area.median(),
        "area_b": pair.b.rows.area.median(),
        **like,
        "note": " ".join(word for word in words if word),
    }


def _tested(pair: _Pair, level: float, seed: int) -> tuple[Interval, PermutationTest]:
    if pair.kind != "none":
        columns = (pair.rows.value_a, pair.rows.value_b, pair.rows.group.to_numpy(object))
        return paired(*columns, level=level, seed=seed), paired_test(*columns, seed=seed)
    a, b = pair.a.rows, pair.b.rows
    columns = (a.value, b.value, a.group.to_numpy(object), b.group.to_numpy(object))
    return unpaired(*columns, level=level, seed=seed), unpaired_test(*columns, seed=seed)


def _means(pair: _Pair) -> tuple[float, float]:
    """The means of what was compared, so that their difference is the difference."""
    if pair.kind == "none":
        return pair.a.rows.value.mean(), pair.b.rows.value.mean()
    return pair.rows.value_a.mean(), pair.rows.value_b.mean()


def _like_sizes(pair: _Pair, level: float, seed: int) -> dict[str, float]:
    """The difference on pairs of like box size, for cells of different samples; else NaN."""
    nothing = {"matched": np.nan, "matched_low": np.nan, "matched_high": np.nan, "n_matched": 0}
    if pair.kind == "sample":
        return nothing
    sides = [pair.a.rows.assign(side="a"), pair.b.rows.assign(side="b")]
    frame = pd.concat(sides).reindex(columns=["side", "sample", "group", "value", "area"])
    frame = frame.reset_index(drop=True).assign(sample=lambda rows: rows.index)
    try:
        found = matched(frame, over="side", names=("a", "b"), level=level, seed=seed)
    except StudyError:  # the sizes do not overlap
        return nothing
    gap = found.difference
    return {
        "matched": gap.mean,
        "matched_low": gap.low,
        "matched_high": gap.high,
        "n_matched": len(found.pairs),
    }


def _size_note(pair: _Pair, metric: str) -> str:
    """What the boxes' sizes do to a metric whose chance level depends on them."""
    if pair.kind == "sample" or METRICS[metric].chance_value is not None:
        return ""
    a, b = (100 * side.rows.area.median() for side in (pair.a, pair.b))
    return (
        f"A uniform map's {METRICS[metric].label} depends on the boxes' size (here they cover {a:.1f} % and "
        f"{b:.1f} % of the tokens, by the median): read the difference at like box sizes."
    )
