"""From what each picture changes to where each token looks: the interval that explains a token's changes best."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from interp.models.measured.patterns import Code

__all__ = ["Profiles", "Raw", "explained", "intervals", "matched", "read_off"]

_EDGES = 96
"""Places along an axis at which an interval may begin or end."""
_ROWS = 256


@dataclass(frozen=True, eq=False)
class Profiles:
    """How far each token moves with each picture.

    Attributes:
        codes: The pictures of the x axis and of the y axis.
        energies: For each axis (token, picture), the change of a token's embedding, in units of its mean over pictures.
    """

    codes: tuple[Code, Code]
    energies: tuple[Float[np.ndarray, "token across"], Float[np.ndarray, "token down"]]


@dataclass(frozen=True, eq=False)
class Raw:
    """Each token's rectangle by itself.

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

    A matched filter: energies are fitted by gain · (share of the interval that is painted) + offset.
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
