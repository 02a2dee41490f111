"""The weighted mean of strata's means, as in a macro average over benchmarks, with an interval over groups."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from numbers import Real
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Float
from numpy.typing import ArrayLike

from interp.errors import StudyError
from interp.stats.intervals import Groups, Interval, check_options, check_rows, interval_ends

__all__ = ["stratified_mean"]


def stratified_mean(
    values: ArrayLike,
    strata: Sequence[str],
    groups: Groups,
    *,
    weights: Mapping[str, float] | None = None,
    n: int = 2000,
    level: float = 0.95,
    seed: int = 0,
) -> Interval:
    """Σ_s w_s · (mean of the values of stratum s) / Σ_s w_s, with a percentile interval from resamplings of groups.

    Each resampling draws as many groups as there are, with replacement, whatever their strata; a stratum without a row
    in it is left out of that resampling, weight and all. It is `bootstrap_statistic` of that mean, number for number,
    and faster, because only sums of groups are drawn: 0.5 s for 24 s of CPU time on 89,000 rows in 36,000 groups.

    Args:
        values: (row,) numbers; rows of NaN are dropped and counted.
        strata: (row,) the name of each row's stratum.
        groups: (row,) labels of what was sampled independently, as in `bootstrap`. A group may be in several strata.
        weights: Stratum → its weight, 0 or more; None weighs each alike. Names that no row has do not count.
        n: The number of resamplings.
        level: The nominal coverage, in (0, 1).
        seed: The seed of the resampling.

    Raises:
        StudyError: As `bootstrap`; strata of another length, a stratum without a weight, or weights that are no numbers
            ≥ 0 with some more than 0.

    Example:
        >>> found = stratified_mean([1.0, 1.0, 0.0], ["a", "a", "b"], ["x", "y", "z"])
        >>> found.mean, found.n, found.n_groups
        (0.5, 3, 3)
    """
    check_options(n, level, seed)
    rows, codes = check_rows(values, groups)
    _check_strata(strata, len(rows))
    kept = ~np.isnan(rows)
    names = list(dict.fromkeys(name for name, there in zip(strata, kept, strict=True) if there))
    shares = _shares(weights, names)
    if not names:
        return Interval(np.nan, np.nan, np.nan, 0, 0, int((~kept).sum()))
    place = {name: number for number, name in enumerate(names)}
    stratum = np.array([place[name] for name, there in zip(strata, kept, strict=True) if there])
    group = np.unique(codes[kept], return_inverse=True)[1]
    size = (int(group.max()) + 1, len(names))
    sums, counts = np.zeros(size), np.zeros(size)
    np.add.at(sums, (group, stratum), rows[kept])
    np.add.at(counts, (group, stratum), 1.0)
    low, high = np.nan, np.nan
    if size[0] > 1:
        rng = np.random.default_rng(seed)
        drawn = (np.bincount(rng.integers(0, size[0], size=size[0]), minlength=size[0]) for _ in range(n))
        means = [_mean(times @ sums, times @ counts, shares) for times in drawn]
        low, high = interval_ends(np.array(means), level)
    value = _mean(sums.sum(axis=0), counts.sum(axis=0), shares)
    return Interval(value, low, high, int(kept.sum()), size[0], int((~kept).sum()))


def _check_strata(strata: Any, n_rows: int) -> None:
    listed = isinstance(strata, list | tuple) or (
        isinstance(strata, np.ndarray | pd.Series) and strata.ndim == 1
    )
    if not listed or len(strata) != n_rows or not all(isinstance(name, str) for name in strata):
        raise StudyError(f"strata are one name, a text, for each of {n_rows} values; got {strata!r:.100}.")


def _mean(
    sums: Float[np.ndarray, " stratum"],
    counts: Float[np.ndarray, " stratum"],
    shares: Float[np.ndarray, " stratum"],
) -> float:
    """The weighted mean over the strata that have rows and weight; NaN without any."""
    there = (counts > 0) & (shares > 0)
    if not there.any():
        return float("nan")
    return float((shares[there] * sums[there] / counts[there]).sum() / shares[there].sum())


def _shares(weights: Mapping[str, float] | None, names: Sequence[str]) -> Float[np.ndarray, " stratum"]:
    """The weight of each stratum."""
    if weights is None:
        return np.ones(len(names))
    real = isinstance(weights, Mapping) and all(
        isinstance(one, Real) and not isinstance(one, bool) and np.isfinite(float(one)) and float(one) >= 0
        for one in weights.values()
    )
    if not real or any(name not in weights for name in names) or not sum(weights[name] for name in names):
        raise StudyError(
            f"weights give each stratum, {', '.join(names)}, a number ≥ 0 and some more than 0; got {weights!r:.200}."
        )
    return np.array([float(weights[name]) for name in names])
