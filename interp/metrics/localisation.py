"""Metrics of how well a map agrees with boxes: attention ratios, divergences, and rank metrics.

Attention ratios compare the map's mass inside the boxes with a uniform map's. Divergences compare the map, read as a
distribution over image tokens, with a uniform one inside the boxes. Rank metrics ask whether the tokens with the
largest values lie inside; they use negative values as they are.

A mask of fractions (`tokens.coverage`) stands for pixels: each metric has the value that the map painted on the pixels
of tokens of equal area would have, with |B| the sum of the fractions.
"""

from __future__ import annotations

from collections.abc import Sequence
from numbers import Integral
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int
from numpy.typing import ArrayLike
from scipy.signal import convolve2d
from scipy.special import xlogy
from scipy.stats import rankdata

from interp.errors import MapError
from interp.metrics.map_and_mask import Pair, check

__all__ = [
    "attention_ratio",
    "attention_ratio_sliding",
    "auroc",
    "average_precision",
    "box_iou",
    "js_divergence",
    "kl_divergence",
    "kl_gain",
    "pointing_game",
]


def attention_ratio(map: ArrayLike, mask: ArrayLike) -> Float[np.ndarray, "*lead"]:
    """Mean of the map inside the mask over its mean over all image tokens: AR = (Σ_B R / |B|) / (Σ R / N).

    Range [0, N / |B|], higher is better; a uniform map scores 1. Negative values count as 0. It is scale-invariant;
    the official code, which adds an absolute 1e-8, is not.

    Args:
        map: (..., token), one value per image token, larger = more important.
        mask: bool (token,), or (..., token) broadcasting against the map, True inside the boxes; or c, the fraction
            of each token inside (`tokens.coverage`): then Σ_B R is Σ c·R and |B| is Σ c. Tokens without a footprint
            (separators) are outside: they count in N and in Σ R.

    Returns:
        float64 (...). NaN where the map holds NaN or infinity, has no positive value, or the mask is empty
        or full.

    Raises:
        MapError: Shapes or dtypes that do not fit.

    Source: arXiv 2603.14323, without its 1e-8.

    Example:
        >>> float(attention_ratio([4.0, 1.0, 1.0, 2.0], [True, False, False, False]))
        2.0
    """
    pair = check(map, mask)
    inside = np.einsum("...t,...t->...", pair.shares, pair.mask)
    return pair.nan_unless(inside * pair.n_tokens / pair.n_inside, also=pair.has_positive)


def attention_ratio_sliding(
    map: ArrayLike, mask: ArrayLike, grid: tuple[int, int] | None
) -> Float[np.ndarray, "*lead"]:
    """Sum of the map inside the mask over its average sum under the same shape slid over the token grid.

    The mask is cut to its bounding rectangle (h, w), h ≤ rows and w ≤ cols. That pattern, with holes and separate
    boxes, is put at each of the (rows−h+1)·(cols−w+1) places where it fits whole. For one rectangular box this is
    "the same-size box slid over the image". Unlike in `attention_ratio`, the border has less weight, because fewer
    placements reach it.

    Range [0, number of placements], higher is better; a uniform map scores 1. Negative values count as 0.

    Args:
        map: (..., token), row-major over the grid.
        mask: bool or fractions in [0, 1], (token,), or (..., token) broadcasting against the map.
        grid: (rows, cols) of the image tokens, as in `tokens.grid`.

    Returns:
        float64 (...). NaN where the map holds NaN or infinity, the mask is empty or full, the pattern fits in one place
        only (its bounding rectangle is the whole grid), or no placement overlaps positive values of the map.

    Raises:
        MapError: Shapes or dtypes that do not fit; no grid, one that is not two whole numbers above 0, or one whose
            size is not the number of tokens.

    Source: the definition of MLLMs-Know (arXiv 2502.17422), as quoted by arXiv 2603.14323.

    Example:
        >>> round(float(attention_ratio_sliding([3.0, 1.0, 2.0], [True, False, False], (1, 3))), 4)
        1.5
    """
    pair = check(map, mask)
    shape = _grid_of(grid, pair.n_tokens)
    flat = [_reach(row.reshape(shape)) for row in pair.mask.reshape(-1, pair.n_tokens)]
    reach = np.array([cells.ravel() for cells, _ in flat]).reshape(pair.mask.shape)
    places = np.array([n for _, n in flat]).reshape(pair.mask.shape[:-1])
    shares = pair.shares
    inside = np.einsum("...t,...t->...", shares, pair.mask)
    slid = np.einsum("...t,...t->...", shares, reach)
    ratio = inside * places / np.where(slid > 0, slid, 1.0)
    return pair.nan_unless(ratio, also=(slid > 0) & (places > 1))


def _grid_of(grid: Any, n_tokens: int) -> tuple[int, int]:
    if grid is None:
        raise MapError(
            "the sliding attention ratio needs the token grid (rows, cols); got None, as for models whose "
            "image tokens do not form one rectangle. Use attention_ratio (metric 'ar') instead."
        )
    found = tuple(grid) if isinstance(grid, Sequence | np.ndarray) and np.ndim(grid) == 1 else ()
    whole = all(isinstance(n, Integral) and not isinstance(n, bool | np.bool_) and int(n) > 0 for n in found)
    if len(found) != 2 or not whole:
        raise MapError(
            f"the token grid is two whole numbers above 0, (rows, cols); got {grid!r}. Pass tokens.grid of the same "
            "sample."
        )
    rows, cols = (int(n) for n in found)
    if rows * cols != n_tokens:
        raise MapError(
            f"the grid {rows}×{cols} = {rows * cols} does not hold the map's {n_tokens} tokens. "
            "Pass tokens.grid of the same sample, or use attention_ratio (metric 'ar')."
        )
    return rows, cols


def _reach(
    mask: Bool[np.ndarray, "row col"] | Float[np.ndarray, "row col"],
) -> tuple[Float[np.ndarray, "row col"], int]:
    """How many placements of the mask's pattern cover each cell, and how many placements there are."""
    if not mask.any():
        return np.zeros(mask.shape), 0
    rows, cols = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    pattern = mask[rows[0] : rows[-1] + 1, cols[0] : cols[-1] + 1].astype(np.float64)
    places = np.ones((mask.shape[0] - pattern.shape[0] + 1, mask.shape[1] - pattern.shape[1] + 1))
    return convolve2d(pattern, places), places.size


FLOOR = 1e-12  # the smallest share of a token: keeps KL finite where the map is zero inside a box


def kl_divergence(map: ArrayLike, mask: ArrayLike) -> Float[np.ndarray, "*lead"]:
    """KL(G ‖ Â) = Σ_B (1/|B|) ln((1/|B|) / Â), in nats: Â is the map over its sum, G is uniform inside the mask.

    Range [0, ln(1e12 / |B|)], lower is better. Â is clipped to [1e-12, 1]; outside the mask G is 0 and adds
    nothing. Negative values of the map count as 0. A uniform map scores ln(N / |B|), so the value depends on the
    size of the boxes: compare domains with `kl_gain`, or with matched areas.

    For a mask of fractions c (`tokens.coverage`), G = c / Σ c, which is uniform over the pixels inside.

    Args:
        map: (..., token), one value per image token, larger = more important.
        mask: bool or fractions in [0, 1], (token,), or (..., token) broadcasting against the map.

    Returns:
        float64 (...). NaN where the map holds NaN or infinity, has no positive value, or the mask is empty
        or full.

    Raises:
        MapError: Shapes or dtypes that do not fit.

    Source: arXiv 2603.14323, without its 1e-8 and with G's zeros exact.

    Example:
        >>> round(float(kl_divergence([1.0, 1.0, 1.0, 1.0], [True, False, False, False])), 4)  # ln 4
        1.3863
    """
    pair = check(map, mask)
    return pair.nan_unless(_kl(pair), also=pair.has_positive)


def kl_gain(map: ArrayLike, mask: ArrayLike) -> Float[np.ndarray, "*lead"]:
    """Nats by which the map is nearer to the boxes than a uniform map: KL(G ‖ uniform) − KL(G ‖ Â).

    Equals Σ G ln(N·Â), the mean over the boxes' tokens of ln(N·Â). Range [ln(N / 1e12), ln(N / |B|)], higher is better,
    0 for a uniform map whatever the size of the boxes. Arguments, NaN cases and errors as `kl_divergence`.

    Example:
        >>> round(float(kl_gain([4.0, 1.0, 1.0, 2.0], [True, False, False, False])), 4)  # ln 2
        0.6931
    """
    pair = check(map, mask)
    gain = pair.uniform_kl - _kl(pair)
    return pair.nan_unless(gain, also=pair.has_positive)


def js_divergence(map: ArrayLike, mask: ArrayLike) -> Float[np.ndarray, "*lead"]:
    """JS = ½ KL(Â ‖ M) + ½ KL(G ‖ M), M = ½ (Â + G), natural logarithm; Â and G as in `kl_divergence`.

    Range [0, ln 2], lower is better: 0 for a map that is uniform inside the boxes and zero outside, ln 2
    for one that is zero inside. No epsilon is needed: 0 · ln 0 is 0. Arguments, NaN cases and errors as
    `kl_divergence`.

    Example:
        >>> round(float(js_divergence([0.0, 1.0, 0.0, 0.0], [True, False, False, False])), 4)  # ln 2
        0.6931
    """
    pair = check(map, mask)
    shares, even = np.broadcast_arrays(pair.shares, pair.wanted)
    inside = even > 0
    map_in, even_in = shares[inside], even[inside]
    middle = 0.5 * (map_in + even_in)
    terms = np.log(2.0) * shares  # outside the boxes M is half of Â
    terms[inside] = xlogy(map_in, map_in / middle) + xlogy(even_in, even_in / middle)
    js = np.clip(0.5 * terms.sum(axis=-1), 0.0, np.log(2.0))
    return pair.nan_unless(js, also=pair.has_positive)


def _kl(pair: Pair) -> Float[np.ndarray, "*lead"]:
    logs = np.log(np.clip(pair.shares, FLOOR, 1.0))
    inside = np.einsum("...t,...t->...", logs, pair.mask) / pair.n_inside
    own = -np.log(pair.n_inside) if pair.whole else xlogy(pair.wanted, pair.wanted).sum(axis=-1)
    return np.asarray(np.maximum(own - inside, 0.0))


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
