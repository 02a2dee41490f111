"""How answers are generated: greedily, by seeded sampling, against a stream that does not see the image."""

from __future__ import annotations

import hashlib
import math
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from numbers import Integral, Real
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from interp.errors import ModelError, PromptError

__all__ = ["Contrast", "Decoding", "Draw"]


@dataclass(frozen=True)
class Contrast:
    """Classifier-free guidance against the model without the image, as PAI does it (arXiv 2407.21771).

    At each step the logits s become γ·(s − u) + u, and −∞ where s < max s + ln(cutoff). u are the logits after
    the same prompt and generated tokens with the image tokens taken out and without any edit; text around an
    image, such as tags, stays. Each step costs a second, shorter pass.

    Args:
        gamma: γ; 1 leaves s as it is but for the cutoff.
        cutoff: smallest probability a token may have, as a share of the most likely token's, in (0, 1]; None
            for no cutoff.

    Raises:
        PromptError: A gamma that is no finite number, or a cutoff outside (0, 1].
    """

    gamma: float = 1.1
    cutoff: float | None = 0.1

    def __post_init__(self) -> None:
        if not _real(self.gamma):
            raise PromptError(f"gamma is a finite number; got {self.gamma!r}.")
        if self.cutoff is not None and not (_real(self.cutoff) and 0 < self.cutoff <= 1):
            raise PromptError(f"cutoff is a share in (0, 1], or None; got {self.cutoff!r}.")
        _plain(self, gamma=float, cutoff=float)

    def __call__(
        self, with_image: Float[Tensor, "sample token_id"], without: Float[Tensor, "sample token_id"]
    ) -> Float[Tensor, "sample token_id"]:
        """The guided logits, from those with the image and without it."""
        guided = self.gamma * (with_image - without) + without
        guided = guided.masked_fill(
            with_image == -torch.inf, -torch.inf
        )  # masked in both, −∞ − −∞ is no number
        if self.cutoff is None:
            return guided
        least = with_image.amax(dim=-1, keepdim=True) + math.log(self.cutoff)
        return guided.masked_fill(with_image < least, -torch.inf)


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
        contrast: Guidance against the model without the image; None for none.
        beams: 1.

    Raises:
        PromptError: Values out of range, top_k or top_p with temperature 0, or beams other than 1.
    """

    temperature: float = 0.0
    top_k: int | None = None
    top_p: float | None = None
    contrast: Contrast | None = None
    beams: int = field(default=1, kw_only=True)

    def __post_init__(self) -> None:
        if isinstance(self.beams, bool) or not isinstance(self.beams, Integral) or self.beams != 1:
            raise PromptError(
                f"beam search is refused (beams={self.beams!r}): reads and edits are of each sample's own rows, "
                "and beams would reorder them. Use temperature=0 for the most likely token at each step, or "
                "temperature > 0 with a seed, several times."
            )
        if not _real(self.temperature) or self.temperature < 0 or 0 < self.temperature < 1e-3:
            raise PromptError(
                f"temperature is 0 (the most likely token) or a number ≥ 0.001; got {self.temperature!r}."
            )
        if self.top_k is not None and (
            not isinstance(self.top_k, Integral) or isinstance(self.top_k, bool) or self.top_k < 1
        ):
            raise PromptError(f"top_k is a whole number ≥ 1, or None; got {self.top_k!r}.")
        if self.top_p is not None and not (_real(self.top_p) and 0 < self.top_p <= 1):
            raise PromptError(f"top_p is a share in (0, 1], or None; got {self.top_p!r}.")
        if not self.temperature and (self.top_k, self.top_p) != (None, None):
            raise PromptError("top_k and top_p limit what is drawn from; give a temperature > 0 as well.")
        if self.contrast is not None and not isinstance(self.contrast, Contrast):
            raise PromptError(f"contrast is an interp.Contrast or None; got {self.contrast!r}.")
        _plain(self, temperature=float, top_k=int, top_p=float)

    def to_dict(self) -> dict[str, Any]:
        """The decoding as JSON values."""
        contrast = self.contrast
        return {
            "temperature": self.temperature,
            "top_k": self.top_k,
            "top_p": self.top_p,
            "contrast": None if contrast is None else {"gamma": contrast.gamma, "cutoff": contrast.cutoff},
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
        self._seeds = [_stream_seed(seed, name) for name in names] if decoding.temperature else []
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


def _stream_seed(seed: int | None, name: str) -> int:
    digest = hashlib.sha256(f"{seed}:{name}".encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


def _real(value: Any) -> bool:
    real = isinstance(value, Real) and not isinstance(value, bool)
    return real and abs(value) <= sys.float_info.max  # pyright: ignore[reportOperatorIssue]


def _plain(owner: Any, **kinds: type) -> None:
    """Stores numbers as Python's own, which JSON can hold; numpy's are taken too."""
    for name, kind in kinds.items():
        value = getattr(owner, name)
        object.__setattr__(owner, name, None if value is None else kind(value))
