"""Whether measured grids agree with themselves: each shows the whole image, and two ways of placing it agree."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Float

from interp.inputs.footprints import Size, covered_area
from interp.models.measured.decode import Profiles, Raw, explained
from interp.models.measured.lattice import SLIVER, Lattice
from interp.models.measured.measured_views import View

__all__ = ["agreement", "kept", "least_trust", "line_trust", "overlap", "spanned"]

_SAME_SIZE = 1.25
"""Up to this ratio of their widths and of their heights, the cells of two views are of one size."""

_STRONG = 0.9
"""Quantile of the tokens' changes from which on they count alike."""

_LINE = 4
"""Rows and columns of fewer tokens are not looked at by themselves."""


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
    own rectangles, before what the pictures changed in all its tokens refined them. Both err in ways of their own.

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
    """Returns how much of what tokens' own rectangles explain is left to their footprints, from 0 to 1.

    It is the mean over tokens of the share of variance that the footprint explains, divided by the share that the
    token's own rectangle explains, 1 at most, and 0 for a token without a footprint. A token counts by how much it
    changes with the image, up to the 90th percentile: tokens of padding hardly count. Grids through tokens whose order
    is none of theirs explain much less, or leave most tokens outside of the image.

    Args:
        profiles: What all pictures changed.
        boxes: The footprints, xyxy in pixels; NaN for none.
        raw: Each token's own rectangle.
        change: The mean squared change of each token's embedding over pictures.
    """
    shares = np.minimum(np.nan_to_num(explained(profiles, boxes)) / np.maximum(raw.explained, 1e-9), 1)
    weight = np.minimum(change, np.quantile(change, _STRONG))
    return float((weight * shares).sum() / weight.sum())


def least_trust(views: Sequence[View], confidence: Float[np.ndarray, " token"]) -> float:
    """Returns the mean confidence of the tokens of that view where it is least, from 0 to 1; 0 without views."""
    return min((float(confidence[view.tokens].mean()) for view in views), default=0.0)


def line_trust(views: Sequence[View], confidence: Float[np.ndarray, " token"]) -> float:
    """Returns the mean confidence of that row or column of at least four tokens where it is least; 1 without any.

    Rows that run to and fro look like rows of which every second is not sure at all.
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
