"""From a map over image tokens to a mask of pixels: upsampled to the image, then cut at a threshold."""

from __future__ import annotations

from typing import Any, Literal, TypeAlias

import numpy as np
import xarray as xr
from jaxtyping import Bool, Float, Int

from interp.errors import MapError
from interp.inputs.argument_checks import check_whole
from interp.inputs.tokens import TokenMap
from interp.metrics.numbers import real_numbers

__all__ = [
    "Threshold",
    "Upsampling",
    "check_mask_rule",
    "map_mask",
    "otsu_threshold",
    "threshold_named",
    "upsampled",
]

Upsampling: TypeAlias = Literal["bicubic", "bilinear", "nearest"]
Threshold: TypeAlias = Literal["otsu", "positive"] | float
UPSAMPLINGS = ("bicubic", "bilinear", "nearest")
THRESHOLDS = ("otsu", "positive")
_SAME = 1e-6
"""Share of the largest coordinate: two edges nearer than that are one."""


def check_mask_rule(upsample: Any, threshold: Any) -> None:
    """Raises `MapError` for an unknown upsampling or threshold."""
    if not isinstance(upsample, str) or upsample not in UPSAMPLINGS:
        raise MapError(f"upsample is one of {', '.join(map(repr, UPSAMPLINGS))}; got {upsample!r:.100}.")
    if isinstance(threshold, str):
        known = threshold in THRESHOLDS
    else:
        real = isinstance(threshold, int | float | np.floating) and not isinstance(threshold, bool)
        known = real and 0 < threshold < 1
    if not known:
        raise MapError(
            'threshold is "otsu", "positive", or the share of pixels below it, between 0 and 1, such as 0.9; got '
            f"{threshold!r:.100}."
        )


def threshold_named(text: str) -> Any:
    """A threshold from a word of a command line: a number where it is one, else the word."""
    try:
        return float(text)
    except ValueError:
        return text


def upsampled(
    values: Float[np.ndarray, " token"] | xr.DataArray,
    tokens: TokenMap,
    image: int = 0,
    how: Upsampling = "bicubic",
) -> Float[np.ndarray, "row col"]:
    """One value per pixel of the original image, between the centres of the tokens' footprints.

    Each view whose tokens form a grid is interpolated: "bilinear", or "bicubic" with a = −0.75, both as torch's
    `interpolate(…, align_corners=False)`: values are held beyond the outermost centres. Where several views cover a
    pixel their values are averaged. With "nearest", and in views that are no grid, a pixel takes the value of the
    token that holds its centre (`tokens.to_pixels`), NaN where the map is. Cells cut by the image's edge count with
    their whole size; cells that lie wholly in the padding are unknown and left out. Bicubic values can lie beyond the
    map's range.

    Args:
        values: (token,), larger = more important.
        tokens: Where the tokens are.
        image: The index of the image.
        how: "bicubic", "bilinear" or "nearest".

    Returns:
        (row, col); NaN where no token sees the pixel.

    Raises:
        MapError: Not one value per token, an unknown way, no such image, or a view that is interpolated and has a NaN
            or an infinity: each would spread over the pixels around, or over the whole view.
    """
    check_mask_rule(how, "otsu")
    check_whole("image, its place in the sample,", image, 0, MapError)
    if not isinstance(tokens, TokenMap):
        raise MapError(f"tokens is the TokenMap of the map's sample, as maps.tokens[i]; got {tokens!r:.100}.")
    given = real_numbers(values, "a map to upsample is an array of real numbers (token,)", MapError)
    nearest = tokens.to_pixels(given, image=image)
    if how == "nearest":
        return nearest
    total, count = np.zeros(nearest.shape), np.zeros(nearest.shape, int)
    seen = tokens.shows(image) & ~np.isnan(tokens.footprints).any(axis=1)
    for view in np.unique(tokens.views[seen]):
        mine = np.flatnonzero(seen & (tokens.views == view))
        grid = _grid(tokens.footprints[mine], tokens.sizes[image])
        if grid is None:
            part = np.full(tokens.n, np.nan)
            part[mine] = given[mine]
            pixels = tokens.to_pixels(np.nan_to_num(part), image=image)
            held = tokens.to_pixels((~np.isnan(part)).astype(float), image=image) > 0
        else:
            pixels, held = _between(given[mine], grid, nearest.shape, how)
        total[held] += pixels[held]
        count[held] += 1
    return np.divide(total, count, out=np.full(nearest.shape, np.nan), where=count > 0)


def map_mask(
    pixels: Float[np.ndarray, "*pixel"], threshold: Threshold = "otsu"
) -> Bool[np.ndarray, "*pixel"]:
    """Which pixels of a map lie above a threshold; NaN pixels never do.

    - "otsu": above `otsu_threshold`, which splits the values into the two classes with the least variance within. It
      always finds two classes, even in noise, so a mask alone is no evidence of an object.
    - "positive": above 0. For a difference from a mean map: what is looked at more than on average.
    - a share q in (0, 1): above the q-quantile of the pixels, so at most 1 − q of the image; less, or nothing, where
      values are tied, as under "nearest".

    A constant map gives an empty mask under every rule except "positive", where its sign decides.

    Args:
        pixels: One value per pixel, of one image or several together.
        threshold: The rule.

    Raises:
        MapError: An unknown rule.
    """
    check_mask_rule("nearest", threshold)
    values = real_numbers(pixels, "a map to cut is an array of real numbers", MapError)
    known = values[np.isfinite(values)]
    if not len(known):
        return np.zeros(values.shape, bool)
    if threshold == "positive":
        cut = 0.0
    elif threshold == "otsu":
        cut = otsu_threshold(known)
    else:
        cut = float(np.quantile(known, float(threshold)))
    return np.nan_to_num(values, nan=-np.inf) > cut


def otsu_threshold(values: Float[np.ndarray, " value"]) -> float:
    """The value that splits the values into at most as large and larger, with the greatest variance between the two.

    Exact: every distinct value is tried, and of equally good ones the smallest is taken. Where all values are equal it
    is that value, and nothing lies above it.

    Raises:
        MapError: No value, or one that is not finite.

    Source: Otsu 1979, IEEE Trans. Systems, Man, and Cybernetics 9(1), 62–66.

    Example:
        >>> otsu_threshold(np.array([0.0, 1.0, 9.0, 10.0]))
        1.0
    """
    ordered = np.sort(real_numbers(values, "values to split are an array of real numbers", MapError).ravel())
    if not len(ordered) or not np.isfinite(ordered).all():
        raise MapError(
            "a threshold needs at least one value, and finite numbers only; got no value, NaN or infinity."
        )
    last = np.flatnonzero(np.diff(ordered) > 0)  # the last place of each distinct value but the largest
    if not len(last):
        return float(ordered[-1])
    centred = ordered - ordered.mean()
    below = last + 1.0
    above = len(ordered) - below
    sums = np.cumsum(centred)[last]
    between = sums**2 / (below * above)  # n·σ_B² of centred values
    return float(ordered[last[int(np.argmax(between))]])


def _grid(
    footprints: Float[np.ndarray, "token 4"], size: tuple[int, int]
) -> tuple[np.ndarray, np.ndarray, Int[np.ndarray, "row col"]] | None:
    """The spans of columns and rows, and the token at each place; None where the tokens are no grid."""
    columns, x = _spans(footprints[:, [0, 2]])
    rows, y = _spans(footprints[:, [1, 3]])
    if len(columns) * len(rows) != len(footprints):
        return None
    at = np.full((len(rows), len(columns)), -1)
    at[y, x] = np.arange(len(footprints))
    touching = all(
        np.abs(spans[1:, 0] - spans[:-1, 1]).max(initial=0.0) <= 1e-3 * max(size) for spans in (columns, rows)
    )
    return (_whole(columns, size[0]), _whole(rows, size[1]), at) if (at >= 0).all() and touching else None


def _spans(edges: Float[np.ndarray, "token 2"]) -> tuple[Float[np.ndarray, "cell 2"], np.ndarray]:
    """The distinct spans in increasing order, and which is each token's."""
    scale = max(float(np.abs(edges).max(initial=1.0)), 1.0)
    _, first, place = np.unique(
        np.round(edges / (scale * _SAME)).astype(np.int64), axis=0, return_index=True, return_inverse=True
    )
    return edges[first], place.reshape(-1)


def _whole(spans: Float[np.ndarray, "cell 2"], side: int) -> Float[np.ndarray, "cell 2"]:
    """The spans; those cut at the image's edge are extended to the size of the largest."""
    sizes = spans[:, 1] - spans[:, 0]
    found, full = spans.copy(), sizes.max()
    if len(spans) > 1:
        if spans[0, 0] <= 0:
            found[0, 0] = spans[0, 1] - full
        if spans[-1, 1] >= side:
            found[-1, 1] = spans[-1, 0] + full
    return found


def _between(
    values: Float[np.ndarray, " token"],
    grid: tuple[np.ndarray, np.ndarray, np.ndarray],
    shape: tuple[int, int],
    how: str,
) -> tuple[Float[np.ndarray, "row col"], Bool[np.ndarray, "row col"]]:
    """The interpolated values, and which pixels the view holds."""
    columns, rows, at = grid
    cells = values[at]
    undefined = int((~np.isfinite(cells)).sum())
    if undefined:
        raise MapError(
            f"interpolation needs a finite value at each of the {cells.size} tokens; got {undefined} without one. Use "
            'how="nearest", where such tokens leave only their own pixels undefined.'
        )
    down, across = _weights(rows, shape[0], how), _weights(columns, shape[1], how)
    held = np.outer(_held(rows, shape[0]), _held(columns, shape[1]))
    return down @ cells @ across.T, held


def _held(spans: Float[np.ndarray, "cell 2"], n: int) -> Bool[np.ndarray, " pixel"]:
    centres = np.arange(n) + 0.5
    return (centres >= spans[0, 0]) & (centres < spans[-1, 1])


def _weights(spans: Float[np.ndarray, "cell 2"], n: int, how: str) -> Float[np.ndarray, "pixel cell"]:
    """The weight of each cell in each pixel along one axis; rows sum to 1."""
    n_cells = len(spans)
    centres = spans.mean(axis=1)
    places = np.interp(np.arange(n) + 0.5, centres, np.arange(n_cells)) if n_cells > 1 else np.zeros(n)
    if how == "bicubic" and n_cells > 1:  # beyond the outer centres the neighbours are held, not the place
        step = (centres[-1] - centres[0]) / (n_cells - 1)
        beyond = np.arange(n) + 0.5
        places = np.where(beyond < centres[0], (beyond - centres[0]) / step, places)
        places = np.where(beyond > centres[-1], n_cells - 1 + (beyond - centres[-1]) / step, places)
    base = np.floor(places).astype(int)
    offset = places - base
    found = np.zeros((n, n_cells))
    taps = (-1, 2) if how == "bicubic" else (0, 1)
    for tap in range(taps[0], taps[1] + 1):
        weight = _cubic(np.abs(offset - tap)) if how == "bicubic" else np.maximum(1 - np.abs(offset - tap), 0)
        np.add.at(found, (np.arange(n), np.clip(base + tap, 0, n_cells - 1)), weight)
    return found


def _cubic(distance: Float[np.ndarray, " pixel"], a: float = -0.75) -> Float[np.ndarray, " pixel"]:
    """Keys' kernel."""
    near = ((a + 2) * distance - (a + 3)) * distance**2 + 1
    far = ((distance - 5) * distance + 8) * distance * a - 4 * a
    return np.where(distance <= 1, near, np.where(distance < 2, far, 0.0))
