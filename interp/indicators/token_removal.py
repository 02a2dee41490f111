"""What the target loses when one image token is hidden from attention (knockout), or its embedding is replaced."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

from interp.indicators.indicator_checks import layers_to_json
from interp.indicators.maps import ONE_MAP, One, SampleIndicator
from interp.indicators.removals import HideTokens, ReplaceEmbeddings, alone
from interp.inputs.prompt import Target
from interp.inputs.sample import Sample
from interp.tracing import Mllm
from interp.tracing.site import Layers

__all__ = ["EmbeddingReplacement", "TokenKnockout"]


@dataclass(frozen=True)
class TokenKnockout(SampleIndicator):
    """The fall of the target when one image token is hidden from the rows after the image: (token) maps, nats.

    A token's value is plain − value: the exact effect of hiding that token alone. It does not show content that other
    tokens hold too. It is negative where the answer is more probable without the token.

    Cost: one pass per sample, and for each of its image tokens a pass over the rows after the image.

    Args:
        layers: "all", or the layers at which the token is hidden, all at once.
        queries: The rows it is hidden from, "after_image" or "last"; see `HideTokens`.
        batch: Variants in one pass; values do not depend on it.

    Raises:
        SiteError: Other queries, or layers that are not indices; when called, layers the model does not have.
    """

    layers: Layers = "all"
    queries: Literal["after_image", "last"] = "after_image"
    batch: int = field(default=32, compare=False)

    dims: ClassVar[tuple[str, ...]] = ONE_MAP

    def __post_init__(self) -> None:
        object.__setattr__(self, "layers", self.removal.layers)

    @property
    def removal(self) -> HideTokens:
        """The removal of a token."""
        return HideTokens(self.layers, self.queries)

    def _one(self, mllm: Mllm, target: Target) -> One:
        """From a batch of one sample to its map and the cost of the map."""
        return alone(self.removal, mllm, target, self.batch, "token knockout")

    def to_dict(self) -> dict[str, Any]:
        """The indicator as JSON values."""
        layers = layers_to_json(self.layers)
        return {"indicator": "token knockout", "layers": layers, "queries": self.queries}


@dataclass(frozen=True)
class EmbeddingReplacement(SampleIndicator):
    """The fall of the target when one image token's embedding is replaced: (token) maps, nats.

    Cost: for each image token a pass over the tokens from it on, without the vision tower.

    Args:
        by: The replacement, "mean", "zero" or "other"; see `ReplaceEmbeddings`.
        other: The sample whose image gives the replacement, with by="other".
        batch: Variants in one pass; values do not depend on it.

    Raises:
        MapError: Another `by`; `other` without by="other", or the reverse; when called, an image with another number of
            image tokens.
    """

    by: Literal["mean", "zero", "other"] = "mean"
    other: Sample | None = None
    batch: int = field(default=32, compare=False)

    dims: ClassVar[tuple[str, ...]] = ONE_MAP

    def __post_init__(self) -> None:
        _ = self.removal

    @property
    def removal(self) -> ReplaceEmbeddings:
        """The removal of a token."""
        return ReplaceEmbeddings(self.by, self.other)

    def _one(self, mllm: Mllm, target: Target) -> One:
        """From a batch of one sample to its map and the cost of the map."""
        return alone(self.removal, mllm, target, self.batch, "embedding replacement")

    def to_dict(self) -> dict[str, Any]:
        """The indicator as JSON values."""
        return {"indicator": "embedding replacement", "removal": self.removal.to_dict()}
