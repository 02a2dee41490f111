"""The keys of cross-attention layers: an image's tokens where they are no part of the sequence."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from jaxtyping import Bool, Int

__all__ = ["CrossKeys"]


@dataclass(frozen=True, eq=False)
class CrossKeys:
    """What the rows of one prompt may attend to in cross-attention layers.

    Keys come in blocks of `width`, such as a tile with its class token: block b has the columns b·width … (b + 1)·width
    − 1. All rows of a block are open or none.

    Attributes:
        placeholders: (image,) positions of the sequence that stand for the images, increasing.
        blocks: (row, block) whether a row of the prompt sees a block's keys.
        width: Keys of a block.
    """

    placeholders: Int[np.ndarray, " image"]
    blocks: Bool[np.ndarray, "row block"]
    width: int

    @property
    def n(self) -> int:
        """Keys of a cross-attention layer, those of padding included; 0 without an image."""
        return self.blocks.shape[1] * self.width

    @cached_property
    def first_text(self) -> int:
        """The position after the last placeholder; 0 without one."""
        return int(self.placeholders[-1]) + 1 if len(self.placeholders) else 0

    def seen(self, row: int) -> Int[np.ndarray, " key"]:
        """The columns that a row of the prompt sees; every generated token sees what the last row does."""
        return np.flatnonzero(np.repeat(self.blocks[row], self.width))
