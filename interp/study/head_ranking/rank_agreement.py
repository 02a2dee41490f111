"""Do two data sets rank a model's heads alike? Rank correlation, overlap of the top k, and their ceiling.

Noise lowers both measures: two rankings of a few samples differ even where the heads are equally good on both data
sets. Resampled rankings are noisier still, so their percentiles are too low: in simulations with 784 heads, 20 or 60
groups and a true correlation of 0.9, a percentile interval of the rank correlation never held the correlation expected
of so many groups. So an interval here is estimate ± z · s, with s the standard deviation over the resamplings (for the
rank correlation on Fisher's z scale). It describes rankings from this number of groups. Over true correlations of 0,
0.5, 0.9 and three levels of noise it held their expected correlation in 88 to 100 % and their expected overlap in 82 to
98 % of cases, at a nominal 95 %. The correlation of rankings without noise is the correlation divided by its ceiling;
its interval held in 84 to 100 %.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float
from scipy import stats

from interp.errors import StudyError
from interp.stats import MIN_GROUPS, population_note
from interp.study.head_ranking.result import HeadMeans, draws, goodness

if TYPE_CHECKING:
    from interp.study.head_ranking.result import HeadResult

__all__ = ["Agreement", "Estimate", "Reliability", "expected_overlap", "head_agreement", "rank_correlation"]

Good = Float[np.ndarray, "draw pair"]
Resampled = tuple[Float[np.ndarray, "resampling pair"], Float[np.ndarray, "resampling pair"]] | None


@dataclass(frozen=True)
class Estimate:
    """A number and its interval; the ends are NaN where there is no interval."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Reliability:
    """How well one data set agrees with itself: means over random halves of its groups.

    Attributes:
        half: Rank correlation between the rankings of two halves, in [−1, 1].
        full: Rank correlation corrected to the full size by Spearman and Brown: 2r / (1 + r).
        overlap: Overlap of the top k of two halves, in [0, 1].
        n_groups: The number of groups in all.
    """

    half: float
    full: float
    overlap: float
    n_groups: int


@dataclass(frozen=True)
class Agreement:
    """How similarly two results rank the same heads.

    Attributes:
        labels: The names of the two results.
        metric: The short name of the metric that ranks.
        k: The number of top heads.
        n_heads: The number of heads that both rank.
        n_dropped: The number of heads that one of them cannot rank; they are left out of everything.
        spearman: Spearman's rank correlation over heads, in [−1, 1].
        overlap: |A ∩ B| / k of the two top k, in [0, 1]; heads tied at the cut share the remaining places.
        chance: The overlap expected of random rankings, k / n_heads.
        reliability: The agreement of each data set with itself.
        ceiling: √(full · full) of the two: the correlation expected if the rankings differed by noise alone.
        corrected: `spearman` divided by the ceiling: the correlation without noise; unstable for a ceiling below ½.
        per_group: For a data set with fewer than 20 groups, the agreement of each group's own ranking with the whole
            other data set: columns data, group, n, spearman, overlap. Empty otherwise.
        note: A sentence where there are too few groups for meaningful intervals; empty otherwise.
    """

    labels: tuple[str, str]
    metric: str
    k: int
    n_heads: int
    n_dropped: int
    spearman: Estimate
    overlap: Estimate
    chance: float
    reliability: tuple[Reliability, Reliability]
    ceiling: float
    corrected: Estimate
    per_group: pd.DataFrame
    note: str

    def sentences(self) -> tuple[str, ...]:
        """The findings in sentences, for a terminal or a caption."""
        a, b = self.labels
        first = f"{a} and {b}, {self.n_heads} heads by {self.metric}: rank correlation {self._said(self.spearman)}"
        top = (
            f"Top {self.k}: overlap {self._said(self.overlap)}; by chance {self.chance:.2f}. Halves of one data "
            f"set overlap by {self.reliability[0].overlap:.2f} ({a}) and {self.reliability[1].overlap:.2f} ({b})."
        )
        ceiling = (
            f"Split-half reliability {self.reliability[0].full:.2f} ({a}) and {self.reliability[1].full:.2f} "
            f"({b}), so noise alone allows {self.ceiling:.2f}; corrected for it: {self._said(self.corrected)}."
        )
        return (f"{first}.", top, ceiling, *((self.note,) if self.note else ()))

    def _said(self, found: Estimate) -> str:
        few = self.note or np.isnan(found.low)
        return f"{found.value:.2f}" + ("" if few else f" [{found.low:.2f}, {found.high:.2f}]")


def head_agreement(
    a: HeadResult,
    b: HeadResult,
    k: int = 20,
    *,
    n: int = 2000,
    splits: int = 100,
    level: float = 0.95,
    seed: int = 0,
) -> Agreement:
    """How similarly two data sets rank a model's heads, with intervals by bootstrap over the groups of both.

    Each resampling draws groups of both data sets and ranks all heads again. Groups in both data sets are drawn
    together.

    Args:
        a: The first result.
        b: The second result, by the same metric over the same heads.
        k: The number of top heads.
        n: The number of resamplings.
        splits: The number of random halves per data set, for the reliability.
        level: Coverage of the intervals.
        seed: The seed of resamplings and halves.

    Raises:
        StudyError: The results differ in metric or heads, or `k`, `n`, `splits` or `level` is out of range.

    Source: arXiv 2603.14323, Fig. D.1; intervals, chance and ceiling are ours.
    """
    first, second, dropped = _common(a, b)
    n_heads = len(first.heads)
    _check(k, n_heads, n, splits, level)
    rng = np.random.default_rng(seed)
    resampled = _resampled(first, second, a.study.metric, n, rng)
    whole = [goodness(means.mean(), a.study.metric) for means in (first, second)]
    reliability = tuple(_reliability(means, a.study.metric, k, splits, rng) for means in (first, second))
    few = min(len(first.groups), len(second.groups))
    spearman = _estimate(rank_correlation, whole, resampled, level, link=_fisher(n_heads), back=np.tanh)
    overlap = _estimate(lambda x, y: expected_overlap(x, y, k), whole, resampled, level)
    ceiling = float(np.sqrt(max(reliability[0].full, 0.0) * max(reliability[1].full, 0.0)))
    labels = _labels(a, b)
    return Agreement(
        labels=labels,
        metric=a.study.metric,
        k=k,
        n_heads=n_heads,
        n_dropped=dropped,
        spearman=spearman,
        overlap=_clipped(overlap, 0.0),
        chance=k / n_heads,
        reliability=(reliability[0], reliability[1]),
        ceiling=ceiling,
        corrected=_over(spearman, ceiling),
        per_group=_per_group(labels, (first, second), a.study.metric, k),
        note=population_note(few),
    )


def rank_correlation(a: Good, b: Good) -> Float[np.ndarray, " draw"]:
    """Spearman's rank correlation of each row of `a` with the same row of `b`; NaN where all of a row ties.

    Ties have their mean rank, as in `scipy.stats.spearmanr`.
    """
    ranks = [stats.rankdata(rows, axis=1) for rows in (a, b)]
    first, second = (rows - rows.mean(axis=1, keepdims=True) for rows in ranks)
    scale = np.sqrt((first**2).sum(axis=1) * (second**2).sum(axis=1))
    product = (first * second).sum(axis=1)
    return np.divide(product, scale, out=np.full(len(scale), np.nan), where=scale > 0)


def expected_overlap(a: Good, b: Good, k: int) -> Float[np.ndarray, " draw"]:
    """|A ∩ B| / k of the k largest of each row of `a` and `b`, in [0, 1].

    Heads tied at the cut share the remaining places: it is the expected overlap when each data set breaks its ties at
    random, so ties broken by number cannot fake agreement.
    """
    return (_membership(a, k) * _membership(b, k)).sum(axis=1) / k


def _membership(good: Good, k: int) -> Good:
    """The probability that each head is among the k best of its row, with ties broken at random."""
    cut = -np.partition(-good, k - 1, axis=1)[:, k - 1 : k]
    above, tied = good > cut, good == cut
    share = (k - above.sum(axis=1, keepdims=True)) / tied.sum(axis=1, keepdims=True)
    return above + share * tied


def _common(a: HeadResult, b: HeadResult) -> tuple[HeadMeans, HeadMeans, int]:
    """The means of the heads that both results rank, and the number of heads that one of them does not rank."""
    if a.study.metric != b.study.metric:
        raise StudyError(
            f"rankings are compared by one metric; got {a.study.metric!r} and {b.study.metric!r}. Run both with one."
        )
    first, second = a.means, b.means
    if first.heads != second.heads:
        raise StudyError(
            f"rankings are compared over the same heads; got {len(first.heads)} of {a.study.label} and "
            f"{len(second.heads)} of {b.study.label}. Use one model and one choice of layers."
        )
    ranked: Bool[np.ndarray, " pair"] = ~np.isnan(first.mean()[0]) & ~np.isnan(second.mean()[0])
    return first.only(ranked), second.only(ranked), int((~ranked).sum())


def _check(k: int, n_heads: int, n: int, splits: int, level: float) -> None:
    if not 1 <= k < n_heads:
        raise StudyError(f"k is below the {n_heads} heads that both results rank, and ≥ 1; got {k}.")
    if n < 1 or splits < 1 or not 0 < level < 1:
        raise StudyError(
            f"expected n ≥ 1, splits ≥ 1 and a level between 0 and 1; got n={n}, splits={splits}, level={level}."
        )


def _resampled(a: HeadMeans, b: HeadMeans, metric: str, n: int, rng: np.random.Generator) -> Resampled:
    """Both rankings on n draws of groups; None where a data set has only one group."""
    if min(len(a.groups), len(b.groups)) < 2:
        return None
    weights = [np.zeros((n, len(means.groups))) for means in (a, b)]
    shared = set(a.groups) & set(b.groups)
    for names in (set(a.groups) - shared, shared, set(b.groups) - shared):
        if names:
            drawn = dict(zip(sorted(names), draws(len(names), n, rng).T, strict=True))
            for means, own in zip((a, b), weights, strict=True):
                for place, group in enumerate(means.groups):
                    if group in drawn:
                        own[:, place] = drawn[group]
    return goodness(a.mean(weights[0]), metric), goodness(b.mean(weights[1]), metric)


def _estimate(
    measure: Callable[[Good, Good], np.ndarray],
    whole: list[Good],
    resampled: Resampled,
    level: float,
    *,
    link: Callable[[np.ndarray], np.ndarray] = np.asarray,
    back: Callable[[np.ndarray], np.ndarray] = np.asarray,
) -> Estimate:
    """The measure with the interval measure ± z · s on the scale of `link`."""
    value = measure(whole[0], whole[1])
    if resampled is None or np.isnan(value[0]):
        return Estimate(float(value[0]), np.nan, np.nan)
    found = link(measure(*resampled))
    half = stats.norm.ppf((1 + level) / 2) * np.nanstd(found, ddof=1 if len(found) > 1 else 0)
    low, high = back(link(value) + np.array([-half, half]))
    return Estimate(float(value[0]), float(min(low, value[0])), float(max(high, value[0])))


def _fisher(n_heads: int) -> Callable[[np.ndarray], np.ndarray]:
    """Fisher's z, with a correlation of ±1 moved inwards by half the smallest step of n ranks, 12 / (n³ − n).

    At ±1 itself z is infinite, and the interval would have no width, however much the resamplings differ.
    """
    end = max(1 - 6 / (n_heads**3 - n_heads), 0.0) if n_heads > 1 else 0.0
    return lambda correlation: np.arctanh(np.clip(correlation, -end, end))


def _clipped(found: Estimate, least: float) -> Estimate:
    return Estimate(*(float(np.clip(value, least, 1.0)) for value in (found.value, found.low, found.high)))


def _over(found: Estimate, ceiling: float) -> Estimate:
    if ceiling == 0 or np.isnan(ceiling):
        return Estimate(np.nan, np.nan, np.nan)
    return _clipped(Estimate(found.value / ceiling, found.low / ceiling, found.high / ceiling), -1.0)


def _reliability(means: HeadMeans, metric: str, k: int, splits: int, rng: np.random.Generator) -> Reliability:
    n_groups = len(means.groups)
    if n_groups < 2:
        return Reliability(np.nan, np.nan, np.nan, n_groups)
    half = np.stack([rng.permutation(n_groups) < n_groups // 2 for _ in range(splits)]).astype(np.float64)
    first, second = (goodness(means.mean(weights), metric) for weights in (half, 1 - half))
    found = rank_correlation(first, second)
    r = float(found[~np.isnan(found)].mean()) if not np.isnan(found).all() else np.nan
    return Reliability(r, 2 * r / (1 + r), float(expected_overlap(first, second, k).mean()), n_groups)


def _per_group(
    labels: tuple[str, str], both: tuple[HeadMeans, HeadMeans], metric: str, k: int
) -> pd.DataFrame:
    """The agreement of each group of a small data set with the whole other data set."""
    rows = []
    for label, means, other in zip(labels, both, both[::-1], strict=True):
        n_groups = len(means.groups)
        if n_groups >= MIN_GROUPS:
            continue
        own = goodness(means.mean(np.eye(n_groups)), metric)
        whole = np.repeat(goodness(other.mean(), metric), n_groups, axis=0)
        columns = (means.groups, means.counts.max(axis=1), rank_correlation(own, whole))
        for group, n, r, top in zip(*columns, expected_overlap(own, whole, k), strict=True):
            rows.append({"data": label, "group": group, "n": int(n), "spearman": r, "overlap": top})
    return pd.DataFrame(rows, columns=["data", "group", "n", "spearman", "overlap"])


def _labels(a: HeadResult, b: HeadResult) -> tuple[str, str]:
    one, two = (found.name or found.study.data.name for found in (a, b))
    return (one, two) if one != two else (a.study.label, b.study.label)
