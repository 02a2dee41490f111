"""How often 95 % intervals over few groups hold the true mean: percentile bootstrap, BCa and Student's t.

    python benchmarks/coverage.py [--draws 2000]

Each data set has `g` groups of 1 to 8 rows. A row is its group's effect plus noise of half its size; effects are
normal or skewed (exponential), both with mean 0 and standard deviation 1. The numbers are the share of data sets
whose interval holds 0, and the mean width of the interval; "none" counts data sets for which a method gives no
interval. Methods:

- percentile: `interp.stats.bootstrap`, which resamples groups and takes the mean of all their rows.
- BCa, means: `scipy.stats.bootstrap` of the groups' means, each group counting the same.
- BCa, rows: `scipy.stats.bootstrap` of the ratio of sums, the same estimate as the percentile's.
- t, means: the groups' means ± Student's t times their standard error.
"""

from __future__ import annotations

import argparse
import warnings
from collections.abc import Callable

import numpy as np
import scipy.stats

from interp.stats import bootstrap

GROUPS = (5, 8, 12, 20, 40)
SHAPES: dict[str, Callable[[np.random.Generator, int], np.ndarray]] = {
    "normal": lambda rng, n: rng.standard_normal(n),
    "skewed": lambda rng, n: rng.exponential(size=n) - 1,
}
LEVEL = 0.95
Ends = tuple[float, float]


def data_set(shape: str, n_groups: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Values and group numbers of one data set."""
    groups = np.repeat(np.arange(n_groups), rng.integers(1, 9, n_groups))
    return SHAPES[shape](rng, n_groups)[groups] + 0.5 * rng.standard_normal(len(groups)), groups


def intervals(values: np.ndarray, groups: np.ndarray, n: int, seed: int) -> dict[str, Ends]:
    """Each method's interval of the mean."""
    sums, counts = np.bincount(groups, weights=values), np.bincount(groups)
    means = sums / counts
    own = bootstrap(values, groups, n=n, level=LEVEL, seed=seed)
    half = scipy.stats.t.ppf((1 + LEVEL) / 2, len(means) - 1) * means.std(ddof=1) / np.sqrt(len(means))
    return {
        "percentile": (own.low, own.high),
        "BCa, means": _bca((means,), np.mean, n, seed),
        "BCa, rows": _bca((sums, counts), _ratio, n, seed),
        "t, means": (means.mean() - half, means.mean() + half),
    }


def _ratio(sums: np.ndarray, counts: np.ndarray, axis: int = -1) -> np.ndarray:
    return sums.sum(axis=axis) / counts.sum(axis=axis)


def _bca(columns: tuple[np.ndarray, ...], statistic: Callable[..., np.ndarray], n: int, seed: int) -> Ends:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it warns and gives NaN where resamplings do not differ
        found = scipy.stats.bootstrap(
            columns,
            statistic,
            n_resamples=n,
            paired=len(columns) > 1,
            vectorized=True,
            confidence_level=LEVEL,
            method="BCa",
            rng=np.random.default_rng(seed),
        )
    return float(found.confidence_interval.low), float(found.confidence_interval.high)


def coverage(shape: str, n_groups: int, draws: int, n: int) -> dict[str, tuple[float, float, int]]:
    """Each method's coverage of the true mean, mean width, and how often it gave no interval."""
    rng = np.random.default_rng([n_groups, len(shape)])
    found: dict[str, list[Ends]] = {}
    for seed in range(draws):
        values, groups = data_set(shape, n_groups, rng)
        for name, ends in intervals(values, groups, n, seed).items():
            found.setdefault(name, []).append(ends)
    return {name: _summary(np.array(ends)) for name, ends in found.items()}


def _summary(ends: np.ndarray) -> tuple[float, float, int]:
    kept = ends[np.isfinite(ends).all(axis=1)]
    held = (kept[:, 0] <= 0) & (kept[:, 1] >= 0)
    return float(held.mean()), float((kept[:, 1] - kept[:, 0]).mean()), len(ends) - len(kept)


def main() -> None:
    """Prints a line per shape, number of groups and method."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--draws", type=int, default=2000, help="data sets of each kind")
    parser.add_argument("--resamplings", type=int, default=1000)
    options = parser.parse_args()
    print(f"{'shape':8}{'groups':>7}  {'method':12}{'covered':>9}{'width':>8}{'none':>6}")
    for shape in SHAPES:
        for n_groups in GROUPS:
            for name, found in coverage(shape, n_groups, options.draws, options.resamplings).items():
                covered, width, none = found
                print(
                    f"{shape:8}{n_groups:7}  {name:12}{100 * covered:8.1f}%{width:8.2f}{none:6}", flush=True
                )


if __name__ == "__main__":
    main()
