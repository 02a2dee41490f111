"""Pictures for measuring: a low-contrast texture, another in its place, and stripes in which one replaces the other."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from math import ceil, log2

import numpy as np
from jaxtyping import Bool, Float, UInt8

__all__ = ["Code", "painted", "stripes", "texture"]

Picture = UInt8[np.ndarray, "row col 3"]

_SCALES = (4, 12, 36)
"""Sides of the texture's blocks in pixels: something of it is left however much the image is shrunk."""
_CONTRAST = 26.0
"""Standard deviation of each scale, in levels of 255: a tower answers small changes nearly linearly."""
_PER_TOKEN = 4
_PERIOD = 24
"""Bins between the teeth of a comb."""
_FEW = 72
"""Up to so many bins, each has a picture of its own; more are coded."""


def texture(size: tuple[int, int], seed: int) -> Picture:
    """Returns grey noise of (width, height) in coloured blocks of three sizes."""
    (width, height), rng = size, np.random.default_rng(seed)
    noise = np.full((height, width, 3), 127.0)
    for side in _SCALES:
        blocks = rng.normal(scale=_CONTRAST, size=(ceil(height / side), ceil(width / side), 3))
        noise += np.repeat(np.repeat(blocks, side, 0), side, 1)[:height, :width]
    return noise.clip(0, 255).round().astype(np.uint8)


@dataclass(frozen=True, eq=False)
class Code:
    """Stripes across one axis: which bins each picture paints.

    Attributes:
        edges: (bin + 1,) pixels between bins, from 0 to the image's length.
        masks: (picture, bin) whether a picture paints a bin.
        sparse: (picture,) whether few tokens see a picture's stripes, so that what all tokens show of it is leakage.
    """

    edges: Float[np.ndarray, " edge"]
    masks: Bool[np.ndarray, "picture bin"]
    sparse: Bool[np.ndarray, " picture"]

    @property
    def n(self) -> int:
        """Pictures."""
        return len(self.masks)

    @property
    def length(self) -> float:
        """Pixels along the axis."""
        return float(self.edges[-1])

    def seen(
        self, low: Float[np.ndarray, "*cell"], high: Float[np.ndarray, "*cell"]
    ) -> Float[np.ndarray, "*cell picture"]:
        """Returns the share of each interval that each picture paints, from 0 to 1; 0 for one without length."""
        shared = np.minimum(high[..., None], self.edges[1:]) - np.maximum(low[..., None], self.edges[:-1])
        share = np.maximum(shared, 0) / np.maximum(high - low, 1e-9)[..., None]
        return share @ self.masks.T.astype(float)

    def levelled(self, values: Float[np.ndarray, "*cell picture"]) -> Float[np.ndarray, "*cell picture"]:
        """Returns the values less their mean over the pictures of a kind, which is what leaks from the whole image."""
        out = np.array(values, float)
        for kind in (self.sparse, ~self.sparse):
            if kind.any():
                out[..., kind] -= out[..., kind].mean(-1, keepdims=True)
        return out


def stripes(length: int, token: float) -> Code:
    """Returns the code of one axis of `length` pixels for tokens about `token` pixels long.

    A bin is a quarter of a token. Few bins are painted one by one. Many are painted as the teeth of combs, 24 bins
    apart, and a Gray code of the tooth's number with its inverse says which tooth it was: 24 + 2·log2(bins / 24)
    pictures instead of one a bin.
    """
    n = min(max(ceil(length * _PER_TOKEN / token), 4), length)
    edges = np.linspace(0, length, n + 1).round()
    if n <= _FEW:
        return Code(edges, np.eye(n, dtype=bool), np.ones(n, bool))
    place = np.arange(n)
    combs = place % _PERIOD == np.arange(_PERIOD)[:, None]
    tooth = place // _PERIOD
    bits = np.arange(ceil(log2(tooth[-1] + 1)))
    gray = ((tooth ^ (tooth >> 1)) >> bits[:, None]) % 2 == 1
    masks = np.concatenate([combs, gray, ~gray])
    return Code(edges, masks, np.arange(len(masks)) < _PERIOD)


def painted(still: Picture, other: Picture, code: Code, axis: int) -> Iterator[Picture]:
    """Yields `still` with the stripes of each picture of the code taken from `other`; axis 0 is x, 1 is y."""
    bins = np.repeat(np.arange(len(code.edges) - 1), np.diff(code.edges).astype(int))
    for mask in code.masks[:, bins]:
        yield np.where(mask[None, :, None] if axis == 0 else mask[:, None, None], other, still)
