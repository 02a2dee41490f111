"""Test pictures: smooth random colours for random weights, pieces of photographs for trained ones."""

from __future__ import annotations

from functools import cache

import numpy as np
from jaxtyping import UInt8
from PIL import Image
from sklearn.datasets import load_sample_images

__all__ = ["photo", "shapes", "smooth"]

_ASPECTS = ((1.0, 1.0), (2.4, 0.9), (0.8, 2.1), (0.31, 0.23))
"""Width and height of the square, wide, tall and tiny pictures, relative to the side of the square one."""


def shapes(side: int) -> list[tuple[int, int]]:
    """Returns (width, height) of a square, a wide, a tall and a tiny picture; odd, so that rounding errors show."""
    return [(round(side * width) | 1, round(side * height) | 1) for width, height in _ASPECTS]


def smooth(size: tuple[int, int], seed: int) -> UInt8[np.ndarray, "row col 3"]:
    """Returns a random picture of (width, height) without edges: 6×6 random colours, interpolated."""
    coarse = np.random.default_rng(seed).integers(40, 216, (6, 6, 3), dtype=np.uint8)
    return np.asarray(Image.fromarray(coarse).resize(size, Image.Resampling.BICUBIC))


def photo(size: tuple[int, int], seed: int) -> UInt8[np.ndarray, "row col 3"]:
    """Returns a piece of one of scikit-learn's two photographs, at (width, height).

    A trained vision tower spreads what it cannot recognise over the whole picture, and nothing in smooth colours can be
    recognised. Seeds alternate between the photographs, a temple and a flower; place, scale and reflection are random.
    """
    rng = np.random.default_rng(seed)
    whole = _photographs()[seed % 2]
    height, width = whole.shape[:2]
    largest = min(width / size[0], height / size[1])
    scale = largest * rng.uniform(0.5, 1.0)
    across, down = (max(1, int(scale * side)) for side in size)
    left, top = int(rng.integers(0, width - across + 1)), int(rng.integers(0, height - down + 1))
    piece = Image.fromarray(whole[top : top + down, left : left + across])
    if rng.random() < 0.5:
        piece = piece.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    return np.asarray(piece.resize(size, Image.Resampling.BICUBIC))


@cache
def _photographs() -> list[UInt8[np.ndarray, "row col 3"]]:
    return load_sample_images().images
