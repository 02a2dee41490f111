"""Which part of an image a map singles out: the sliding windows of ViCrop, in numpy."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from interp.errors import MapError

__all__ = ["RATIOS", "Cells", "Selected", "lay_out", "select", "sharpest"]

RATIOS = (1.0, 1.2, 1.4, 1.6, 1.8, 2.0)
"""The published sides of the windows, in bases."""

_SLIVER = 1e-6  # of a cell: a window that lacks this much of one more cell holds it


@dataclass(frozen=True)
class Selected:
    """A crop of an image.

    Attributes:
        box: half-open xyxy in whole pixels of the original image, inside it.
        ratio: side of the window in bases; None when the whole image was taken.
        score: how far the window's sum stands above its neighbours', per cell; NaN for the whole image.
    """

    box: tuple[int, int, int, int]
    ratio: float | None
    score: float


@dataclass(frozen=True, eq=False)
class Cells:
    """A map as a grid over the part of the image that its tokens see.

    Attributes:
        values: (row, col).
        rows: (row, 2) upper and lower edge of each row, in pixels of the original image.
        cols: (col, 2) left and right edge of each column.
    """

    values: Float[np.ndarray, "row col"]
    rows: Float[np.ndarray, "row 2"]
    cols: Float[np.ndarray, "col 2"]

    def within(self, side: float) -> tuple[int, int]:
        """(rows, cols) of whole cells along `side` pixels: at least one, at most all.

        The side of a cell is that of the largest: those at the edge of a padded or cropped image may be cut.
        """
        rows, cols = (
            max(1, min(len(lines), math.floor(side / np.diff(lines).max() + _SLIVER)))
            for lines in (self.rows, self.cols)
        )
        return rows, cols


def select(
    values: Float[np.ndarray, " token"],
    footprints: Float[np.ndarray, "token 4"],
    size: tuple[int, int],
    base: float,
    ratios: Sequence[float] = RATIOS,
) -> Selected:
    """The crop of an image of `size` (width, height) that a map over one view's tokens singles out.

    For each ratio the window of as many whole cells as fit into base · ratio pixels is slid over the grid, cell
    by cell, and stays where its sum is largest. Its score is (sum − mean of the sums one cell to the left, right,
    up and down, as far as there are such windows) / cells. The ratio with the highest score wins. The crop is a
    square of base · ratio pixels, rounded, around the window's centre, shifted inside the image; a side longer
    than the image is the image's.

    Of equal sums the first in reading order is taken, of equal scores the first ratio. A ratio whose window
    covers the grid both ways has nothing to choose and is left out. The whole image is taken when no ratio is
    left, and when the map has one value everywhere, so that nothing is singled out.

    Args:
        values: finite.
        footprints: xyxy in pixels of the original image; NaN rows (padding, newlines) count for nothing.
        size: of the original image.
        base: side of the window of ratio 1, in pixels of the original image.
        ratios: sides of the windows, in bases.

    Raises:
        MapError: Values that are not finite, one per token; footprints that are not one grid.

    Source: arXiv 2502.17422 and its code, which puts windows on a grid stretched over the image whatever the
    true preprocessing, and takes the upper left corner of a flat map.
    """
    cells = lay_out(values, footprints)
    best: tuple[float, float, tuple[int, int], tuple[int, int]] | None = None
    for ratio in ratios if np.ptp(cells.values) > 0 else ():
        window = cells.within(base * ratio)
        if window == cells.values.shape:
            continue
        score, place = sharpest(cells.values, window)
        if best is None or score > best[0]:
            best = score, float(ratio), place, window
    if best is None:
        return Selected((0, 0, *size), None, float("nan"))
    score, ratio, (row, col), (n_rows, n_cols) = best
    x0, x1 = _placed(cells.cols[col, 0], cells.cols[col + n_cols - 1, 1], base * ratio, size[0])
    y0, y1 = _placed(cells.rows[row, 0], cells.rows[row + n_rows - 1, 1], base * ratio, size[1])
    return Selected((x0, y0, x1, y1), ratio, score)


def sharpest(values: Float[np.ndarray, "row col"], window: tuple[int, int]) -> tuple[float, tuple[int, int]]:
    """The score of the window with the largest sum, and its first (row, col); `window` leaves room to slide."""
    sums = np.lib.stride_tricks.sliding_window_view(values, window).sum(axis=(-2, -1))
    row, col = np.unravel_index(int(sums.argmax()), sums.shape)
    beside = ((row - 1, col), (row + 1, col), (row, col - 1), (row, col + 1))
    near = [sums[r, c] for r, c in beside if 0 <= r < sums.shape[0] and 0 <= c < sums.shape[1]]
    score = (sums[row, col] - np.mean(near)) / (window[0] * window[1])
    return float(score), (int(row), int(col))


def lay_out(values: Float[np.ndarray, " token"], footprints: Float[np.ndarray, "token 4"]) -> Cells:
    """The tokens with area as a grid, whatever their order in the prompt.

    Raises:
        MapError: As in `select`.
    """
    values, footprints = np.asarray(values, float), np.asarray(footprints, float)
    if values.shape != footprints.shape[:1] or not np.isfinite(values).all():
        raise MapError(
            f"a crop needs one finite value per token, shape {footprints.shape[:1]}; got shape {values.shape} with "
            f"{int((~np.isfinite(values)).sum())} values that are not finite."
        )
    seen = ~np.isnan(footprints).any(axis=1)
    rows, at_row = _lines(footprints[seen][:, [1, 3]])
    cols, at_col = _lines(footprints[seen][:, [0, 2]])
    grid = np.full((len(rows), len(cols)), np.nan)
    grid[at_row, at_col] = values[seen]
    if not grid.size or np.isnan(grid).any() or grid.size != seen.sum():
        raise MapError(
            f"a crop slides windows over one grid of tokens; got {int(seen.sum())} footprints with area in "
            f"{len(rows)} rows and {len(cols)} columns. Pass the tokens of one view only."
        )
    return Cells(grid, rows, cols)


def _lines(
    edges: Float[np.ndarray, "token 2"],
) -> tuple[Float[np.ndarray, "line 2"], np.ndarray]:
    """The different (low, high) edges in order of the low one, and which of them each token has."""
    _, first, at = np.unique(np.round(edges[:, 0], 6), return_index=True, return_inverse=True)
    return edges[first], at.reshape(-1)


def _placed(low: float, high: float, side: float, length: int) -> tuple[int, int]:
    """`side` pixels around the middle of low … high, shifted inside 0 … length."""
    n = min(max(round(side), 1), length)
    start = math.floor((low + high - n) / 2 + 0.5)
    start = min(max(start, 0), length - n)
    return start, start + n
