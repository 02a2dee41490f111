"""Domains compared within strata of box size."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from jaxtyping import Float

from interp.errors import StudyError
from interp.stats import Interval, population_note
from interp.study.areas import raw_difference, span, two_domains
from interp.study.frames import where

if TYPE_CHECKING:
    from interp.study.choice import LayerChoice
    from interp.study.result import Result

__all__ = ["Stratified", "stratified"]

N_STRATA = 5


@dataclass(frozen=True)
class Stratified:
    """Two domains compared within strata of box size.

    Attributes:
        names: The two domains; differences are the first minus the second.
        raw: The difference over everything, with its interval over groups.
        difference: The mean of the strata's differences, weighted by `weight`, with its interval over groups.
        strata: One row per stratum: `low`, `high` (sizes, upper end included), `n_a`, `n_b`, `n_groups_a`,
            `n_groups_b`, `mean_a`, `mean_b`, `difference`, `low_ci`, `high_ci`, `imbalance` (mean log size,
            first minus second: what is left within the stratum), `weight` (0 where a domain is absent).
        dropped: How many samples of each domain lie in strata that the other domain lacks.
    """

    names: tuple[str, str]
    raw: Interval
    difference: Interval
    strata: pd.DataFrame
    dropped: tuple[int, int]

    @property
    def sentence(self) -> str:
        """What was compared, what was lost, and what may be claimed."""
        a, b = self.names
        used = int((self.strata.weight > 0).sum())
        return (
            f"{used} of {len(self.strata)} strata of box size hold both; {self.dropped[0]} samples of {a} and "
            f"{self.dropped[1]} of {b} lie in the others. {population_note(self.difference.n_groups)}"
        ).strip()


def stratified(
    found: Result | pd.DataFrame,
    *,
    metric: str = "kl",
    layer: int | LayerChoice | None = None,
    over: str = "data",
    names: tuple[str, str] | None = None,
    by: str = "area",
    n_strata: int = N_STRATA,
    level: float = 0.95,
    n: int = 2000,
    seed: int = 0,
) -> Stratified:
    """Two domains compared within strata of box size, cut at common quantiles of both domains together.

    Each domain counts the same in the quantiles, however many samples it has. The overall difference is
    Σ_s w_s (mean_a,s − mean_b,s) / Σ_s w_s with w_s = 2 n_a n_b / (n_a + n_b), over the strata both domains
    have; each domain's groups are resampled for its interval. Within a stratum sizes still differ:
    `imbalance` says by how much. Narrow strata leave less, `matched` the least.

    Args:
        found: As in `matched`, and so are `metric`, `layer`, `over`, `names` and `by`.
        metric: Of a result: which metric.
        layer: Of a result: a layer, or a choice made on other samples.
        over: The column that names the domain.
        names: Which two domains; not needed when there are two.
        by: What to stratify by, a positive column.
        n_strata: How many strata; equal sizes are never split, so there may be fewer.
        level: Coverage of the intervals.
        n: Resamplings.
        seed: Of the bootstrap.

    Raises:
        StudyError: As `matched`, and when no stratum holds both domains.
    """
    if n_strata < 1:
        raise StudyError(f"n_strata is a whole number ≥ 1; got {n_strata}.")
    sides, chosen, _ = two_domains(found, metric, layer, over, names, by)
    edges = _edges(sides[0].size_log.to_numpy(), sides[1].size_log.to_numpy(), n_strata)
    first, second = (side.assign(stratum=np.searchsorted(edges[1:-1], side.size_log)) for side in sides)
    strata = pd.DataFrame([_stratum(first, second, edges, s, level, n, seed) for s in range(len(edges) - 1)])
    used = np.flatnonzero(strata.weight > 0)
    if not len(used):
        raise StudyError(
            f"no stratum of box size holds both {chosen[0]} ({span(first)}) and {chosen[1]} "
            f"({span(second)}). Ask for fewer strata or choose other samples."
        )
    kept = [where(side, side.stratum.isin(used)) for side in (first, second)]
    return Stratified(
        chosen,
        raw_difference(sides, level, seed, n),
        _weighted(kept[0], kept[1], strata.weight.to_numpy(), level, n, seed),
        strata,
        (len(first) - len(kept[0]), len(second) - len(kept[1])),
    )


def _edges(a: np.ndarray, b: np.ndarray, n_strata: int) -> Float[np.ndarray, " edge"]:
    """Quantiles of both together, each domain weighing the same; ends are infinite, edges distinct."""
    values = np.concatenate([a, b])
    weights = np.concatenate([np.full(len(a), 1 / len(a)), np.full(len(b), 1 / len(b))])
    order = np.argsort(values, kind="stable")
    reached = np.cumsum(weights[order]) / 2
    wanted = np.arange(1, n_strata) / n_strata
    inner = np.unique(values[order][np.searchsorted(reached, wanted - 1e-12)])
    inner = inner[inner < values.max()]
    return np.concatenate([[-np.inf], inner, [np.inf]])


def _stratum(
    first: pd.DataFrame, second: pd.DataFrame, edges: np.ndarray, s: int, level: float, n: int, seed: int
) -> dict[str, float]:
    a, b = where(first, first.stratum == s), where(second, second.stratum == s)
    gap = raw_difference((a, b), level, seed, n)
    return {
        "low": float(np.exp(edges[s])),
        "high": float(np.exp(edges[s + 1])),
        "n_a": len(a),
        "n_b": len(b),
        "n_groups_a": a.group.nunique(dropna=False),
        "n_groups_b": b.group.nunique(dropna=False),
        "mean_a": a.value.mean(),
        "mean_b": b.value.mean(),
        "difference": gap.mean,
        "low_ci": gap.low,
        "high_ci": gap.high,
        "imbalance": a.size_log.mean() - b.size_log.mean(),
        "weight": 2 * len(a) * len(b) / (len(a) + len(b)) if len(a) and len(b) else 0.0,
    }


def _weighted(
    first: pd.DataFrame, second: pd.DataFrame, weights: np.ndarray, level: float, n: int, seed: int
) -> Interval:
    """The weighted mean of the strata's differences; each domain's groups are resampled."""
    sides = [_sums(side, len(weights)) for side in (first, second)]
    rng = np.random.default_rng(seed)
    everyone = [np.arange(len(sums))[None] for sums, _ in sides]
    value = float(_combined(sides, everyone, weights)[0])
    n_groups = min(len(sums) for sums, _ in sides)
    low, high = np.nan, np.nan
    if n_groups > 1:
        draws = [rng.integers(0, len(sums), size=(n, len(sums))) for sums, _ in sides]
        found = _combined(sides, draws, weights)
        low, high = np.nanquantile(found, [(1 - level) / 2, (1 + level) / 2])
    return Interval(value, float(low), float(high), len(first) + len(second), n_groups)


def _sums(
    side: pd.DataFrame, n_strata: int
) -> tuple[Float[np.ndarray, "group stratum"], Float[np.ndarray, "group stratum"]]:
    """Sum and count of each group in each stratum."""
    codes = pd.factorize(side.group.astype(object), use_na_sentinel=False)[0]
    shape = (int(codes.max()) + 1, n_strata)
    flat = np.ravel_multi_index((codes, side.stratum.to_numpy()), shape)
    sums = np.bincount(flat, weights=side.value, minlength=shape[0] * shape[1])
    counts = np.bincount(flat, minlength=shape[0] * shape[1]).astype(float)
    return sums.reshape(shape), counts.reshape(shape)


def _combined(
    sides: Sequence[tuple[np.ndarray, np.ndarray]], draws: Sequence[np.ndarray], weights: np.ndarray
) -> Float[np.ndarray, " resampling"]:
    """For each draw of groups the weighted difference, over the strata that both domains drew."""
    means = []
    for (sums, counts), drawn in zip(sides, draws, strict=True):
        times = np.stack([np.bincount(row, minlength=len(sums)) for row in drawn])
        with np.errstate(invalid="ignore"):
            means.append((times @ sums) / (times @ counts))
    gap = means[0] - means[1]
    there = np.isfinite(gap) * weights
    with np.errstate(invalid="ignore"):
        return (np.where(there > 0, gap, 0.0) * there).sum(axis=1) / there.sum(axis=1)
