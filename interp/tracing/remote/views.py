"""What a job sees of the model: nnsight's views of the modules that it reads, and of no weights."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

__all__ = ["Views", "capped"]


def capped(logits: Any, cap: float | None) -> Any:
    """Logits of the output layer, soft-capped where the model does that after it; float32."""
    wide = logits.float()
    return wide if cap is None else cap * torch.tanh(wide / cap)


@dataclass(frozen=True, eq=False)
class Views:
    """nnsight's views of a model's modules, inside a job.

    Called with a tensor, a view runs its module on it, apart from the pass that is going on.

    Attributes:
        layers: the decoder layers.
        norm: the norm after the last of them; None where it is not found.
        head: the output layer.
        cap: the soft cap of the logits.
    """

    layers: Sequence[Any]
    norm: Any
    head: Any
    cap: float | None

    def entering(self, layer: int) -> Tensor:
        """What enters a decoder layer, (sample, position, hidden)."""
        positional, named = self.layers[layer].inputs
        return positional[0] if positional else named["hidden_states"]

    def leaving(self, layer: int) -> Tensor:
        """What a decoder layer returns, (sample, position, hidden)."""
        output = self.layers[layer].output
        return output[0] if isinstance(output, tuple) else output

    def logits(self, keep: int = 1) -> Tensor:
        """The logits after the pass's last `keep` positions, float32."""
        return capped(self.head.output, self.cap)[:, -keep:]

    def read(self, residual: Tensor) -> Tensor:
        """The logits, float32, that a residual stream would give if no layer followed."""
        return capped(self.head(self.norm(residual)), self.cap)
