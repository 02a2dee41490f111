"""How far measured footprints can be trusted: whether grids agree with themselves, how likely each cell is right."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Float

from interp.inputs.footprints import Size, covered_area
from interp.models.measured.lattice import SLIVER, Lattice
from interp.models.measured.measured_views import View
from interp.models.measured.patterns import Code, Profiles, Raw, explained

__all__ = ["agreement", "kept", "lean", "least_trust", "line_trust", "overlap", "probability", "spanned"]


_SAME_SIZE = 1.25
"""Below this ratio of their widths and of their heights, the cells of two views are of one size."""

_STRONG = 0.9
"""Quantile of the tokens' changes above which all tokens count alike."""

_LINE = 4
"""Rows and columns with fewer tokens are not judged by themselves."""


def spanned(views: Sequence[View], boxes: Float[np.ndarray, "token 4"]) -> float:
    """Returns how much of the image the grids of each size of cell span, from 0 to 1: the least of any and either axis.

    The image's side is what all footprints span. A layout shows the whole image in each of its views, in tiles that
    have cells of one size; grids of several sizes, each on a part of the image, are tokens that were joined wrongly. 0
    where a view has no footprint.

    Args:
        views: The grids.
        boxes: The footprints of all tokens, xyxy in pixels; NaN for none.
    """
    whole = _extent(boxes)
    if whole is None:
        return 0.0
    found = []
    for view in views:
        own = [other.tokens for other in views if _same_size(view, other)]
        extent = _extent(boxes[np.concatenate(own)])
        found.append(0.0 if extent is None else float((extent / whole).min()))
    return min(found, default=0.0)


def agreement(views: Sequence[View], boxes: Float[np.ndarray, "token 4"], size: Size) -> float:
    """Returns how well two placements of each grid agree, from 0 to 1: the least of any grid.

    It is the median intersection over union of a grid's footprints with the cells that were fitted to its tokens'
    own rectangles, before what the pictures changed in all its tokens refined them. The two placements make different
    errors.

    Args:
        views: The grids.
        boxes: The footprints of all tokens, xyxy in pixels; NaN for none.
        size: (width, height) of the image.
    """
    grids = [grid for view in views for grid in view.lattices]
    return min((_agreement(grid, boxes[grid.start : grid.stop], size) for grid in grids), default=0.0)


def kept(
    profiles: Profiles, boxes: Float[np.ndarray, "token 4"], raw: Raw, change: Float[np.ndarray, " token"]
) -> float:
    """Returns the share of what the tokens' own rectangles explain that their footprints explain too, from 0 to 1.

    It is the mean over tokens of the share of variance that the footprint explains, divided by the share that the
    token's own rectangle explains, 1 at most, and 0 for a token without a footprint. A token counts by how much it
    changes with the image, up to the 90th percentile: tokens of padding hardly count. Grids in an order that the tokens
    do not have explain much less, or leave most tokens outside the image.

    Args:
        profiles: How far each token moves with each picture.
        boxes: The footprints, xyxy in pixels; NaN for none.
        raw: Each token's own rectangle.
        change: The mean squared change of each token's embedding over pictures.
    """
    shares = np.minimum(np.nan_to_num(explained(profiles, boxes)) / np.maximum(raw.explained, 1e-9), 1)
    weight = np.minimum(change, np.quantile(change, _STRONG))
    return float((weight * shares).sum() / weight.sum())


def least_trust(views: Sequence[View], confidence: Float[np.ndarray, " token"]) -> float:
    """Returns the least mean confidence of the tokens of any view, from 0 to 1; 0 without views."""
    return min((float(confidence[view.tokens].mean()) for view in views), default=0.0)


def line_trust(views: Sequence[View], confidence: Float[np.ndarray, " token"]) -> float:
    """Returns the least mean confidence of any row or column of four tokens or more, from 0 to 1; 1 without any.

    In a layout whose rows run to and fro, every second row has a very low confidence.
    """
    found = [
        float(confidence[view.tokens[places == place]].mean())
        for view in views
        for places in view.places.T
        for place in np.flatnonzero(np.bincount(places) >= _LINE)
    ]
    return min(found, default=1.0)


def overlap(
    boxes: Float[np.ndarray, "token 4"], others: Float[np.ndarray, "token 4"]
) -> Float[np.ndarray, " token"]:
    """Returns the intersection over union of pairs of boxes, from 0 to 1: 1 if both have no area, 0 if one has none."""
    both = [covered_area(a[None], b[None])[0] for a, b in zip(boxes, others, strict=True)]
    areas = [np.nan_to_num(np.prod(one[:, 2:] - one[:, :2], axis=1)) for one in (boxes, others)]
    union = areas[0] + areas[1] - both
    return np.where(union > 0, np.divide(both, union, out=np.ones(len(boxes)), where=union > 0), 1.0)


def _agreement(grid: Lattice, boxes: Float[np.ndarray, "token 4"], size: Size) -> float:
    low, high = (np.clip(grid.origin + grid.pitch * (grid.places + end), 0, size) for end in (0, 1))
    first = np.concatenate([low, high], axis=1)
    first[((high - low) < SLIVER * grid.pitch).any(axis=1)] = np.nan
    placed = _placed(first) | _placed(boxes)
    return float(np.median(overlap(first[placed], boxes[placed]))) if placed.any() else 0.0


def _same_size(one: View, other: View) -> bool:
    return bool((np.abs(np.log(one.pitch / other.pitch)) < np.log(_SAME_SIZE)).all())


def _extent(boxes: Float[np.ndarray, "token 4"]) -> Float[np.ndarray, " 2"] | None:
    """Returns the width and the height of all boxes together; None if there is none."""
    placed = boxes[_placed(boxes)]
    return placed[:, 2:].max(axis=0) - placed[:, :2].min(axis=0) if len(placed) else None


def _placed(boxes: Float[np.ndarray, "token 4"]) -> Bool[np.ndarray, " token"]:
    return ~np.isnan(boxes[:, 0])


_BESIDE = (0.6, 1.75)
"""In cells from a cell's centre: what counts as beside the cell."""
_ERRORS = 3.0
"""A lean counts if it is at least so many standard errors."""
_FEW = 4
"""Fewer profiles than this show none."""


def lean(views: Sequence[View], codes: tuple[Code, Code], energies: Sequence[Sequence[np.ndarray]]) -> float:
    """Returns how far tokens lean to one side, from 0 for none to 1: the largest of any view and axis.

    Of all that changes a token within 1.75 cells of its cell's centre along an axis, it is the share beside the cell
    (from 0.6 cells on) on one side less that on the other, in the mean over tokens and textures, and 0 where that is
    below three standard errors. A token of one tower sees as much on one side as on the other. A token that
    joins two towers with different offsets (strided convolutions beside patches) does not; the measured cell then lies
    between the cells of the two towers.

    Args:
        views: The lattices. Tokens whose reach the image's border cuts are left out.
        codes: The code of the x axis and the code of the y axis.
        energies: For each texture and axis (token, picture), the squared change of a token's embedding.
    """
    found = [_lean(view, codes, [one[a] for one in energies], a) for view in views for a in (0, 1)]
    return max(found, default=0.0)


def _lean(view: View, codes: tuple[Code, Code], energies: Sequence[np.ndarray], axis: int) -> float:
    shares = [_shares(view, codes, energy[view.tokens], axis) for energy in energies]
    both = np.concatenate(shares)
    if len(both) < _FEW:
        return 0.0
    mean = float(both.mean())
    error = float(both.std(ddof=1)) / np.sqrt(len(both) / len(shares))  # the textures show the same tokens
    return abs(mean) if abs(mean) >= _ERRORS * error else 0.0


def _shares(
    view: View, codes: tuple[Code, Code], energy: Float[np.ndarray, "token picture"], axis: int
) -> Float[np.ndarray, " kept"]:
    """Returns each token's share beyond its cell less that before it, for tokens inside the image."""
    near, far = _BESIDE
    code, lengths = codes[axis], np.array([one.length for one in codes])
    centres = view.origin + view.pitch * (view.places + 0.5)
    reach = far * view.pitch[axis]
    middle = (code.edges[1:] + code.edges[:-1]) / 2
    painted = np.arange(len(middle)) % int(
        code.sparse.sum()
    )  # the picture that paints a bin, in the bin's own tooth
    inside = ((centres > 0) & (centres < lengths)).all(axis=1)
    inside &= (centres[:, axis] >= reach) & (centres[:, axis] <= code.length - reach)
    away = (middle - centres[inside, axis, None]) / view.pitch[axis]
    seen = np.where(np.abs(away) <= far, energy[inside][:, painted], 0.0)
    total = np.maximum(seen.sum(axis=1), 1e-20)
    return ((seen * (away > near)).sum(axis=1) - (seen * (away < -near)).sum(axis=1)) / total


_EXPLAINED, _PLACED = 6.44, -1.62
"""Log-odds that a footprint is right: slope by the share of variance it explains, and at none."""
_OTHERS, _SEEN, _NONE = 2.51, -3.39, 0.68
"""Log-odds that a token without a footprint has none: slope by the mean probability of the footprints, by how much the
token changes with the image, and at 0 of both."""


def probability(
    profiles: Profiles, boxes: Float[np.ndarray, "token 4"], seen: Float[np.ndarray, " token"]
) -> Float[np.ndarray, " token"]:
    """Returns the probability that each footprint is right, from 0 to 1.

    A footprint is right if its intersection over union with the true one is at least 0.5; a token without a footprint
    is right if the true one has none either. A footprint's log-odds are a line in the share of the token's variance
    over pictures that it explains (of the worse axis). The lines were fitted by logistic regression on half of the
    built-in families at 150×290 pixels, with three amounts of leakage between tokens; docs/new_model.md states how well
    they hold on the other half. All are 0 where no token has a footprint.

    Args:
        profiles: How far each token moves with each picture.
        boxes: The footprints; NaN for none.
        seen: How much each token changes with the image, as a share of the median token, from 0 to 1.
    """
    placed = ~np.isnan(boxes[:, 0])
    if not placed.any():
        return np.zeros(len(boxes))
    found = _logistic(_EXPLAINED * explained(profiles, boxes) + _PLACED)
    found[~placed] = _logistic(_OTHERS * found[placed].mean() + _SEEN * seen[~placed] + _NONE)
    return found


def _logistic(odds: Float[np.ndarray, " token"]) -> Float[np.ndarray, " token"]:
    return 1 / (1 + np.exp(-odds))
