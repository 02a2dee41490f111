"""Smooth random pictures, and what is painted over them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, UInt8
from PIL import Image

from interp.errors import ModelError

__all__ = ["inner_box", "repainted", "shapes", "smooth"]

_ASPECTS = ((1.0, 1.0), (2.4, 0.9), (0.8, 2.1), (0.31, 0.23))
"""Width and height of the square, wide, tall and tiny pictures, in sides of the square one."""


def shapes(side: int) -> list[tuple[int, int]]:
    """(width, height) of a square, a wide, a tall and a tiny picture; odd numbers, so that roundings show."""
    return [(round(side * width) | 1, round(side * height) | 1) for width, height in _ASPECTS]


def smooth(size: tuple[int, int], seed: int) -> UInt8[np.ndarray, "row col 3"]:
    """A random picture of (width, height) without edges: 6×6 random colours, interpolated."""
    coarse = np.random.default_rng(seed).integers(40, 216, (6, 6, 3), dtype=np.uint8)
    return np.asarray(Image.fromarray(coarse).resize(size, Image.Resampling.BICUBIC))


def inner_box(footprint: Float[np.ndarray, " 4"], margin: float = 0.1) -> tuple[int, int, int, int]:
    """Whole pixels well inside a footprint, xyxy, half-open.

    Args:
        footprint: xyxy in pixels.
        margin: share of each side to stay away from. A side that holds no whole pixel then gets the pixel of
            its centre.
    """
    edges = []
    for low, high in ((footprint[0], footprint[2]), (footprint[1], footprint[3])):
        away = margin * (high - low)
        start, stop = int(np.ceil(low + away)), int(np.floor(high - away))
        if stop <= start:
            start = int(np.floor((low + high) / 2))
            stop = start + 1
        edges.append((start, stop))
    (x0, x1), (y0, y1) = edges
    return x0, y0, x1, y1


def repainted(picture: UInt8[np.ndarray, "row col 3"], box: Sequence[int]) -> UInt8[np.ndarray, "row col 3"]:
    """The picture with the box painted in the colour most unlike what was there, each channel 0 or 255.

    Raises:
        ModelError: A box that reaches outside the picture.
    """
    x0, y0, x1, y1 = box
    height, width = picture.shape[:2]
    if not (0 <= x0 < x1 <= width and 0 <= y0 < y1 <= height):
        raise ModelError(
            f"a footprint holds the pixels {tuple(box)} (xyxy), outside its image of {width}×{height}. Does the "
            "adapter give it to the right image of the sample?"
        )
    changed = picture.copy()
    patch = picture[y0:y1, x0:x1].reshape(-1, 3).mean(axis=0)
    changed[y0:y1, x0:x1] = np.where(patch < 128, 255, 0)
    return changed
