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


def repeated(value: Any, n: int, name: str = "") -> Any:
    """An argument of a decoder, of one sample, for `n` of them: tensors, also in mappings and lists.

    Args:
        value: the argument.
        n: how many.
        name: its name; positions of several axes have their samples second, and "deepstack" has no samples: image
            tokens of one follow those of the other.
    """
    if isinstance(value, dict):
        return {key: repeated(one, n, name) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return type(value)([repeated(one, n, name) for one in value])
    if not isinstance(value, torch.Tensor) or value.ndim < 2:
        return value
    if name.startswith("deepstack"):
        return value.repeat(n, *[1] * (value.ndim - 1))
    at = 1 if name == "position_ids" and value.ndim == 3 else 0
    if value.shape[at] != 1:
        return value
    return value.expand(*value.shape[:at], n, *value.shape[at + 1 :])


@dataclass(frozen=True, eq=False)
class Views:
    """nnsight's views of a model's modules, inside a job.

    Called with a tensor, a view runs its module on it, apart from the pass that is going on.

    Attributes:
        layers: the decoder layers.
        norm: the norm after the last of them; None where it is not found.
        head: the output layer.
        cap: the soft cap of the logits.
        decoder: the module that has the layers.
    """

    layers: Sequence[Any]
    norm: Any
    head: Any
    cap: float | None
    decoder: Any = None

    def entering(self, layer: int) -> Tensor:
        """What enters a decoder layer, (sample, position, hidden)."""
        positional, named = self.layers[layer].inputs
        return positional[0] if positional else named["hidden_states"]

    def repeat(self, n: int) -> None:
        """Repeats what the decoder is given, of one sample, for `n` variants. The vision tower ran once."""
        positional, named = self.decoder.inputs
        self.decoder.inputs = (
            tuple(repeated(one, n) for one in positional),
            {name: repeated(one, n, name) for name, one in named.items()},
        )

    def enter(self, layer: int, stream: Tensor) -> None:
        """Puts a residual stream in the place of what enters a decoder layer."""
        positional, named = self.layers[layer].inputs
        if positional:
            self.layers[layer].inputs = ((stream, *positional[1:]), named)
        else:
            self.layers[layer].inputs = (positional, {**named, "hidden_states": stream})

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
