"""Domains compared at like box sizes, because size alone can make a model seem to look worse at one of them.

A map that attends everywhere alike scores KL = ln(N / |B|): 0.65 when the box covers 300 of 576 tokens, 4.97
when it covers 4. `matched` pairs each sample of one domain with one of the other whose boxes cover nearly the
same share of the tokens; `interp.study.size_matching` compares within strata of that share.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from jaxtyping import Float, Int
from scipy.stats import wasserstein_distance

from interp.errors import StudyError
from interp.inputs.text import count
from interp.stats import Interval, population_note, two_way, unpaired
from interp.study.dataframes import where
from interp.study.layer_choice import LayerChoice, check_metric, layers_of
from interp.study.result import GridResult

__all__ = [
    "Matched",
    "Stratified",
    "area_frame",
    "matched",
    "raw_difference",
    "shown_groups",
    "span",
    "stratified",
    "two_domains",
]

CALIPER = 0.1
Sides = tuple[pd.DataFrame, pd.DataFrame]


@dataclass(frozen=True)
class Matched:
    """Two domains at like box sizes.

    Attributes:
        names: The two domains; differences are the first minus the second.
        raw: The difference before matching, with its interval over groups.
        difference: The mean difference of the pairs, with an interval over the groups of both sides.
        pairs: One row per pair: `sample_a`, `sample_b`, `group_a`, `group_b`, `size_a`, `size_b`, `value_a`,
            `value_b`. Groups of a result are named as `Samples.group_names` shows them; those of a frame stay.
        dropped: How many samples of each domain found no partner within the caliper.
        undefined: How many samples of each domain had no value or no size, and were left out before.
        imbalance_before: Mean of the log sizes, first minus second, before matching: the uniform map's own
            difference in KL, with its sign changed.
        imbalance: The mean of the log sizes, first minus second, among the pairs.
        distance_before: How far apart the two distributions of log sizes were: their Wasserstein distance,
            the mean |log ratio| it takes to move one onto the other.
        distance: The Wasserstein distance of the log sizes among the pairs.
        worst: The largest |log size ratio| of a pair, at most the caliper.
    """

    names: tuple[str, str]
    raw: Interval
    difference: Interval
    pairs: pd.DataFrame
    dropped: tuple[int, int]
    undefined: tuple[int, int]
    imbalance_before: float
    imbalance: float
    distance_before: float
    distance: float
    worst: float

    @property
    def sentence(self) -> str:
        """What was compared, what was lost, and what may be claimed."""
        a, b = self.names
        return (
            f"{count(len(self.pairs), 'pair')} of like box size; without a partner: {self.dropped[0]} of "
            f"{a} and {self.dropped[1]} of {b}. Boxes of {a} were {np.exp(self.imbalance_before):.2f} times as large "
            f"as those of {b}, and are {np.exp(self.imbalance):.2f} times as large in the pairs (distance of the log "
            f"sizes {self.distance_before:.2f}, now {self.distance:.2f}). {population_note(self.difference.n_groups)}"
        ).strip()


def area_frame(result: GridResult, metric: str, layer: int | LayerChoice) -> pd.DataFrame:
    """The scores of one metric and layer against the samples' own boxes, with the boxes' size.

    Columns of the axes, `sample`, `group`, `value`, `n_box_tokens`, `n_tokens` and `area`, the share of the
    image's tokens that the boxes cover, in [0, 1]. This is the frame that `matched` and `stratified` read.

    Raises:
        StudyError: A metric or layer that was not measured.
    """
    check_metric(result, metric)
    parts, layers = [], layers_of(result, layer)
    for cell in result.cells:
        scores = cell.frame("scores")
        here = (scores.layer == layers[cell.labels["model"]]) & (scores.metric == metric)
        own = where(scores, here & (scores.control == "boxes"))
        columns = ["index", "sample", "group", "n_box_tokens", "n_tokens"]
        parts.append(own.merge(cell.frame("samples")[columns], on="index"))
    frame = pd.concat(parts, ignore_index=True)
    frame["area"] = frame.n_box_tokens / frame.n_tokens
    kept = [*result.axes, "index", "sample", "group", "value", "n_box_tokens", "n_tokens", "area"]
    return frame.reindex(columns=kept)


def matched(
    found: GridResult | pd.DataFrame,
    *,
    metric: str = "kl",
    layer: int | LayerChoice | None = None,
    over: str = "data",
    names: tuple[str, str] | None = None,
    by: str = "area",
    caliper: float = CALIPER,
    level: float = 0.95,
    seed: int = 0,
) -> Matched:
    """Two domains compared on pairs of samples whose boxes are of like size.

    In random order, each sample of the smaller domain takes the nearest sample of the other not yet taken, by
    |ln size ratio|, if that is within the caliper; ties are broken at random. Matched on the log of the size
    a uniform map's KL differs by at most the caliper within a pair. The interval allows for groups on both
    sides (`interp.stats.two_way`).

    Args:
        found: A result, or a frame with the columns `over`, `group`, `value` and `by` (see `area_frame`).
        metric: The metric, where `found` is a result.
        layer: The layer, or a choice made on other samples, where `found` is a result.
        over: The column that names the domain.
        names: The two domains to compare; not needed when there are two.
        by: The positive column to match on: "area" (share of tokens) or "n_box_tokens".
        caliper: The largest |ln size ratio| of a pair; 0.1 is 10 %.
        level: Coverage of the intervals.
        seed: The seed of the order, the ties and the bootstrap.

    Raises:
        StudyError: Not two domains, several cells in one domain, an unknown column, sizes below zero, a
            caliper below zero, or no pair within it.
    """
    if not caliper >= 0:
        raise StudyError(f"a caliper is a log ratio ≥ 0, such as 0.1 for 10 %; got {caliper!r}.")
    sides, chosen, undefined = two_domains(found, metric, layer, over, names, by)
    first, second = sides
    ours, theirs = _nearest(first.size_log, second.size_log, caliper, np.random.default_rng(seed))
    if not len(ours):
        raise StudyError(
            f"no sample of {chosen[0]} has boxes within {caliper:g} (log ratio) of one of {chosen[1]}: "
            f"{span(first)} against {span(second)}. Their sizes do not overlap; widen the caliper or choose "
            f"other samples."
        )
    a, b = first.iloc[ours].reset_index(drop=True), second.iloc[theirs].reset_index(drop=True)
    gap = a.size_log - b.size_log
    return Matched(
        chosen,
        raw_difference(sides, level, seed),
        two_way(a.value - b.value, a.group, b.group, level=level),
        _pairs(a, b, {} if isinstance(found, pd.DataFrame) else shown_groups(found)),
        (len(first) - len(ours), len(second) - len(theirs)),
        undefined,
        float(first.size_log.mean() - second.size_log.mean()),
        float(gap.mean()),
        wasserstein_distance(first.size_log, second.size_log),
        wasserstein_distance(a.size_log, b.size_log),
        float(gap.abs().max()),
    )


def two_domains(
    found: GridResult | pd.DataFrame,
    metric: str,
    layer: int | LayerChoice | None,
    over: str,
    names: tuple[str, str] | None,
    by: str,
) -> tuple[Sides, tuple[str, str], tuple[int, int]]:
    """The two domains' rows that have a value and a size, their names, and how many rows had neither.

    Each side has the columns `sample`, `group`, `value`, `size` and `size_log`.

    Raises:
        StudyError: As `matched`, but for the caliper.
    """
    frame = _framed(found, metric, layer)
    lacking = [name for name in (over, "group", "value", by) if name not in frame.columns]
    if lacking:
        raise StudyError(
            f"the columns {lacking} are needed; the frame has {list(frame.columns)}. "
            "interp.study.area_frame(result, metric, layer) makes such a frame."
        )
    labels = frame[over].astype(str)
    there = tuple(labels.unique())
    chosen = there if names is None else names
    if len(set(chosen)) != 2 or not set(chosen) <= set(there):
        raise StudyError(
            f"two of the labels of {over} are compared; there are {', '.join(there)}, got {names}. Pass "
            f'names=("one", "another").'
        )
    sides = [where(frame, labels == name) for name in chosen]
    for name, side in zip(chosen, sides, strict=True):
        _check_one_cell(name, side)
    first, second = (_defined(side, by) for side in sides)
    if first.empty or second.empty:
        none = " and ".join(name for name, side in zip(chosen, (first, second), strict=True) if side.empty)
        raise StudyError(
            f"{' and '.join(chosen)} need values and sizes to be compared; {none} has none. Choose samples whose "
            f"metric is defined and which have a finite {by}."
        )
    undefined = (len(sides[0]) - len(first), len(sides[1]) - len(second))
    return (first, second), (chosen[0], chosen[1]), undefined


def raw_difference(sides: Sides, level: float, seed: int, n: int = 2000) -> Interval:
    """The difference of two domains as they are, with its interval over groups."""
    a, b = sides
    return unpaired(a.value, b.value, a.group, b.group, n=n, level=level, seed=seed)


def span(side: pd.DataFrame) -> str:
    """The smallest and the largest size."""
    return f"{side['size'].min():.3g} to {side['size'].max():.3g}"


def _framed(found: GridResult | pd.DataFrame, metric: str, layer: int | LayerChoice | None) -> pd.DataFrame:
    if isinstance(found, pd.DataFrame):
        return found
    if layer is None:
        raise StudyError("a result is compared at one layer: pass layer=, a number or a choice.")
    return area_frame(found, metric, layer)


def _check_one_cell(name: str, side: pd.DataFrame) -> None:
    """Refuse a domain in which a sample stands several times, once per model or parameter."""
    key = next((column for column in ("index", "sample") if column in side.columns), None)
    if key is not None and side[key].duplicated().any():
        raise StudyError(
            f"{name} holds samples several times: several cells are in it. Compare one at a time, by filtering "
            f'area_frame(result, metric, layer), as in frame[frame.model == "…"].'
        )


def _defined(side: pd.DataFrame, by: str) -> pd.DataFrame:
    sizes = side[by].to_numpy(float)
    if (sizes < 0).any():
        raise StudyError(f"{by} is a size, so not below 0; got {np.nanmin(sizes):g}.")
    kept = np.isfinite(side.value.to_numpy(float)) & (sizes > 0)
    names = side["sample"] if "sample" in side.columns else side.index.astype(str)
    columns = {"sample": names, "group": side.group, "value": side.value.astype(float)}
    rest = where(pd.DataFrame({**columns, "size": sizes}), kept).reset_index(drop=True)
    return rest.assign(size_log=np.log(rest["size"]))


def _nearest(
    a: pd.Series, b: pd.Series, caliper: float, rng: np.random.Generator
) -> tuple[Int[np.ndarray, " pair"], Int[np.ndarray, " pair"]]:
    """Positions in `a` and in `b` of greedily matched pairs, none used twice."""
    ours, theirs = a.to_numpy(), b.to_numpy()
    swapped = len(ours) > len(theirs)
    few, many = (theirs, ours) if swapped else (ours, theirs)
    shuffled = rng.permutation(len(many))  # so that ties go to a random one
    free = many[shuffled].astype(float)
    pairs = []
    for place in rng.permutation(len(few)):
        distances = np.abs(free - few[place])
        best = int(np.argmin(distances))
        if distances[best] <= caliper + 1e-12:
            pairs.append((place, shuffled[best]))
            free[best] = np.inf
    found = np.array(pairs, dtype=np.int64).reshape(-1, 2)
    return (found[:, 1], found[:, 0]) if swapped else (found[:, 0], found[:, 1])


def shown_groups(result: GridResult) -> dict[str, str]:
    """Group → how frames show it, for the groups of all samples of a result; see `Samples.group_names`."""
    return {group: name for cell in result.cells for group, name in cell.study.data.group_names.items()}


def _pairs(a: pd.DataFrame, b: pd.DataFrame, names: Mapping[str, str]) -> pd.DataFrame:
    sides = [("a", a), ("b", b)]
    sides = [(side, part.assign(group=[names.get(one, one) for one in part.group])) for side, part in sides]
    columns = ("sample", "group", "size", "value")
    return pd.DataFrame({f"{name}_{side}": part[name] for name in columns for side, part in sides})


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
            f"Strata of box size that hold samples of both: {used} of {len(self.strata)}. Samples in the others: "
            f"{self.dropped[0]} of {a} and {self.dropped[1]} of {b}. {population_note(self.difference.n_groups)}"
        ).strip()


def stratified(
    found: GridResult | pd.DataFrame,
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
        found: A result, or a frame with the columns `over`, `group`, `value` and `by` (see `area_frame`).
        metric: The metric, where `found` is a result.
        layer: The layer, or a choice made on other samples, where `found` is a result.
        over: The column that names the domain.
        names: The two domains to compare; not needed when there are two.
        by: The positive column to stratify by.
        n_strata: The number of strata; equal sizes are never split, so there may be fewer.
        level: The coverage of the intervals.
        n: The number of resamplings.
        seed: The seed of the bootstrap.

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
    """Quantiles of both domains together, each with the same weight; the end edges are infinite, all are distinct."""
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
