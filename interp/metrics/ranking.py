"""Rank metrics: do the tokens with the largest values lie inside the boxes? Negative values count as they are.

A mask of fractions (`tokens.coverage`) stands for pixels: each metric has the value that the map painted on the pixels
of tokens of equal area would have, with |B| the sum of the fractions.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Float, Int
from numpy.typing import ArrayLike
from scipy.stats import rankdata

from interp.metrics.map_and_mask import Pair, check

__all__ = ["auroc", "average_precision", "box_iou", "pointing_game"]


def pointing_game(map: ArrayLike, mask: ArrayLike) -> Float[np.ndarray, "*lead"]:
    """1 if the map's largest token lies inside the mask, else 0; tied maxima count by the share inside.

    Range [0, 1], higher is better; a uniform map scores |B| / N. Values are used as they are: a map of negative
    numbers has a largest token too.

    Args:
        map: (..., token), one value per image token, larger = more important.
        mask: bool or fractions in [0, 1], (token,), or (..., token) broadcasting against the map.

    Returns:
        float64 (...). NaN where the map holds NaN or infinity, is zero everywhere, or the mask is empty or
        full.

    Raises:
        MapError: Shapes or dtypes that do not fit.

    Example:
        >>> float(pointing_game([3.0, 3.0, 1.0], [True, False, False]))
        0.5
    """
    pair = check(map, mask)
    top = pair.map == pair.map.max(axis=-1, keepdims=True)
    hits = np.einsum("...t,...t->...", top.astype(np.float64), pair.mask)
    return pair.nan_unless(hits / top.sum(axis=-1))


def box_iou(map: ArrayLike, mask: ArrayLike) -> Float[np.ndarray, "*lead"]:
    """Intersection over union of the mask and the map's |B| largest tokens.

    The metric keeps as many tokens as the boxes hold, not those above a threshold: a fixed threshold would measure how
    peaked a map is, and the best threshold would be chosen with knowledge of the boxes. So the metric depends only on
    the order of the tokens and has no free parameter. With ties at the cut, the intersection I is the expected one
    over all orders of the tied tokens, and the value is I / (2|B| − I).

    Range [0, 1], higher is better; a uniform map scores |B| / (2N − |B|). Arguments, NaN cases and errors as
    `pointing_game`.

    Example:
        >>> round(float(box_iou([5.0, 1.0, 4.0, 0.0], [True, True, False, False])), 4)  # 1 of 3
        0.3333
    """
    pair = check(map, mask)
    if not pair.whole:
        common = _area_of_largest(pair)
        return pair.nan_unless(common / (2 * pair.n_inside - common))
    kept = pair.n_inside[..., None]
    ordered = -np.sort(-pair.map, axis=-1)
    lead = np.broadcast_shapes(ordered.shape[:-1], kept.shape[:-1])
    cut = np.take_along_axis(
        np.broadcast_to(ordered, (*lead, pair.n_tokens)), np.broadcast_to(kept - 1, (*lead, 1)), axis=-1
    )
    above, tied = pair.map > cut, pair.map == cut
    share = (kept[..., 0] - above.sum(axis=-1)) / tied.sum(axis=-1)
    common = (above & pair.mask).sum(axis=-1) + share * (tied & pair.mask).sum(axis=-1)
    return pair.nan_unless(common / (2 * kept[..., 0] - common))


def auroc(map: ArrayLike, mask: ArrayLike) -> Float[np.ndarray, "*lead"]:
    """Chance that a token inside the mask has a larger value than one outside, ties counting one half.

    From midranks: (Σ_B rank − |B|(|B|+1)/2) / (|B|·(N−|B|)). Range [0, 1], higher is better; a uniform map, or
    a random order, scores 0.5. Arguments, NaN cases and errors as `pointing_game`.

    Example:
        >>> float(auroc([0.9, 0.1, 0.5, 0.1], [True, True, False, False]))  # pairs won: 1, 1, 0, ½ of 4
        0.625
    """
    pair = check(map, mask)
    if not pair.whole:
        return pair.nan_unless(_pixel_auroc(pair))
    ranks = rankdata(pair.map, method="average", axis=-1)
    n_in = pair.n_inside
    n_out = np.maximum(pair.n_tokens - n_in, 1)
    wins = np.einsum("...t,...t->...", ranks, pair.mask) - n_in * (n_in + 1) / 2
    return pair.nan_unless(wins / (n_in * n_out))


def average_precision(map: ArrayLike, mask: ArrayLike) -> Float[np.ndarray, "*lead"]:
    """Mean over the mask's tokens of the precision among all tokens valued at least as high as that token.

    The same step-wise sum as scikit-learn's, without interpolation; tied tokens enter together. Range (0, 1],
    higher is better; a uniform map scores |B| / N. Arguments, NaN cases and errors as `pointing_game`.

    Example:
        >>> round(float(average_precision([0.9, 0.8, 0.7], [True, False, True])), 4)  # (1/1 + 2/3) / 2
        0.8333
    """
    pair = check(map, mask)
    if not pair.whole:
        return pair.nan_unless(_pixel_precision(pair))
    values, mask_ = np.broadcast_arrays(pair.map, pair.mask)
    order = np.argsort(-values, axis=-1, kind="stable")
    hits = np.cumsum(np.take_along_axis(mask_, order, axis=-1), axis=-1)
    at_least = np.take_along_axis(rankdata(-values, method="max", axis=-1), order, axis=-1).astype(np.intp)
    precision = np.take_along_axis(hits, at_least - 1, axis=-1) / at_least
    inside = np.take_along_axis(mask_, order, axis=-1)
    total = np.einsum("...t,...t->...", precision, inside)
    return pair.nan_unless(total / pair.n_inside)


def _pixel_auroc(pair: Pair) -> Float[np.ndarray, "*lead"]:
    """Chance that a pixel inside lies in a token of larger value than a pixel outside, ties counting one half."""
    values, inside = np.broadcast_arrays(pair.map, pair.mask)
    at_least, _ = _area_from(values, inside)
    at_most, _ = _area_from(-values, inside)
    larger = inside.sum(axis=-1, keepdims=True) - at_most
    won = (1 - inside) * (larger + at_least) / 2  # those that are larger, and half of those tied
    outside = (1 - inside).sum(axis=-1)
    return np.asarray(won.sum(axis=-1) / (pair.n_inside * np.where(outside > 0, outside, 1.0)))


def _pixel_precision(pair: Pair) -> Float[np.ndarray, "*lead"]:
    """Mean over the pixels inside of the precision among all pixels of at least that value."""
    values, inside = np.broadcast_arrays(pair.map, pair.mask)
    area, count = _area_from(values, inside)
    return np.asarray((inside * area / count).sum(axis=-1) / pair.n_inside)


def _area_of_largest(pair: Pair) -> Float[np.ndarray, "*lead"]:
    """The area inside of the |B| largest tokens; of the tokens tied at the cut, an equal part of each."""
    values, inside = np.broadcast_arrays(pair.map, pair.mask)
    n_larger = rankdata(-values, method="min", axis=-1) - 1
    n_tied = rankdata(-values, method="max", axis=-1) - n_larger
    kept = np.clip((pair.n_inside[..., None] - n_larger) / n_tied, 0.0, 1.0)
    return np.asarray((kept * inside).sum(axis=-1))


def _area_from(
    values: Float[np.ndarray, "*lead token"], inside: Float[np.ndarray, "*lead token"]
) -> tuple[Float[np.ndarray, "*lead token"], Int[np.ndarray, "*lead token"]]:
    """For each token: the area inside, and the number, of the tokens whose values are at least as large."""
    order = np.argsort(-values, axis=-1, kind="stable")
    total = np.cumsum(np.take_along_axis(inside, order, axis=-1), axis=-1)
    count = rankdata(-values, method="max", axis=-1).astype(np.int64)
    return np.take_along_axis(total, count - 1, axis=-1), count
