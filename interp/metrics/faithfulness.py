"""Does the model rely on the tokens a map points at? Deletion and insertion curves, and agreement of maps.

A map orders the image tokens. Removing the most important ones (deletion) should lower the target; keeping only those
(insertion) should not. This file has the arithmetic only. The caller removes the tokens (`interp.indicators.removals`);
results depend on the way, so compare several.

`values` are values of the target on the caller's scale (a probability, as in the sources, or nats), along the last
axis, one per fraction of the tokens; other axes broadcast.
"""

from __future__ import annotations

from collections.abc import Sequence
from numbers import Real
from typing import Any

import numpy as np
import scipy.stats
from jaxtyping import Bool, Float, Int
from numpy.typing import ArrayLike

from interp.errors import MapError
from interp.inputs.argument_checks import check_whole
from interp.metrics.numbers import real_numbers

__all__ = [
    "comprehensiveness",
    "curve_area",
    "kendall",
    "most_important",
    "normalised",
    "spearman",
    "sufficiency",
    "tokens_first",
]

LEAST = 1e-6
_VALUES = "values of the target are real numbers, (..., fraction) or (...)"
Fractions = ArrayLike | Sequence[float]


def tokens_first(map: ArrayLike, *, seed: int = 0) -> Int[np.ndarray, " token"]:
    """The tokens in order of importance, the largest value first, ties in an order drawn by `seed`.

    Without this, tied tokens, as in a coarse or clipped map, would be ordered from the top left of the image. The
    drawn order depends only on the seed and the number of tokens, so two maps break ties in the same way.

    Raises:
        MapError: Not one finite number per token; a seed that is no whole number ≥ 0.

    Example:
        >>> tokens_first([0.1, 0.7, 0.2]).tolist()
        [1, 2, 0]
    """
    values = real_numbers(map, "a map is one number per token, (token,)", MapError)
    if values.ndim != 1 or not len(values) or not np.isfinite(values).all():
        raise MapError(
            f"an order of tokens needs one finite number per token, (token,); got shape {values.shape} with "
            f"{int((~np.isfinite(values)).sum())} not finite. Choose one layer and head first."
        )
    drawn = np.random.default_rng(check_whole("seed", seed, 0, MapError)).permutation(len(values))
    return drawn[np.argsort(-values[drawn], kind="stable")]


def most_important(
    map: ArrayLike, fractions: Fractions, *, seed: int = 0
) -> Bool[np.ndarray, "fraction token"]:
    """For each fraction f a mask of the round(f·N) most important tokens, at least one for f > 0.

    Used as variants of a removal they give a deletion curve. Their complements remove all but the most important tokens
    and give an insertion curve.

    Raises:
        MapError: Not one finite number per token; a seed that is no whole number ≥ 0; fractions outside [0, 1].

    Example:
        >>> most_important([0.1, 0.7, 0.2], [0.0, 0.3, 1.0]).astype(int).tolist()
        [[0, 0, 0], [0, 1, 0], [1, 1, 1]]
    """
    order = tokens_first(map, seed=seed)
    shares = _shares(fractions)
    counts = np.where(shares > 0, np.maximum(np.floor(shares * len(order) + 0.5), 1), 0).astype(int)
    masks = np.zeros((len(shares), len(order)), bool)
    for mask, count in zip(masks, counts, strict=True):
        mask[order[:count]] = True
    return masks


def normalised(
    values: ArrayLike, untouched: ArrayLike, removed: ArrayLike, *, least: float = LEAST
) -> Float[np.ndarray, "*lead fraction"]:
    """Values on a scale from 0 (everything removed) to 1 (nothing removed): (v − removed) / (untouched − removed).

    Without this scale a map seems faithful where the removal itself has a large effect, and unfaithful where the
    answer can be guessed without the image. Values below 0 or above 1 are kept.

    Args:
        values: (..., fraction), the target's values.
        untouched: (...), the values without any removal.
        removed: (...), the values with every image token removed, by the same removal.
        least: The smallest difference to divide by, on the scale of the values.

    Returns:
        float64 (..., fraction). NaN where removing everything lowers the target by less than `least`: then there is
        nothing for a map to explain.

    Raises:
        MapError: Shapes that do not fit, or a `least` that is no number ≥ 0.

    Example:
        >>> normalised([0.9, 0.5, 0.1], 0.9, 0.1).round(2).tolist()
        [1.0, 0.5, 0.0]
    """
    curve, top, bottom = (real_numbers(given, _VALUES, MapError) for given in (values, untouched, removed))
    if isinstance(least, bool) or not isinstance(least, Real) or not 0 <= least < np.inf:
        raise MapError(f"least is a number ≥ 0; got {least!r}. The default is {LEAST}.")
    shape = curve.shape
    try:
        np.broadcast_shapes(shape[:-1], top.shape, bottom.shape)
    except ValueError:
        curve = np.empty(0)
    if curve.ndim == 0 or curve.size == 0:
        raise MapError(
            f"values are (..., fraction) with one untouched and one removed value per curve; got shapes "
            f"{shape}, {top.shape} and {bottom.shape}."
        )
    span = (top - bottom)[..., None]
    usable = span >= max(least, np.finfo(float).tiny)
    return np.where(usable, (curve - bottom[..., None]) / np.where(usable, span, 1.0), np.nan)


def curve_area(fractions: Fractions, values: ArrayLike) -> Float[np.ndarray, "*lead"]:
    """The area under a curve over the fraction of tokens, by trapezoids: its mean height.

    For `normalised` values: lower is better for a **deletion** curve (the most important tokens are removed first), 0
    when the first removed token has the whole effect; higher is better for an **insertion** curve (all but the most
    important tokens are removed). Compare with the area of a random order, which is not ½ in general.

    Args:
        fractions: (fraction,), increasing from 0 to 1: the share of tokens that are removed (deletion) or kept
            (insertion).
        values: (..., fraction), the target's values.

    Returns:
        float64 (...). NaN where any value is NaN.

    Raises:
        MapError: Fractions that do not increase from 0 to 1, or another number of values.

    Source: RISE, arXiv 1806.07421 (deletion and insertion, on probabilities, not normalised).

    Example:
        >>> float(curve_area([0.0, 0.5, 1.0], [1.0, 0.0, 0.0]))
        0.25
    """
    shares, curve = _shares(fractions), real_numbers(values, _VALUES, MapError)
    rises = len(shares) > 1 and shares[0] == 0 and shares[-1] == 1 and bool((np.diff(shares) > 0).all())
    if not rises or curve.ndim == 0 or curve.shape[-1] != len(shares):
        raise MapError(
            f"an area needs fractions that increase from 0 to 1 and a value for each on the last axis; got "
            f"{shares.tolist()} and values {curve.shape}. Add the untouched input and everything removed."
        )
    return np.asarray(np.trapezoid(curve, shares, axis=-1), np.float64)


def comprehensiveness(untouched: ArrayLike, without: ArrayLike) -> Float[np.ndarray, "*lead"]:
    """The fall of the target when the most important tokens are removed: mean over fractions of v − v(without).

    Higher is better: the model needed what the map points at. On probabilities in [−1, 1]; on nats unbounded.

    Args:
        untouched: (...) with nothing removed.
        without: (..., fraction) without the most important tokens, at each fraction.

    Raises:
        MapError: Shapes that do not fit.

    Source: ERASER, arXiv 1911.03429, as the mean over several fractions (its AOPC, without the empty bin).

    Example:
        >>> round(float(comprehensiveness(0.9, [0.5, 0.3])), 2)
        0.5
    """
    return _fall(untouched, without)


def sufficiency(untouched: ArrayLike, only: ArrayLike) -> Float[np.ndarray, "*lead"]:
    """The fall of the target when only the most important tokens are kept: mean over fractions of v − v(only).

    Lower is better: the tokens the map points at suffice. Below 0 where the other tokens oppose the answer.

    Args:
        untouched: (...) with nothing removed.
        only: (..., fraction) with all but the most important tokens removed, at each fraction.

    Raises:
        MapError: Shapes that do not fit.

    Source: ERASER, arXiv 1911.03429.

    Example:
        >>> round(float(sufficiency(0.9, [0.7, 0.9])), 2)
        0.1
    """
    return _fall(untouched, only)


def spearman(a: ArrayLike, b: ArrayLike) -> float:
    """Rank correlation of two maps of the same tokens, in [−1, 1]: 1 for the same order, about 0 for unrelated ones.

    Tied tokens share the mean of their ranks, and ρ is Pearson's correlation of those ranks. NaN where a map has the
    same value everywhere or a value that is not finite, and so no order.

    Raises:
        MapError: Not two maps (token,) with the same number of tokens.

    Example:
        >>> round(spearman([1.0, 2.0, 3.0, 4.0], [1.0, 2.0, 4.0, 3.0]), 2)
        0.8
    """
    first, second = _two(a, b)
    if not (_ordered(first) and _ordered(second)):
        return float("nan")
    ranks = np.stack([scipy.stats.rankdata(values) for values in (first, second)])
    ranks -= ranks.mean(axis=1, keepdims=True)
    norms = np.sqrt((ranks**2).sum(axis=1))
    return float(np.clip(ranks[0] @ ranks[1] / norms.prod(), -1, 1))


def kendall(a: ArrayLike, b: ArrayLike) -> float:
    """Kendall's τ_b of two maps of the same tokens, in [−1, 1]: concordant minus discordant pairs of tokens.

    Pairs tied in one map count for neither and τ_b's denominator leaves them out: (C − D) / √((C+D+T_a)(C+D+T_b)).
    NaN where a map has the same value everywhere or a value that is not finite.

    Raises:
        MapError: Not two maps of as many tokens.

    Example:
        >>> round(kendall([1.0, 2.0, 3.0, 4.0], [1.0, 2.0, 4.0, 3.0]), 4)  # 5 of 6 pairs agree
        0.6667
    """
    first, second = _two(a, b)
    if not (_ordered(first) and _ordered(second)):
        return float("nan")
    found: Any = scipy.stats.kendalltau(first, second, variant="b")
    return float(found.statistic)


def _fall(untouched: ArrayLike, values: ArrayLike) -> Float[np.ndarray, "*lead"]:
    top, rest = (real_numbers(given, _VALUES, MapError) for given in (untouched, values))
    if rest.ndim == 0 or rest.shape[-1] == 0 or top.shape != rest.shape[:-1]:
        raise MapError(
            f"one untouched value per curve is expected, (...) beside (..., fraction); got {top.shape} and "
            f"{rest.shape}."
        )
    return np.asarray((top[..., None] - rest).mean(axis=-1))


def _shares(fractions: Fractions) -> Float[np.ndarray, " fraction"]:
    shares = real_numbers(fractions, "fractions are a list of numbers in [0, 1]", MapError)
    if shares.ndim != 1 or not ((shares >= 0) & (shares <= 1)).all():
        raise MapError(f"fractions are a list of numbers in [0, 1]; got {fractions!r}.")
    return shares


def _two(a: ArrayLike, b: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
    first, second = (
        real_numbers(given, "a map is one number per token, (token,)", MapError) for given in (a, b)
    )
    if first.ndim != 1 or first.shape != second.shape:
        raise MapError(
            f"two maps (token,) of the same tokens are needed; got {first.shape} and {second.shape}."
        )
    return first, second


def _ordered(values: Float[np.ndarray, " token"]) -> bool:
    return len(values) > 1 and bool(np.isfinite(values).all()) and bool((values != values[0]).any())
