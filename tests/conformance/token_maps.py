"""Token maps by hand."""

from __future__ import annotations

import numpy as np

from interp.inputs.footprints import CrossKeys
from interp.inputs.tokens import TokenMap


def token_map(image: list[int], length: int, cross: CrossKeys | None = None) -> TokenMap:
    """The map of a prompt of this length with image tokens at these positions, each on one pixel."""
    n = len(image)
    boxes = np.tile([0.0, 0.0, 1.0, 1.0], (n, 1))
    return TokenMap(
        np.array(image), boxes, None, np.full(n, ""), np.zeros(n, int), ((1, 1),), length, cross=cross
    )
