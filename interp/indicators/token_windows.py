"""Windows and blocks of neighbouring image tokens."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Float, Int

from interp.inputs.tokens import TokenMap

__all__ = ["blocks", "places", "windows"]


def places(tokens: TokenMap) -> Float[np.ndarray, "token 2"]:
    """The place of each image token in its image, (row, column), counted in tokens; NaN without footprint.

    On a grid these are the token's row and column. Otherwise, as with tiles, they are the centre of the footprint in
    units of the image's smallest footprint, so that tokens of several views that show the same place get the same
    numbers.
    """
    boxes = tokens.footprints
    hollow = np.isnan(boxes).any(axis=1)
    if tokens.grid is not None:
        index = np.arange(tokens.n) % (tokens.grid[0] * tokens.grid[1])
        found = np.stack(np.divmod(index, tokens.grid[1]), axis=1).astype(float)
    else:
        found = np.full((tokens.n, 2), np.nan)
        for image in np.unique(tokens.image_index[~hollow]):
            mine = (tokens.image_index == image) & ~hollow
            sizes = (boxes[mine, 2:] - boxes[mine, :2])[:, ::-1]
            centres = (boxes[mine, :2] + boxes[mine, 2:])[:, ::-1] / 2
            found[mine] = centres / np.median(_smallest(sizes, tokens.views[mine]), axis=0) - 0.5
    found[hollow] = np.nan
    return found


def _smallest(sizes: Float[np.ndarray, "token 2"], views: np.ndarray) -> Float[np.ndarray, "token_of_view 2"]:
    """The sizes of the view with the smallest footprints; footprints at the edge of an image may be cut."""
    each = [sizes[views == view] for view in np.unique(views)]
    return min(each, key=lambda own: float(np.median(np.prod(own, axis=1))))


def windows(tokens: TokenMap, side: int) -> Bool[np.ndarray, "window token"]:
    """For each image token, the tokens in the square of `side` × `side` tokens around it; `side` is odd.

    A window holds tokens of the same image and view and is cut off at the image's edge. The window of a token without
    footprint is empty.
    """
    at, boxes = places(tokens), tokens.footprints
    if tokens.grid is None:  # each view has its own size of tokens
        at, size = ((boxes[:, :2] + boxes[:, 2:]) / 2)[:, ::-1], (boxes[:, 2:] - boxes[:, :2])[:, ::-1]
    else:
        size = np.ones((tokens.n, 2))
    with np.errstate(invalid="ignore"):
        near = (np.abs(at[:, None] - at[None]) < side / 2 * size[:, None]).all(axis=2)
    same = (tokens.image_index[:, None] == tokens.image_index) & (tokens.views[:, None] == tokens.views)
    return near & same


def blocks(tokens: TokenMap, side: int, shift: Sequence[int] = (0, 0)) -> Int[np.ndarray, " token"]:
    """The number of the block of `side` × `side` tokens that each image token lies in; −1 without footprint.

    Blocks tile each image, starting `shift` tokens before its upper left corner; blocks at the edges are cut off.
    Numbers run from 0 without gaps, row by row, image after image.
    """
    at = places(tokens)
    known = ~np.isnan(at).any(axis=1)
    cells = np.floor((at[known] + 1e-9 + np.asarray(shift)) / side).astype(int)
    keys = np.column_stack([tokens.image_index[known], cells])
    found = np.full(tokens.n, -1)
    if known.any():
        found[known] = np.unique(keys, axis=0, return_inverse=True)[1].reshape(-1)
    return found
