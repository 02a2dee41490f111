"""Residual streams that a decoder keeps stacked (Gemma 3n), as one vector for each position.

Gemma 3n's layers pass on four streams, (stream, sample, row, hidden). All four go on to the next layer, so what stands
at a position is the four side by side, stream 0 (the one that attention reads and writes) first.
"""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor

__all__ = ["side_by_side", "stacked"]


def side_by_side(given: Tensor) -> Float[Tensor, "sample row hidden"]:
    """What a layer takes or gives, one vector for each position; stacked streams one after the other."""
    return given.permute(1, 2, 0, 3).flatten(2) if given.ndim == 4 else given


def stacked(stream: Float[Tensor, "sample row hidden"], like: Tensor) -> Tensor:
    """The stream in the form of what a layer takes or gives; the inverse of `side_by_side`."""
    return stream.unflatten(2, (like.shape[0], -1)).permute(2, 0, 1, 3) if like.ndim == 4 else stream
