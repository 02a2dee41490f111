"""Pictures for measuring, and where each token looks, read off what each picture changes.

The pictures are a low-contrast texture, another in its place, and stripes in which one replaces the other. A token
looks at the interval that explains its changes best.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from math import ceil, log2

import numpy as np
from jaxtyping import Bool, Float, UInt8

__all__ = [
    "Code",
    "Profiles",
    "Raw",
    "explained",
    "intervals",
    "matched",
    "painted",
    "read_off",
    "stripes",
    "texture",
]


Picture = UInt8[np.ndarray, "row col 3"]

_SCALES = (4, 12, 36)
"""Sides of the texture's blocks in pixels: the large ones are left when the image is shrunk."""
_CONTRAST = 26.0
"""Standard deviation of each scale, in levels of 255: a tower answers small changes nearly linearly."""
_PER_TOKEN = 4
_PERIOD = 24
"""Bins between the teeth of a comb."""
_FEW = 72
"""Up to this number of bins, each bin has a picture of its own; more bins are coded."""


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
        sparse: (picture,) whether few tokens see a picture's stripes, so that a change of all tokens is leakage.
    """

    edges: Float[np.ndarray, " edge"]
    masks: Bool[np.ndarray, "picture bin"]
    sparse: Bool[np.ndarray, " picture"]

    @property
    def n(self) -> int:
        """The number of pictures."""
        return len(self.masks)

    @property
    def length(self) -> float:
        """The length of the axis, in pixels."""
        return float(self.edges[-1])

    def seen(
        self, low: Float[np.ndarray, "*cell"], high: Float[np.ndarray, "*cell"]
    ) -> Float[np.ndarray, "*cell picture"]:
        """Returns the share of each interval that each picture paints, from 0 to 1; 0 for one without length."""
        shared = np.minimum(high[..., None], self.edges[1:]) - np.maximum(low[..., None], self.edges[:-1])
        share = np.maximum(shared, 0) / np.maximum(high - low, 1e-9)[..., None]
        return share @ self.masks.T.astype(float)

    def levelled(self, values: Float[np.ndarray, "*cell picture"]) -> Float[np.ndarray, "*cell picture"]:
        """Returns the values less their mean over the pictures of one kind (sparse or not), which is leakage."""
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


_EDGES = 96
"""Places along an axis at which an interval may begin or end."""
_ROWS = 256


@dataclass(frozen=True, eq=False)
class Profiles:
    """How far each token moves with each picture.

    Attributes:
        codes: The code of the x axis and the code of the y axis.
        energies: For each axis (token, picture), the change of a token's embedding, in units of its mean over pictures.
    """

    codes: tuple[Code, Code]
    energies: tuple[Float[np.ndarray, "token across"], Float[np.ndarray, "token down"]]


@dataclass(frozen=True, eq=False)
class Raw:
    """The rectangle that explains each token best, each token taken by itself.

    Attributes:
        boxes: (token, 4) xyxy in pixels of the image.
        explained: (token,) the share of the token's variance over pictures that the rectangle explains, from 0 to 1:
            the smaller of both axes.
    """

    boxes: Float[np.ndarray, "token 4"]
    explained: Float[np.ndarray, " token"]


def read_off(profiles: Profiles) -> Raw:
    """Returns the rectangle that explains each token's changes best."""
    (x0, x1, across), (y0, y1, down) = (
        intervals(energy, code) for energy, code in zip(profiles.energies, profiles.codes, strict=True)
    )
    return Raw(np.stack([x0, y0, x1, y1], axis=1), np.minimum(across, down))


def intervals(
    energy: Float[np.ndarray, "token picture"], code: Code
) -> tuple[Float[np.ndarray, " token"], Float[np.ndarray, " token"], Float[np.ndarray, " token"]]:
    """Returns low and high end of the interval that explains each token's energies best, and the share explained.

    It is a matched filter: energies are fitted by gain · (share of the interval that is painted) + offset.
    """
    n = code.length
    places = np.linspace(0, n, int(min(_EDGES, n)) + 1)
    i, j = np.triu_indices(len(places), 1)
    long_enough = places[j] - places[i] >= max(1.5, n / 64)
    low, high = places[i[long_enough]], places[j[long_enough]]
    pattern = code.levelled(code.seen(low, high))
    pattern /= np.maximum(np.linalg.norm(pattern, axis=1, keepdims=True), 1e-9)
    wave = code.levelled(energy)
    wave /= np.linalg.norm(wave, axis=1, keepdims=True) + 1e-20
    best, share = np.empty(len(wave), int), np.empty(len(wave))
    for start in range(0, len(wave), _ROWS):
        fit = wave[start : start + _ROWS] @ pattern.T
        best[start : start + _ROWS] = fit.argmax(axis=1)
        share[start : start + _ROWS] = np.maximum(fit.max(axis=1), 0) ** 2
    return low[best], high[best], share


def matched(
    energy: Float[np.ndarray, "token picture"],
    code: Code,
    low: Float[np.ndarray, " token"],
    high: Float[np.ndarray, " token"],
) -> Float[np.ndarray, " token"]:
    """Returns the share of each token's variance over pictures that its given interval explains, from 0 to 1."""
    pattern, wave = code.levelled(code.seen(low, high)), code.levelled(energy)
    length = np.linalg.norm(pattern, axis=1) * np.linalg.norm(wave, axis=1)
    return np.maximum((pattern * wave).sum(axis=1) / np.maximum(length, 1e-20), 0) ** 2


def explained(profiles: Profiles, boxes: Float[np.ndarray, "token 4"]) -> Float[np.ndarray, " token"]:
    """Returns the share of each token's variance over pictures that its given box explains, from 0 to 1.

    The smaller of both axes; NaN for a token without a box.
    """
    out, placed = np.full(len(boxes), np.nan), ~np.isnan(boxes[:, 0])
    shares = [
        matched(energy[placed], code, boxes[placed, a], boxes[placed, a + 2])
        for a, (energy, code) in enumerate(zip(profiles.energies, profiles.codes, strict=True))
    ]
    out[placed] = np.minimum(*shares)
    return out
