"""The patches behind LLaVA-NeXT's and LLaVA-OneVision's tokens: a grid of the whole image, then one of each tile."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from jaxtyping import Float
from torch.nn.functional import interpolate

from interp.inputs.footprints import Footprints, Size
from interp.inputs.patch_map import Patches, PatchWeights, TowerSequence
from interp.models.anyres import AnyRes, mesh

__all__ = ["anyres_patches"]


def anyres_patches(
    cut: AnyRes | None, images: Sequence[tuple[Size, bool]], leading: tuple[str, ...]
) -> Patches:
    """Returns the patches of images of (width, height), each with whether it is cut into tiles.

    Args:
        cut: How images are cut; None if there are none.
        images: Each image's size and whether it has tiles beside the view of the whole.
        leading: The tokens that the tower puts before each sequence.
    """
    sequences: list[TowerSequence] = []
    weights: list[PatchWeights] = []
    for number, (size, tiled) in enumerate(images):
        assert cut is not None
        n = cut.per_tile
        base = cut.base(size) if tiled else _without_newline(cut.padded(size), n)
        tiles = _tiles(cut, size) if tiled else []
        sequences += [TowerSequence(replace(one, image=np.full(len(one), number))) for one in (base, *tiles)]
        weights.append(PatchWeights.members([[i] for i in range(n * n)], n * n))
        newline = PatchWeights.members([[]], 0)
        weights.append(_tile_weights(cut, size) if tiled else newline)
    return Patches(tuple(sequences), leading, PatchWeights.stacked(weights))


def _without_newline(cells: Footprints, n: int) -> Footprints:
    return Footprints(cells.boxes[: n * n], (n, n), cells.views[: n * n], cells.image[: n * n])


def _tiles(cut: AnyRes, size: Size) -> list[Footprints]:
    """Returns each tile's patches, tiles row by row; patches that see nothing but padding are NaN."""
    best, resized = cut.best(size), cut.resized(size)
    lines = []
    for axis in (0, 1):
        places = np.arange(cut.per_tile)[:, None] * cut.patch + np.array([0, cut.patch])
        corners = np.arange(0, best[axis], cut.side)[:, None, None]
        offset = (best[axis] - resized[axis]) // 2
        lines.append((corners + places - offset) * size[axis] / resized[axis])
    tiles = [mesh(size, down, across, view="tile") for down in lines[1] for across in lines[0]]
    return [replace(one, grid=(cut.per_tile, cut.per_tile)) for one in tiles]


def _tile_weights(cut: AnyRes, size: Size) -> PatchWeights:
    """Returns the weights of the tokens of the joined tiles, a newline token after each row."""
    (wide, high), n = cut.best(size), cut.per_tile
    across, down = wide // cut.side, high // cut.side
    numbers = np.arange(across * down * n * n).reshape(down, across, n, n).transpose(0, 2, 1, 3)
    joined = numbers.reshape(down * n, across * n)
    columns, rows = (_along(*one) for one in cut.kept(size))
    token, patch, weight = [], [], []
    for row, (which, share) in enumerate(rows):
        for column, (others, part) in enumerate(columns):
            found = joined[np.ix_(which, others)].reshape(-1)
            token.append(np.full(len(found), row * (len(columns) + 1) + column))
            patch.append(found)
            weight.append(np.outer(share, part).reshape(-1))
    shape = (len(rows) * (len(columns) + 1), int(numbers.size))
    return PatchWeights(np.concatenate(token), np.concatenate(patch), np.concatenate(weight), shape)


def _along(first: int, kept: int, cells: int) -> list[tuple[np.ndarray, Float[np.ndarray, " patch"]]]:
    """Returns the patches of each cell along an axis, and their weights: what bilinear interpolation takes of each."""
    if cells == kept:
        return [(np.array([first + i]), np.ones(1)) for i in range(kept)]
    whole = interpolate(torch.eye(kept, dtype=torch.float64)[None], size=cells, mode="linear")[0].T.numpy()
    return [(first + np.flatnonzero(one), one[one != 0]) for one in whole]
