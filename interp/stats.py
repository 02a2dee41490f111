"""Means with honest intervals: groups (patients, volumes, images) are resampled, never rows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from jaxtyping import Float, Int
from numpy.typing import ArrayLike

from interp.errors import StudyError

__all__ = ["MIN_GROUPS", "Interval", "bootstrap", "paired", "per_group", "population_note"]

MIN_GROUPS = 20  # with 6 volumes a 95 % interval over images covers 58 %: below this, no population claim

CHUNK = 1_000_000  # group draws held at once; fixed, because the draws of a seed must not depend on memory


@dataclass(frozen=True)
class Interval:
    """A mean with its bootstrap interval.

    Attributes:
        mean: mean over the rows kept; NaN when there are none.
        low: lower end; NaN with fewer than two groups, since nothing can then be said of other groups.
        high: upper end; NaN as `low`.
        n: rows kept.
        n_groups: groups with at least one row kept.
        n_nan: rows dropped because their value was NaN.
    """

    mean: float
    low: float
    high: float
    n: int
    n_groups: int
    n_nan: int = 0


def bootstrap(
    values: ArrayLike,
    groups: Sequence | np.ndarray | pd.Series | None,
    *,
    n: int = 2000,
    level: float = 0.95,
    seed: int = 0,
) -> Interval:
    """The mean of `values` with a percentile interval from `n` resamplings of whole groups.

    Each resampling draws as many groups as there are, with replacement, and takes the mean of all their rows
    (a ratio of sums, so large groups weigh more, as they do in the mean itself). The result does not depend
    on the order of the rows.

    Args:
        values: (row,) numbers; NaN are dropped and counted.
        groups: (row,) labels of what was sampled independently; a missing label (None, NaN) is a group of
            its own. None: every row is its own group.
        n: resamplings.
        level: nominal coverage, in (0, 1).
        seed: of the resampling.

    Raises:
        StudyError: values and groups of different lengths, infinite values, or `n`, `level` out of range.

    Example:
        >>> found = bootstrap([1.0, 3.0, 5.0, 5.0], ["a", "a", "b", "c"])
        >>> found.mean, found.n, found.n_groups
        (3.5, 4, 3)
    """
    _check_options(n, level)
    rows, codes = _checked(values, groups)
    kept = ~np.isnan(rows)
    n_nan = int((~kept).sum())
    sums, counts = _totals(rows[kept], codes[kept])
    if len(sums) == 0:
        return Interval(np.nan, np.nan, np.nan, 0, 0, n_nan)
    mean = float(sums.sum() / counts.sum())
    low, high = np.nan, np.nan
    if len(sums) > 1:
        means = _resampled_means(sums, counts, n, np.random.default_rng(seed))
        low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    return Interval(mean, float(low), float(high), int(counts.sum()), len(sums), n_nan)


def paired(
    a: ArrayLike,
    b: ArrayLike,
    groups: Sequence | np.ndarray | pd.Series | None,
    *,
    n: int = 2000,
    level: float = 0.95,
    seed: int = 0,
) -> Interval:
    """The mean of `a − b` over rows measured both ways, with the interval of `bootstrap`.

    Row i of `a` and of `b` must be the same sample. Rows where either is NaN are dropped and counted.

    Raises:
        StudyError: as `bootstrap`, and when `a` and `b` differ in length.

    Example:
        >>> paired([2.0, 4.0], [1.0, 1.0], None).mean
        2.0
    """
    first, second = np.asarray(a, np.float64), np.asarray(b, np.float64)
    if first.shape != second.shape:
        raise StudyError(
            f"a paired difference needs the same samples in both; came {first.shape} and {second.shape}. "
            "Align the rows by sample first."
        )
    return bootstrap(first - second, groups, n=n, level=level, seed=seed)


def per_group(values: ArrayLike, groups: Sequence | np.ndarray | pd.Series) -> pd.DataFrame:
    """One row per group: `group`, `mean`, `n` (rows kept) and `n_nan`, in order of first appearance.

    A group whose every value is NaN has a NaN mean and n = 0; a missing label gets a row of its own.

    Raises:
        StudyError: values and groups of different lengths, or infinite values.
    """
    rows, codes = _checked(values, groups)
    labels = np.asarray(pd.Series(groups, dtype=object), dtype=object)
    n_groups = int(codes.max()) + 1 if len(codes) else 0
    kept = ~np.isnan(rows)
    counts = np.bincount(codes[kept], minlength=n_groups)
    sums = np.bincount(codes[kept], weights=rows[kept], minlength=n_groups)
    first = np.unique(codes, return_index=True)[1]
    frame = {
        "group": labels[first],
        "mean": np.where(counts > 0, sums / np.maximum(counts, 1), np.nan),
        "n": counts,
        "n_nan": np.bincount(codes[~kept], minlength=n_groups),
    }
    return pd.DataFrame(frame).iloc[np.argsort(first)].reset_index(drop=True)


def population_note(n_groups: int) -> str:
    """The sentence that must stand beside a mean over fewer than 20 groups; empty from 20 on.

    Example:
        >>> population_note(25)
        ''
    """
    if n_groups >= MIN_GROUPS:
        return ""
    noun = "group" if n_groups == 1 else "groups"
    return (
        f"Only {n_groups} {noun}: fewer than {MIN_GROUPS}, so the interval says nothing reliable about other "
        "groups. Read the values per group; no claim about a population is made."
    )


def _check_options(n: int, level: float) -> None:
    if n < 1 or not 0 < level < 1:
        raise StudyError(
            f"a bootstrap takes n ≥ 1 resamplings and a level between 0 and 1; came n={n}, level={level}. "
            "The defaults are n=2000, level=0.95."
        )


def _checked(
    values: ArrayLike, groups: Sequence | np.ndarray | pd.Series | None
) -> tuple[Float[np.ndarray, " row"], Int[np.ndarray, " row"]]:
    """The values as float64, and the groups as integers from 0."""
    rows = np.asarray(values, dtype=np.float64)
    if rows.ndim != 1 or (groups is not None and len(groups) != len(rows)):
        came = f"values {rows.shape}" + ("" if groups is None else f" and {len(groups)} groups")
        raise StudyError(
            f"one value and one group per row are expected; came {came}. Pass two equal columns."
        )
    if np.isinf(rows).any():
        raise StudyError(
            f"values must be finite or NaN; came {int(np.isinf(rows).sum())} infinite of {len(rows)}. "
            "Mark what is undefined as NaN: it is dropped and counted."
        )
    if groups is None:
        return rows, np.arange(len(rows))
    codes = pd.factorize(pd.Series(groups, dtype=object))[0].astype(np.int64)
    missing = codes < 0
    codes[missing] = codes.max(initial=-1) + 1 + np.arange(missing.sum())
    return rows, codes


def _totals(
    rows: Float[np.ndarray, " row"], codes: Int[np.ndarray, " row"]
) -> tuple[Float[np.ndarray, " group"], Int[np.ndarray, " group"]]:
    """Sum and count of each group, ordered by value so that the order of rows cannot matter."""
    _, compact, counts = np.unique(codes, return_inverse=True, return_counts=True)
    order = np.lexsort((rows, compact))
    sums = np.bincount(compact[order], weights=rows[order], minlength=len(counts)).astype(np.float64)
    by_value = np.lexsort((sums, counts))
    return sums[by_value], counts[by_value]


def _resampled_means(
    sums: Float[np.ndarray, " group"], counts: Int[np.ndarray, " group"], n: int, rng: np.random.Generator
) -> Float[np.ndarray, " resampling"]:
    """Means of n draws of as many groups as there are, with replacement."""
    step = max(1, CHUNK // len(sums))
    means = []
    for start in range(0, n, step):
        drawn = rng.integers(0, len(sums), size=(min(step, n - start), len(sums)))
        means.append(sums[drawn].sum(axis=1) / counts[drawn].sum(axis=1))
    return np.concatenate(means)
