"""How likely each measured footprint is right, from how well it explains what the pictures changed."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float

from interp.models.measured.decode import Profiles, explained

__all__ = ["probability"]

_EXPLAINED, _PLACED = 6.44, -1.62
"""Log-odds that a footprint is right: slope by the share of variance it explains, and at none."""
_OTHERS, _SEEN, _NONE = 2.51, -3.39, 0.68
"""Log-odds that a token without a footprint has none: slope by the mean probability of the footprints, by how much the
token changes with the image, and at 0 of both."""


def probability(
    profiles: Profiles, boxes: Float[np.ndarray, "token 4"], seen: Float[np.ndarray, " token"]
) -> Float[np.ndarray, " token"]:
    """Returns the probability that each footprint is right, from 0 to 1.

    Right is one whose intersection over union with the true one is at least 0.5; a token without a footprint is right
    if it has none. A footprint's log-odds are a line in the share of the token's variance over pictures that it
    explains (of the worse axis). The lines were fitted by logistic regression on half of the built-in families at
    150×290 pixels, with what each picture changed leaking between tokens by three amounts; docs/new_model.md states how
    they hold on the other half. 0 for every token where none has a footprint.

    Args:
        profiles: What all pictures changed.
        boxes: The footprints; NaN for none.
        seen: How much each token changes with the image, as a share of the median token, 1 at most.
    """
    placed = ~np.isnan(boxes[:, 0])
    if not placed.any():
        return np.zeros(len(boxes))
    found = _logistic(_EXPLAINED * explained(profiles, boxes) + _PLACED)
    found[~placed] = _logistic(_OTHERS * found[placed].mean() + _SEEN * seen[~placed] + _NONE)
    return found


def _logistic(odds: Float[np.ndarray, " token"]) -> Float[np.ndarray, " token"]:
    return 1 / (1 + np.exp(-odds))
