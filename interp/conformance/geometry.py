"""Whether there are as many image tokens as the map says, where it says, and whether they tile the image."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float

from interp.conformance.pictures import smooth
from interp.conformance.result import Measured
from interp.conformance.subject import Subject
from interp.footprints import Footprints, check_layout, covered_area
from interp.sample import Sample
from interp.tokens import TokenMap

__all__ = ["image_tokens", "tiling"]

_GAP = 0.99
"""Cells: a gap of one cell is a token that is missing."""


def image_tokens(subject: Subject) -> Measured:
    """Positions that move with the picture are those of the map; all others stay bit-equal.

    Tokens without area (newlines, class tokens) may do either.
    """
    wrong, total, where = 0, 0, []
    for picture in subject.pictures:
        other = smooth((picture.shape[1], picture.shape[0]), subject.seed + 91)
        batch = subject.mllm.encode([Sample(image, "where is it?") for image in (picture, other)])
        tokens = batch.tokens[0]
        embeddings = subject.mllm.embeddings(batch)
        moved = (embeddings[0] != embeddings[1]).any(dim=-1).cpu().numpy()
        area = ~np.isnan(tokens.footprints).any(axis=1)
        text = np.setdiff1d(np.arange(tokens.length), tokens.image)
        bad = int((~moved[tokens.image[area]]).sum() + moved[text].sum())
        wrong, total = wrong + bad, total + tokens.n
        where += [f"{bad} in a {_size(picture)} image"] if bad else []
    detail = f"{total} image tokens in {len(subject.pictures)} images take what the picture changes"
    return Measured(wrong, "positions that disagree with the map", 0, "; ".join(where) or detail)


def tiling(subject: Subject) -> Measured:
    """In each view, footprints do not overlap and no token is missing; a single grid runs row-major.

    Strips narrower than a cell may stay free: a tower leaves out the pixels that fill no patch.

    Raises:
        ModelError: From `check_layout`, naming what is wrong.
    """
    gaps, shares = [0.0], []
    for picture in subject.pictures:
        tokens = subject.mllm.encode(Sample(picture, "where is it?")).tokens[0]
        check_layout(
            Footprints(tokens.footprints, tokens.grid, tokens.views, tokens.image_index), tokens.sizes
        )
        for boxes in _views(tokens):
            gaps.append(_widest_gap(boxes))
            shares.append(np.prod(boxes[:, 2:] - boxes[:, :2], axis=1).sum() / np.prod(tokens.sizes[0]))
    detail = (
        f"views cover from {min(shares):.0%} to {max(shares):.0%} of their image"
        if shares
        else "no token has an area"
    )
    return Measured(max(gaps), "widest gap in a view, in cells", _GAP, detail, holds=bool(shares))


def _widest_gap(boxes: Float[np.ndarray, "token 4"]) -> float:
    """How much of a cell, across or down, fits between the footprints of one view."""
    cell = np.median(boxes[:, 2:] - boxes[:, :2], axis=0)
    xs, ys = (np.unique(np.round(boxes[:, [axis, axis + 2]], 6)) for axis in (0, 1))
    x0, y0 = (grid.reshape(-1) for grid in np.meshgrid(xs[:-1], ys[:-1]))
    x1, y1 = (grid.reshape(-1) for grid in np.meshgrid(xs[1:], ys[1:]))
    pieces = np.stack([x0, y0, x1, y1], axis=1)
    sides = pieces[:, 2:] - pieces[:, :2]
    free = covered_area(pieces, boxes) < 0.5 * sides.prod(axis=1)
    return float((sides / cell).min(axis=1)[free].max(initial=0.0))


def _views(tokens: TokenMap) -> list[np.ndarray]:
    """The footprints of each view that has some."""
    area = ~np.isnan(tokens.footprints).any(axis=1)
    return [tokens.footprints[area & (tokens.views == view)] for view in np.unique(tokens.views[area])]


def _size(picture: np.ndarray) -> str:
    return f"{picture.shape[1]}×{picture.shape[0]}"
