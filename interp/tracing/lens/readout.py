"""From the residual stream to logits: the final norm, and what it does when its scale is frozen."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from interp.errors import ModelError

__all__ = ["Readout", "frozen"]

LARGE = 1e3  # an RMS norm of a large constant gives its gain: its epsilon no longer counts


def frozen(norm: Any, x: Float[Tensor, "*place hidden"]) -> Float[Tensor, "*place hidden"]:
    """What an RMS norm multiplies `x` by, value by value: gain / RMS(x). With it frozen, the norm is linear.

    Args:
        norm: the bridge's norm.
        x: what enters it.

    Raises:
        ModelError: A norm that also subtracts the mean.
    """
    if not norm.uses_rms_norm:
        raise ModelError(
            f"{type(norm.original_component).__name__} is no RMS norm, and only those can be frozen here. "
            "Use a logit lens, which takes any norm."
        )
    module = norm.original_component
    gain = module(torch.full_like(x, LARGE)).float()
    plain, given = gain * x.float(), module(x).float()
    scale = (given * plain).sum(-1, keepdim=True) / (plain * plain).sum(-1, keepdim=True)
    return gain * scale


@dataclass(frozen=True, eq=False)
class Readout:
    """The last steps of a model. None of the supported families caps its logits.

    Attributes:
        norm: the bridge's final norm.
        head: the transformers module that gives logits.
    """

    norm: Any
    head: Any

    @classmethod
    def of(cls, bridge: Any) -> Readout:
        """The bridge's."""
        return cls(bridge.ln_final, bridge.unembed.original_component)

    def logits(self, residual: Float[Tensor, "place hidden"]) -> Float[Tensor, "place token_id"]:
        """The logits that a residual stream would give if no layer followed."""
        return self.head(self.norm.original_component(residual)).float()
