"""Which tiles of a field of nuclei are asked about: rules on the instance masks, no model consulted.

The balanced tiles are pairs. Of one nucleus, alike in everything but where it lies: a tile with it on the left and
one with it on the right; of one nucleus, a narrow tile in which it is large and a wide one in which it is small.
So neither the nucleus nor how often an answer is right helps to answer.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from interp.data import build

__all__ = ["Tile", "empty_tiles", "largest_whole", "side_pairs", "size_pairs", "tiles"]

NARROW = 64
WIDE = (160, 192, 224, 256)
CLEAR, LARGER = 1.3, 1.05
STEP = 8
OFFSET = 0.2
EMPTY, EMPTY_GREY, BLUR = 48, 1.6, 9


@dataclass(frozen=True)
class Tile:
    """A square tile of a field, its top left corner at (`y`, `x`), and the nucleus it is asked about."""

    side: int
    y: int
    x: int
    nucleus: int
    box: build.BoxTuple = (0.0, 0.0, 0.0, 0.0)
    """Of the nucleus, in pixels of the tile."""

    @property
    def at(self) -> tuple[slice, slice]:
        """Rows and columns of the tile in its field."""
        return slice(self.y, self.y + self.side), slice(self.x, self.x + self.side)

    @property
    def offset(self) -> float:
        """How far the middle of the box is right of the tile's middle, as a share of the width."""
        return (self.box[0] + self.box[2]) / 2 / self.side - 0.5

    @property
    def share(self) -> float:
        """The box's share of the tile's area."""
        return (self.box[2] - self.box[0]) * (self.box[3] - self.box[1]) / self.side**2


def tiles(size: int, step: int) -> list[tuple[int, int, int]]:
    """Returns (side, y, x) of overlapping square tiles of a square picture, the large ones first."""
    return [corner for side in (128, 96) for corner in corners(size, side, step)]


def corners(size: int, side: int, step: int) -> list[tuple[int, int, int]]:
    """Returns (side, y, x) of the tiles of one side, row by row."""
    return [(side, y, x) for y in range(0, size + 1 - side, step) for x in range(0, size + 1 - side, step)]


def largest_whole(marks: np.ndarray, ratio: float = CLEAR) -> int | None:
    """Returns the largest nucleus if it is whole and `ratio` times the next as far as that is seen; else None."""
    areas = np.bincount(marks.ravel(), minlength=2)
    areas[0] = 0
    best = int(areas.argmax())
    rest = np.delete(areas, best).max()
    edge = np.concatenate([marks[0], marks[-1], marks[:, 0], marks[:, -1]])
    return None if areas[best] < ratio * rest or areas[best] == 0 or best in edge else best


def found(marks: np.ndarray, side: int, ratio: float) -> list[Tile]:
    """Returns the tiles of one side that hold a largest nucleus in one piece."""
    kept = []
    for _, y, x in corners(len(marks), side, STEP):
        tile = marks[y : y + side, x : x + side]
        nucleus = largest_whole(tile, ratio)
        if nucleus and (piece := build.largest_component(tile == nucleus)) is not None:
            kept.append(Tile(side, y, x, nucleus, build.box_of(piece)))
    return kept


def side_pairs(marks: np.ndarray) -> list[tuple[Tile, Tile]]:
    """Returns (left, right) tiles of every nucleus that has both, by the nucleus' number.

    Of the tiles on one side, the one whose box lies nearest to a fifth of the width off the middle; of those, the
    first.
    """
    narrow = found(marks, NARROW, CLEAR)
    best: dict[tuple[int, str], Tile] = {}
    for tile in narrow:
        side = build.side(tile.box, tile.side)
        if side is None:
            continue
        known = best.get((tile.nucleus, side))
        if known is None or abs(abs(tile.offset) - OFFSET) < abs(abs(known.offset) - OFFSET):
            best[tile.nucleus, side] = tile
    both = sorted({n for n, side in best if side == "left"} & {n for n, side in best if side == "right"})
    return [(best[n, "left"], best[n, "right"]) for n in both]


def size_pairs(marks: np.ndarray) -> list[tuple[Tile, Tile]]:
    """Returns (large, small) tiles of every nucleus that has both, by the nucleus' number.

    In the small one every nucleus' box is small, so the answer is the same whichever of two alike is meant. The
    narrowest tile is taken, of those the first.
    """
    large: dict[int, Tile] = {}
    for tile in found(marks, NARROW, CLEAR):
        if build.size(tile.share) == "large":
            large.setdefault(tile.nucleus, tile)
    small: dict[int, Tile] = {}
    for side in WIDE:
        for tile in found(marks, side, LARGER):
            if tile.nucleus in large and tile.nucleus not in small and all_small(marks[tile.at]):
                small[tile.nucleus] = tile
    return [(large[n], small[n]) for n in sorted(small)]


def all_small(marks: np.ndarray) -> bool:
    """Tells whether the box of everything marked is small in the tile."""
    boxes = (build.box_of(marks == value) for value in np.unique(marks[marks > 0]))
    return all(build.size((x1 - x0) * (y1 - y0) / marks.size) == "small" for x0, y0, x1, y1 in boxes)


def empty_tiles(grey: np.ndarray, marks: np.ndarray, side: int = EMPTY) -> list[Tile]:
    """Returns tiles that do not overlap, hold no marked pixel and show nothing that went unmarked.

    Nothing in them, blurred over 9 pixels, may be brighter than 1.6 times the median of what is not marked.
    """
    kept: list[Tile] = []
    limit = EMPTY_GREY * float(np.median(grey[marks == 0]))
    busy = (marks > 0) | (ndimage.uniform_filter(grey.astype(float), BLUR) > limit)
    for _, y, x in corners(len(marks), side, STEP // 2):
        tile = Tile(side, y, x, 0)
        apart = all(abs(y - other.y) >= side or abs(x - other.x) >= side for other in kept)
        if apart and not busy[tile.at].any():
            kept.append(tile)
    return kept
