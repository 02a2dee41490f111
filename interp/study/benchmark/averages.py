"""Marks by a field of the samples, and averages over fields or benchmarks: micro, macro and weighted."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from jaxtyping import Float

from interp.errors import StudyError
from interp.stats import bootstrap, stratified_mean
from interp.study.dataframes import below, rows_of, where
from interp.study.refinement.method_comparison import change, with_holm
from interp.study.refinement.paired_result import PairedResult

if TYPE_CHECKING:
    from interp.study.runs import GridCell

__all__ = ["NOT_GIVEN", "averages", "by", "mean_of_strata", "pooled", "strata", "stratum_of"]

NOT_GIVEN = "not given"
FIELDS = ("benchmark", "modality", "subject", "question_type", "kind", "negatives")
"""The fields of `meta` that divide samples, where samples have them."""
MOST = 40
"""A field with more values names samples and does not divide them."""


def strata(result: PairedResult) -> tuple[str, ...]:
    """Those of `FIELDS` that have several values in some cell, and not as many as there are samples."""
    found = []
    for key in FIELDS:
        counts = [len(set(_values(cell, key).values()) - {NOT_GIVEN}) for cell in result.cells]
        if any(1 < count <= MOST for count in counts):
            found.append(key)
    return tuple(found)


def by(result: PairedResult, key: str, measure: str, level: float) -> pd.DataFrame:
    """See `BenchmarkResult.by`."""
    rows = []
    for cell in _divided(result, key):
        own = _measured(result, cell, measure)
        own = own.assign(stratum=stratum_of(own, cell, key))
        for value, part in own.groupby("stratum", sort=False):
            found = change(part, measure, level=level, seed=result.seed, marks=result.marks)
            if result.is_plain(cell):
                found["p"] = math.nan
            rows.append({**cell.labels, key: value, "measure": measure, **found})
    return with_holm(rows, (*result.axes, key, "measure", "p"))


def _divided(result: PairedResult, key: str) -> list[GridCell]:
    """The cells some of whose samples have the field; all of them for "data"."""
    if not isinstance(key, str):
        raise StudyError(f'a field of meta is a name, such as "modality"; got {key!r:.200}.')
    measured = [cell for cell in result.cells if cell.measured]
    found = [cell for cell in measured if key == "data" or set(_values(cell, key).values()) != {NOT_GIVEN}]
    if measured and not found:
        raise StudyError(
            f"no sample has a field {key!r} in its meta, so there is nothing to divide by. Fields that benchmarks' "
            f"readers give are {', '.join(FIELDS)}."
        )
    return found


def pooled(result: PairedResult, over: str, measure: str) -> list[tuple[dict[str, str], pd.DataFrame]]:
    """The rows of each table line: labels, and before, after, group and stratum of each marked sample.

    The data sets of one model and method are one line; groups of different data sets are different groups.
    """
    lines: dict[tuple[str, ...], list[pd.DataFrame]] = {}
    axes = [axis for axis in result.axes if axis != "data"]
    for cell in _divided(result, over):
        own = _measured(result, cell, measure)
        data = cell.labels["data"]
        stratum = data if over == "data" else stratum_of(own, cell, over)
        own = own.assign(stratum=stratum, group=data + ": " + own.group.astype(str))
        own = where(own, own.before.notna() & own.after.notna())
        lines.setdefault(tuple(cell.labels[axis] for axis in axes), []).append(own)
    return [(dict(zip(axes, key, strict=True)), below(parts)) for key, parts in lines.items()]


def averages(
    result: PairedResult, over: str, measure: str, weights: Mapping[str, float] | None, level: float
) -> pd.DataFrame:
    """See `BenchmarkResult.averages`."""
    rows = []
    for labels, own in pooled(result, over, measure):
        if own.empty:
            continue
        names = list(dict.fromkeys(own.stratum))
        sizes = {name: int((own.stratum == name).sum()) for name in names}
        kinds: dict[str, Mapping[str, float] | None] = {"micro": sizes, "macro": None}
        kinds |= {} if weights is None else {"weighted": weights}
        told = ", ".join(f"{name} {n}" for name, n in sizes.items())
        for kind, shares in kinds.items():
            found = _average(own, shares, level, result.seed)
            rows.append({**labels, "average": kind, "n_strata": len(names), **found, "strata": told})
    return pd.DataFrame(rows)


def _average(
    own: pd.DataFrame, weights: Mapping[str, float] | None, level: float, seed: int
) -> dict[str, Any]:
    """Before, after and difference; weights None weighs strata alike, and their sizes weigh questions alike."""
    strata, groups = own.stratum.tolist(), own.group.to_numpy(object)
    before, after = own.before.to_numpy(float), own.after.to_numpy(float)
    gaps = after - before
    sizes = isinstance(weights, Mapping) and dict(weights) == own.stratum.value_counts().to_dict()
    if sizes:
        interval = bootstrap(gaps, groups, level=level, seed=seed)
    else:
        interval = stratified_mean(gaps, strata, groups, weights=weights, level=level, seed=seed)
    return {
        "before": mean_of_strata(before, strata, weights),
        "after": mean_of_strata(after, strata, weights),
        "difference": interval.mean,
        "low": interval.low,
        "high": interval.high,
        "n": interval.n,
        "n_groups": interval.n_groups,
    }


def mean_of_strata(
    values: Float[np.ndarray, " row"], strata: Sequence[str], weights: Mapping[str, float] | None
) -> float:
    """The weighted mean of strata's means; None weighs each alike."""
    names = list(dict.fromkeys(strata))
    codes = pd.factorize(np.asarray(strata, object))[0]
    means = np.bincount(codes, weights=values) / np.bincount(codes)
    shares = np.array([1.0 if weights is None else float(weights[name]) for name in names])
    return float((shares * means).sum() / shares.sum())


def _measured(result: PairedResult, cell: GridCell, measure: str) -> pd.DataFrame:
    own = rows_of(result.pairs, cell.labels)
    return where(own, own.measure == measure)


def _values(cell: GridCell, key: str) -> dict[int, str]:
    """Each sample's value of a field of `meta`, by its index; numbers and texts as text."""
    found = (sample.meta.get(key) for sample in cell.study.data)
    return {index: NOT_GIVEN if value is None else str(value) for index, value in enumerate(found)}


def stratum_of(own: pd.DataFrame, cell: GridCell, key: str) -> list[str]:
    """The value of a field for each row."""
    values = _values(cell, key)
    return [values[index] for index in own["index"].tolist()]
