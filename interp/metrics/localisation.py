"""Attention ratios: how much of a map lies inside the boxes, compared with a uniform map."""

from __future__ import annotations

from collections.abc import Sequence
from numbers import Integral
from typing import Any

import numpy as np
from jaxtyping import Bool, Float
from numpy.typing import ArrayLike
from scipy.signal import convolve2d

from interp.errors import MapError
from interp.metrics.map_and_mask import check

__all__ = ["attention_ratio", "attention_ratio_sliding"]


def attention_ratio(map: ArrayLike, mask: ArrayLike) -> Float[np.ndarray, "*lead"]:
    """Mean of the map inside the mask over its mean over all image tokens: AR = (Σ_B R / |B|) / (Σ R / N).

    Range [0, N / |B|], higher is better; a uniform map scores 1. Negative values count as 0. It is scale-invariant;
    the official code, which adds an absolute 1e-8, is not.

    Args:
        map: (..., token), one value per image token, larger = more important.
        mask: bool (token,), or (..., token) broadcasting against the map; True inside the boxes. Tokens
            without a footprint (separators) are outside: they count in N and in Σ R. Or the fraction of each token
            inside (`tokens.coverage`), c: then Σ_B R is Σ c·R and |B| is Σ c.

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
        mask: bool or fractions, as in `attention_ratio`.
        grid: (rows, cols) of the image tokens, as in `tokens.grid`.

    Returns:
        float64 (...). NaN as in `attention_ratio`, and also where the pattern fits in one place only (its
        bounding rectangle is the whole grid), or where no placement overlaps positive values of the map.

    Raises:
        MapError: As `attention_ratio`; no grid, one that is not two whole numbers above 0, or one whose size is not the
            number of tokens.

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
