"""How answers are generated: greedily, by seeded sampling, guided by a second stream."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from numbers import Integral
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from interp.errors import ModelError, PromptError
from interp.tracing.passes.contrast import (
    ClinicalContrast,
    Contrast,
    Guidance,
    plain_numbers,
    real,
    stream_seed,
)

__all__ = ["Decoding", "Draw"]


@dataclass(frozen=True)
class Decoding:
    """How each next token is chosen from the logits.

    Beam search is refused: reads and edits are of each sample's own rows, and beams would reorder them.

    Args:
        temperature: 0 takes the most likely token; t ≥ 0.001 draws from softmax(logits / t), and the trace needs a
            seed. Each sample draws from a stream of its own, seeded by the seed and the sample's id, so that
            its answer does not depend on the rest of its batch.
        top_k: Draw among the k most likely tokens only.
        top_p: Draw among the fewest most likely tokens that have at least this probability together, in (0, 1].
        contrast: Guidance by a second stream, a `Contrast` or a `ClinicalContrast`; None for none.
        beams: 1.

    Raises:
        PromptError: Values out of range, top_k or top_p with temperature 0, or beams other than 1.
    """

    temperature: float = 0.0
    top_k: int | None = None
    top_p: float | None = None
    contrast: Guidance | None = None
    beams: int = field(default=1, kw_only=True)

    def __post_init__(self) -> None:
        if isinstance(self.beams, bool) or not isinstance(self.beams, Integral) or self.beams != 1:
            raise PromptError(
                f"beam search is refused (beams={self.beams!r}): reads and edits are of each sample's own rows, "
                "and beams would reorder them. Use temperature=0 for the most likely token at each step, or "
                "temperature > 0 with a seed, several times."
            )
        if not real(self.temperature) or self.temperature < 0 or 0 < self.temperature < 1e-3:
            raise PromptError(
                f"temperature is 0 (the most likely token) or a number ≥ 0.001; got {self.temperature!r}."
            )
        if self.top_k is not None and (
            not isinstance(self.top_k, Integral) or isinstance(self.top_k, bool) or self.top_k < 1
        ):
            raise PromptError(f"top_k is a whole number ≥ 1, or None; got {self.top_k!r}.")
        if self.top_p is not None and not (real(self.top_p) and 0 < self.top_p <= 1):
            raise PromptError(f"top_p is a share in (0, 1], or None; got {self.top_p!r}.")
        if not self.temperature and (self.top_k, self.top_p) != (None, None):
            raise PromptError("top_k and top_p limit what is drawn from; give a temperature > 0 as well.")
        if self.contrast is not None and not isinstance(self.contrast, Contrast | ClinicalContrast):
            raise PromptError(f"contrast is an interp.Contrast or None; got {self.contrast!r}.")
        plain_numbers(self, temperature=float, top_k=int, top_p=float)

    def to_dict(self) -> dict[str, Any]:
        """The decoding as JSON values."""
        contrast = self.contrast
        return {
            "temperature": self.temperature,
            "top_k": self.top_k,
            "top_p": self.top_p,
            "contrast": None if contrast is None else contrast.to_dict(),
        }

    def probabilities(self, logits: Float[Tensor, "sample token_id"]) -> Float[Tensor, "sample token_id"]:
        """What tokens are drawn with at a temperature > 0, float64, renormalised over those that are left."""
        scaled = logits.double() / self.temperature
        if self.top_k is not None and self.top_k < scaled.shape[1]:
            least = scaled.topk(self.top_k, dim=-1).values[:, -1:]
            scaled = scaled.masked_fill(scaled < least, -torch.inf)
        if self.top_p is not None:
            ordered, order = scaled.softmax(dim=-1).sort(dim=-1, descending=True, stable=True)
            before = ordered.cumsum(dim=-1) - ordered
            late = torch.zeros_like(ordered, dtype=torch.bool).scatter(1, order, before >= self.top_p)
            scaled = scaled.masked_fill(late, -torch.inf)
        return scaled.softmax(dim=-1)


class Draw:
    """Chooses each sample's next token. Every sample has random numbers of its own, as many as steps."""

    def __init__(self, decoding: Decoding, seed: int | None, names: Sequence[str]) -> None:
        self.decoding = decoding
        self._seeds = [stream_seed(seed, name) for name in names] if decoding.temperature else []
        self._streams: list[torch.Generator] = []  # made when first drawn from, since they do not pickle

    def __call__(self, logits: Float[Tensor, "sample token_id"]) -> Int[Tensor, " sample"]:
        """The next tokens."""
        if not self.decoding.temperature:
            return logits.argmax(dim=-1)
        sums = self.decoding.probabilities(logits).cumsum(dim=-1)
        if bool(sums.isnan().any()):
            raise ModelError(
                "the logits are not numbers (NaN), so no token can be drawn. Try dtype='float32'."
            )
        self._streams = self._streams or [torch.Generator().manual_seed(one) for one in self._seeds]
        draws = [torch.rand(1, generator=stream, dtype=torch.float64) for stream in self._streams]
        places = torch.stack(draws).to(logits.device) * sums[:, -1:]
        # `right`: a draw of exactly 0 must not take a token of probability 0
        return torch.searchsorted(sums, places, right=True)[:, 0].clamp(max=logits.shape[1] - 1)
