"""Each image token taken away alone: hidden from attention, or its embedding replaced."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import xarray as xr

from interp.indicators.maps import Maps, Samples, each, labelled
from interp.indicators.removals import HideTokens, Removal, ReplaceEmbeddings
from interp.inputs.prompt import PAPER_PROMPT, Prompt, Target
from interp.inputs.sample import Sample
from interp.inputs.tokens import TokenMap
from interp.tracing import Cost, Mllm

__all__ = ["EmbeddingReplacement", "TokenKnockout"]


@dataclass(frozen=True)
class TokenKnockout:
    """What the target loses when one image token is hidden from the rows after the image: (token) maps, nats.

    plain − value, token by token, each the exact effect of hiding that token alone: what one token tells that others
    tell as well is not seen. Negative where the answer gets likelier without the token.

    Args:
        layers: "all", or the layers where it is hidden, all of them at once.
        queries: "after_image" or "last"; see `HideTokens`.
        batch: variants side by side; no number depends on it.

    Raises:
        SiteError: As `HideTokens`.
    """

    layers: Literal["all"] | Sequence[int] = "all"
    queries: Literal["after_image", "last"] = "after_image"
    batch: int = field(default=32, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "layers", self.removal.layers)

    @property
    def removal(self) -> HideTokens:
        """How a token is taken away."""
        return HideTokens(self.layers, self.queries)

    def __call__(
        self,
        mllm: Mllm,
        samples: Samples,
        *,
        prompt: Prompt = PAPER_PROMPT,
        target: Target = Target("greedy"),  # noqa: B008 – a frozen value
    ) -> Maps:
        """The maps of these samples, one by one. One pass over each, and N over the rows that see its image."""
        return one_by_one(self.removal, mllm, samples, prompt, target, self.batch, "token knockout")

    def to_dict(self) -> dict[str, Any]:
        """The indicator as JSON values."""
        layers = self.layers if self.layers == "all" else list(self.layers)
        return {"indicator": "token knockout", "layers": layers, "queries": self.queries}


@dataclass(frozen=True)
class EmbeddingReplacement:
    """What the target loses when one image token's embedding is replaced: (token) maps, nats.

    Args:
        by: "mean", "zero" or "other"; see `ReplaceEmbeddings`.
        other: the sample whose image takes its place, with "other".
        batch: variants side by side; no number depends on it.

    Raises:
        MapError: As `ReplaceEmbeddings`.
    """

    by: Literal["mean", "zero", "other"] = "mean"
    other: Sample | None = None
    batch: int = field(default=32, compare=False)

    def __post_init__(self) -> None:
        _ = self.removal

    @property
    def removal(self) -> ReplaceEmbeddings:
        """How a token is taken away."""
        return ReplaceEmbeddings(self.by, self.other)

    def __call__(
        self,
        mllm: Mllm,
        samples: Samples,
        *,
        prompt: Prompt = PAPER_PROMPT,
        target: Target = Target("greedy"),  # noqa: B008 – a frozen value
    ) -> Maps:
        """The maps of these samples, one by one. N passes over what follows each token, without the vision tower."""
        return one_by_one(self.removal, mllm, samples, prompt, target, self.batch, "embedding replacement")

    def to_dict(self) -> dict[str, Any]:
        """The indicator as JSON values."""
        return {"indicator": "embedding replacement", "removal": self.removal.to_dict()}


def one_by_one(
    removal: Removal,
    mllm: Mllm,
    samples: Samples,
    prompt: Prompt,
    target: Target,
    batch: int,
    name: str,
) -> Maps:
    """plain − value of each image token taken away alone."""

    def one(sample: Sample, tokens: TokenMap) -> tuple[xr.DataArray, Cost]:
        alone = np.eye(tokens.n, dtype=bool)
        found = removal.scores(mllm, sample, alone, prompt=prompt, target=target, batch=batch)
        return labelled(found.plain - found.values, tokens, name, attrs={"plain": found.plain}), found.cost

    return each(mllm, samples, prompt, one)
