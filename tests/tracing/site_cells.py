"""The cells of a site worked out from a token map, for edits written into an eager model."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from interp.inputs.tokens import TokenMap


@dataclass
class Where:
    """The cells of a site in one sample: rows of the prompt and, in decode, every later one."""

    tokens: TokenMap
    keys: np.ndarray
    rows: str  # "last" or "after_image"
    steps: str
    heads: tuple[int, ...] = (0, 1, 2, 3)
    layers: tuple[int, ...] = (1, 2)

    def cells(self, n: int) -> Tensor:
        """Bool (head, row, key) of a pass over n tokens."""
        prompt = self.tokens.length
        first = prompt - 1 if self.rows == "last" else int(self.tokens.image[-1]) + 1
        rows = {
            "prefill": range(first, prompt),
            "decode": range(prompt, n),
            "all": range(first, n),
        }[self.steps]
        found = torch.zeros(4, n, n, dtype=torch.bool)
        found[np.ix_(list(self.heads), list(rows), list(self.keys))] = True
        return found

    def change(self, new: Callable[[Tensor], Tensor]) -> Callable[[int, Tensor], Tensor]:
        def changed(layer: int, values: Tensor) -> Tensor:
            if layer not in self.layers:
                return values
            return torch.where(self.cells(values.shape[-1]), new(values), values)

        return changed
