"""Attention inside the vision tower, as maps over the language model's image tokens."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import xarray as xr
from jaxtyping import Float

from interp.errors import SiteError
from interp.indicators.indicator_checks import check_bool, site_layers
from interp.indicators.maps import BatchIndicator, Maps, Samples, label_map
from interp.inputs.prompt import Prompt, Target
from interp.tracing import Mllm, Prefix, Rows, Site, image_mask
from interp.tracing.derived.outlying_norms import spaced
from interp.tracing.passes.prefix_pass import given_as
from interp.tracing.trace import SampleTrace

__all__ = ["VisionAttention"]


@dataclass(frozen=True)
class VisionAttention(BatchIndicator):
    """What the vision tower's own rows attend to, pooled to image tokens: a map per layer (or head) of the tower.

    A(p) is the mean over rows (and heads) of the attention weight of patch p. An image token's value is
    Σ_p w(t, p)·A(p), the mean over its patches by `PatchMap.weights`; 0 for tokens without patches, such as newlines.
    Values lie in [0, 1]. The map depends on the image alone, neither on the question nor on the target: it says where
    the encoder attends, not what the language model uses. Register patches draw much of it (see `interp.sinks`).

    Args:
        queries: "cls": the rows of the class tokens, of every view. "patches": at most 64 patches, evenly spaced.
        per_head: A map for every head, (layer, head, token), instead of one per layer, (layer, token).
        layers: "all" or layers of the tower, 0-based, in the order of the result.

    Raises:
        SiteError: Other queries, or layers that are not indices; when called, a tower without a class token, or layers
            that it does not have.
        MapError: `per_head` is not a bool.
        InterpError: When called, a tower that cannot be read.

    Source: the maps of class tokens in "Emerging Properties in Self-Supervised Vision Transformers" (arXiv 2104.14294).
    """

    queries: Literal["cls", "patches"] = "patches"
    per_head: bool = False
    layers: Literal["all"] | Sequence[int] = "all"

    def __post_init__(self) -> None:
        if not isinstance(self.queries, str) or self.queries not in ("cls", "patches"):
            raise SiteError(
                f'queries is "cls" or "patches", rows of the vision tower; got {self.queries!r:.200}.'
            )
        check_bool("per_head", self.per_head)
        object.__setattr__(self, "layers", site_layers(self.layers))

    def to_dict(self) -> dict[str, Any]:
        """The indicator as JSON values, part of a study's hash."""
        layers = self.layers if self.layers == "all" else list(self.layers)
        return {
            "indicator": "vision attention",
            "queries": self.queries,
            "per_head": self.per_head,
            "layers": layers,
        }

    def _together(self, mllm: Mllm, samples: Samples, prompt: Prompt | None, target: Target) -> Maps:
        """The maps of samples that run together."""
        given = given_as(mllm, samples, prompt)
        batch = given.batch if isinstance(given, Prefix) else given
        queries: Any = self.queries
        if queries == "patches":
            queries = image_mask([spaced(one.n) for one in batch.patches])
        site = Site(tower="vision", layers=self.layers, queries=queries, keys="patches")
        trace = mllm.trace(batch, reads=[Rows(site, reduce=None if self.per_head else "head")])
        return Maps(tuple(map(_pooled, trace)), trace.tokens, trace.cost, trace.logits)


def _pooled(one: SampleTrace) -> xr.DataArray:
    """A sample's rows as a map over its image tokens."""
    assert one.patches is not None
    rows = one.rows
    mean: Float[np.ndarray, ...] = rows.mean("query", dtype=np.float64).values
    values = np.nan_to_num(one.patches.weights.to_tokens(mean))
    return label_map(values, one.tokens, "vision attention", rows["layer"].values.tolist())
