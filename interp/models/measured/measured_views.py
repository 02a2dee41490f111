"""Grids refined on what the pictures changed, and joined into views: neighbours share one lattice."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Float, Int

from interp.models.measured.lattice import SLIVER, Lattice
from interp.models.measured.patterns import Code, Profiles

__all__ = ["View", "laid", "views_of"]

_LEVELS = ((0.3, 1.12, 17), (0.08, 1.04, 17), (0.02, 1.012, 9))
"""Steps of the refinement: (largest shift as a share of a cell, largest factor of the pitch, number of each)."""
_SAME_PITCH = 0.12
_SAME_PHASE = 0.2
"""In cells: how far grids of one view may be off their common lattice."""
_WIDER = (1.0, 1.3, 1.7)
"""Widths of the windows that are compared, in cells."""
_EVEN = 0.25
"""Power of the tokens' weights, which makes them more even: the surest tokens lie at the edges of tiles."""
_ENDS = slice(1, -1)
_MANY = 6
"""Lines of a lattice from which on the first and the last are left out of its refinement."""
_RIM = 0.75
"""In cells: what may lie between a lattice's end and the image's border that an end cell reaches over."""


@dataclass(frozen=True, eq=False)
class View:
    """Cells of one lattice that do not overlap.

    Attributes:
        tokens: The tokens.
        places: (token, 2) column and row of each in the lattice.
        origin: x and y of the corner of column 0, row 0, in pixels.
        pitch: Width and height of a cell.
        lattices: The grids that the view was joined from.
        reach: Whether the cells at the left, top, right and bottom end reach beyond the lattice to the image's border,
            as cells of convolutions with padding do.
    """

    tokens: Int[np.ndarray, " token"]
    places: Int[np.ndarray, "token 2"]
    origin: Float[np.ndarray, " 2"]
    pitch: Float[np.ndarray, " 2"]
    lattices: tuple[Lattice, ...]
    reach: tuple[bool, bool, bool, bool] = (False, False, False, False)

    @property
    def shape(self) -> tuple[int, int]:
        """(rows, columns)."""
        columns, rows = self.places.max(axis=0) + 1
        return int(rows), int(columns)


def views_of(
    lattices: Sequence[Lattice], profiles: Profiles, weight: Float[np.ndarray, " token"]
) -> list[View]:
    """Returns the views of the grids, in the order of their first tokens."""
    views: list[View] = []
    for lattice in lattices:
        one = _refined(_alone(lattice), profiles, weight)
        for i, view in enumerate(views):
            joined = _joined(view, one)
            if joined is not None:
                views[i] = joined
                break
        else:
            views.append(one)
    return [_refined(view, profiles, weight) if len(view.lattices) > 1 else view for view in views]


def laid(view: View, size: tuple[float, float]) -> Float[np.ndarray, "token 4"]:
    """Returns the cells of a view clipped to the image; NaN for those outside it."""
    edges = [
        _snapped(
            view.origin[a] + view.pitch[a] * np.arange(view.places[:, a].max() + 2), size[a], view.pitch[a]
        )
        for a in (0, 1)
    ]
    for a, (first, last) in enumerate((view.reach[::2], view.reach[1::2])):
        edges[a][0] = 0 if first else edges[a][0]
        edges[a][-1] = size[a] if last else edges[a][-1]
    low = np.stack([edges[a][view.places[:, a]] for a in (0, 1)], axis=1)
    high = np.stack([edges[a][view.places[:, a] + 1] for a in (0, 1)], axis=1)
    low, high = np.clip(low, 0, size), np.clip(high, 0, size)
    boxes = np.concatenate([low, high], axis=1)
    boxes[((high - low) < SLIVER * view.pitch).any(axis=1)] = np.nan
    return boxes


def _snapped(edges: Float[np.ndarray, " edge"], length: float, pitch: float) -> Float[np.ndarray, " edge"]:
    """Returns the edges, those within a sliver of the image's border moved onto it."""
    for border in (0.0, float(length)):
        edges = np.where(np.abs(edges - border) < SLIVER * pitch, border, edges)
    return edges


def _alone(lattice: Lattice) -> View:
    tokens = np.arange(lattice.start, lattice.stop)
    return View(tokens, lattice.places, lattice.origin, lattice.pitch, (lattice,))


def _joined(view: View, other: View) -> View | None:
    """Returns both on the lattice of the first; None if the other does not continue it or covers the same cells."""
    if (np.abs(np.log(other.pitch / view.pitch)) > _SAME_PITCH).any():
        return None
    shift = (other.origin + other.pitch * (np.array(other.shape[::-1]) - 1) / 2 - view.origin) / view.pitch
    shift = shift - (np.array(other.shape[::-1]) - 1) / 2
    whole = np.round(shift).astype(int)
    if (np.abs(shift - whole) > _SAME_PHASE).any():
        return None
    places = other.places + whole
    taken = {tuple(p) for p in view.places.tolist()}
    if taken & {tuple(p) for p in places.tolist()} or not _touch(view.places, places):
        return None
    first = np.minimum(np.minimum(view.places.min(axis=0), places.min(axis=0)), 0)
    return View(
        np.concatenate([view.tokens, other.tokens]),
        np.concatenate([view.places, places]) - first,
        view.origin + first * view.pitch,
        view.pitch,
        (*view.lattices, *other.lattices),
    )


def _touch(places: Int[np.ndarray, "token 2"], others: Int[np.ndarray, "other 2"]) -> bool:
    """Whether the bounding boxes of two sets of cells share an edge or a corner, or overlap."""
    return bool(
        (places.min(axis=0) <= others.max(axis=0) + 1).all()
        and (others.min(axis=0) <= places.max(axis=0) + 1).all()
    )


def _refined(view: View, profiles: Profiles, weight: Float[np.ndarray, " token"]) -> View:
    """Returns the view with the origin and pitch that explain its tokens' changes best, those in padding left out."""
    image = (profiles.codes[0].length, profiles.codes[1].length)
    even = np.where(np.isnan(laid(view, image)[:, 0]), 0, weight[view.tokens] ** _EVEN)
    lines, reach = [], []
    for a in (0, 1):
        place, code = view.places[:, a], profiles.codes[a]
        sums = np.zeros((place.max() + 1, code.n))
        np.add.at(sums, place, even[:, None] * code.levelled(profiles.energies[a][view.tokens]))
        line = _best_line(sums, code, (float(view.origin[a]), float(view.pitch[a])))
        lines.append(line)
        reach.append(_reach(sums, code, line))
    origin, pitch = np.array(lines).T
    (left, right), (top, bottom) = reach
    return replace(view, origin=origin, pitch=pitch, reach=(left, top, right, bottom))


def _best_line(
    sums: Float[np.ndarray, "line picture"], code: Code, line: tuple[float, float]
) -> tuple[float, float]:
    """Returns the origin and pitch whose cells explain the most of the lines' energies, by a grid search in steps.

    The first and the last line are left out where others are left: what lies beyond them may belong to them too. What
    convolutions see reaches equally far into the neighbouring cells on both sides. So the windows that are compared may
    be wider than the cells; else cells as wide as the seen area would fit best.
    """
    inner = np.arange(len(sums))[_ENDS if len(sums) >= _MANY else slice(None)]
    found = [_searched(sums[inner], code, line, inner, len(sums), wider) for wider in _WIDER]
    return max(found, key=lambda one: one[0])[1]


def _searched(
    sums: Float[np.ndarray, "line picture"],
    code: Code,
    line: tuple[float, float],
    inner: Int[np.ndarray, " line"],
    n: int,
    wider: float,
) -> tuple[float, tuple[float, float]]:
    """Returns the best score, and its origin and pitch, of windows that many cells wide about the cells' centres."""
    (origin, pitch), best = line, 0.0
    for shift, factor, steps in _LEVELS:
        middle = origin + pitch * n / 2 + np.linspace(-shift, shift, steps) * pitch
        pitches = pitch * np.exp(np.linspace(-np.log(factor), np.log(factor), steps))
        origins = middle[:, None] - pitches * n / 2
        low = origins[..., None] + pitches[:, None] * (inner + 0.5 - wider / 2)
        score = _fits(sums, code, low, low + wider * pitches[:, None]).sum(-1)
        i, j = np.unravel_index(score.argmax(), score.shape)
        origin, pitch, best = float(origins[i, j]), float(pitches[j]), float(score[i, j])
    return best, (origin, pitch)


def _fits(
    sums: Float[np.ndarray, "line picture"],
    code: Code,
    low: Float[np.ndarray, "*grid line"],
    high: Float[np.ndarray, "*grid line"],
) -> Float[np.ndarray, "*grid line"]:
    """Returns how much of each line's energies an interval explains, clipped to the image; 0 outside of it."""
    low, high = (np.clip(side, 0, code.length) for side in (low, high))
    pattern = code.levelled(code.seen(low, high))
    fit = np.maximum((pattern * sums).sum(-1), 0) ** 2 / np.maximum((pattern**2).sum(-1), 1e-9)
    return np.where(high > low, fit, 0)


def _reach(
    sums: Float[np.ndarray, "line picture"], code: Code, line: tuple[float, float]
) -> tuple[bool, bool]:
    """Whether the first and the last line explain more if they reach the image's border."""
    (origin, pitch), end = line, line[0] + line[1] * len(sums)
    first = 0 < origin < _RIM * pitch and _wider(
        sums[:1], code, (origin, origin + pitch), (0.0, origin + pitch)
    )
    last = 0 < code.length - end < _RIM * pitch and _wider(
        sums[-1:], code, (end - pitch, end), (end - pitch, code.length)
    )
    return first, last


def _wider(
    sums: Float[np.ndarray, "1 picture"], code: Code, cell: tuple[float, float], longer: tuple[float, float]
) -> bool:
    near, far = (
        float(_fits(sums, code, np.array([low]), np.array([high]))[0]) for low, high in (cell, longer)
    )
    return far > near
