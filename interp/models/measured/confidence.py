"""How likely each measured footprint is right, from how well it explains what the pictures changed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float

from interp.models.measured.decode import Profiles, Raw, matched

__all__ = ["Evidence", "evidence", "probability"]


@dataclass(frozen=True, eq=False)
class Evidence:
    """What speaks for each token's footprint; all from 0 to 1.

    Attributes:
        placed: (token,) whether it has an area.
        cell: The share of the token's variance over pictures that the footprint explains; of the worse axis.
        best: The same of the rectangle that explains it best.
        halves: As `cell`, with one texture alone: the worse of both.
        loss: How far the token by itself lies from its cell: 0 at its centre, 1 a cell away or in no grid.
        seen: How much the token changes with the image, as a share of the median token, 1 at most.
    """

    placed: Bool[np.ndarray, " token"]
    cell: Float[np.ndarray, " token"]
    best: Float[np.ndarray, " token"]
    halves: Float[np.ndarray, " token"]
    loss: Float[np.ndarray, " token"]
    seen: Float[np.ndarray, " token"]


def evidence(
    profiles: Profiles,
    single: Sequence[Profiles],
    raw: Raw,
    boxes: Float[np.ndarray, "token 4"],
    loss: Float[np.ndarray, " token"],
    seen: Float[np.ndarray, " token"],
) -> Evidence:
    """Returns the evidence.

    Args:
        profiles: What all pictures changed.
        single: What each texture's pictures changed.
        raw: Each token's rectangle by itself.
        boxes: The footprints; NaN for none.
        loss: How far each token by itself lies from its cell.
        seen: How much each token changes.
    """
    placed = ~np.isnan(boxes[:, 0])
    filled = np.where(placed[:, None], boxes, raw.boxes)
    halves = np.min([_explained(one, filled) for one in single], axis=0)
    return Evidence(placed, _explained(profiles, filled), raw.explained, halves, loss, seen)


def _explained(profiles: Profiles, boxes: Float[np.ndarray, "token 4"]) -> Float[np.ndarray, " token"]:
    shares = [
        matched(energy, code, boxes[:, a], boxes[:, a + 2])
        for a, (energy, code) in enumerate(zip(profiles.energies, profiles.codes, strict=True))
    ]
    return np.minimum(*shares)


def probability(told: Evidence) -> Float[np.ndarray, " token"]:
    """Returns the probability that each footprint is right."""
    return np.where(told.placed, told.cell, 1 - told.best)
