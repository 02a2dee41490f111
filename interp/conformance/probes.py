"""Which tokens to probe, and the rows, columns and runs of tokens they are judged by."""

from __future__ import annotations

from typing import TypeAlias

import numpy as np
from jaxtyping import Int

from interp.tokens import TokenMap

__all__ = ["Groups", "choose", "groups_of"]

Groups: TypeAlias = dict[str, Int[np.ndarray, " _"]]
"""Name of a group → the probes in it, counted among those given."""

_SLIVER = 0.3
"""Of the median footprint of the view: smaller ones, cut at a border, are not probed."""


def choose(tokens: TokenMap, n: int, seed: int, image: int = 0) -> Int[np.ndarray, " probe"]:
    """Tokens of one image to probe: at most about `n` of each view, spread evenly over its rows and columns.

    A view with many rows or columns gets three probes in each of them.
    """
    areas = np.prod(tokens.footprints[:, 2:] - tokens.footprints[:, :2], axis=1)
    mine = (areas > 0) & (tokens.image_index == image)
    found = [np.empty(0, int)]
    for view in np.unique(tokens.views[mine]):
        here = np.flatnonzero(mine & (tokens.views == view))
        here = here[areas[here] >= _SLIVER * np.median(areas[here])]
        rows, columns = (_lines(tokens.footprints[here, edge]) for edge in (1, 0))
        budget = max(n, 3 * max(len(np.unique(rows)), len(np.unique(columns))))
        found.append(here[_spread(rows, columns, budget, seed)])
    return np.sort(np.concatenate(found))


def _spread(
    rows: Int[np.ndarray, " token"], columns: Int[np.ndarray, " token"], n: int, seed: int
) -> Int[np.ndarray, " chosen"]:
    """One token after another from the rows and columns that have the fewest so far."""
    if len(rows) <= n:
        return np.arange(len(rows))
    order = np.random.default_rng(seed).random(len(rows))
    in_row, in_column = np.zeros(rows.max() + 1), np.zeros(columns.max() + 1)
    taken = np.zeros(len(rows), bool)
    for _ in range(n):
        cost = in_row[rows] + in_column[columns] + 0.5 * order
        token = int(np.where(taken, np.inf, cost).argmin())
        taken[token] = True
        in_row[rows[token]] += 1
        in_column[columns[token]] += 1
    return np.flatnonzero(taken)


def groups_of(tokens: TokenMap, probes: Int[np.ndarray, " probe"]) -> Groups:
    """The probes of each row, each column and each run of tokens, of one view and image.

    A run is a stretch of the sequence in which footprints never go up: a tile, in families that lay out tile
    by tile; else the whole view.
    """
    boxes = tokens.footprints
    view = np.flatnonzero(
        (tokens.views == tokens.views[probes[0]])
        & (tokens.image_index == tokens.image_index[probes[0]])
        & ~np.isnan(boxes).any(axis=1)
    )
    at = np.searchsorted(view, probes)
    up = np.diff(boxes[view, 1]) < -1e-6
    runs = np.concatenate([[0], np.cumsum(up)])[at]
    lines = {"row": _lines(boxes[view, 1])[at], "column": _lines(boxes[view, 0])[at], "run": runs}
    return {
        f"{name} {number}": np.flatnonzero(numbers == number)
        for name, numbers in lines.items()
        for number in np.unique(numbers)
    }


def _lines(edges: np.ndarray) -> Int[np.ndarray, " token"]:
    """The number of the row or column each edge begins."""
    return np.unique(np.round(edges, 6), return_inverse=True)[1].reshape(-1)
