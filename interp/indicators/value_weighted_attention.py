"""Attention weighed by what it carries: the length of the vector each image token sends to the last row."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import xarray as xr

from interp.indicators.argument_checks import check_bool, layers_of, site_layers
from interp.indicators.maps import Maps, labelled
from interp.inputs.prompt import PAPER_PROMPT, Prompt, Target
from interp.inputs.sample import Sample
from interp.tracing import Batch, Mllm, Prefix
from interp.tracing.cost import Meter
from interp.tracing.prefix_pass import given_as
from interp.tracing.value_norms import projected_norms

__all__ = ["ValueWeightedAttention"]


@dataclass(frozen=True)
class ValueWeightedAttention:
    """mean_h ‖A_j V_j W_O^h‖₂ of the last prompt row: how much each image token sends it, in [0, ∞).

    A_j is the head's attention weight to token j, V_j the value it reads there (shared between the heads of a
    key-value head), W_O^h the head's part of the output matrix, without bias. Attention sinks, which draw weight and
    have short values, drop out. Units are those of the residual stream, so layers compare only within one model;
    where a family normalises what o_proj gives (Gemma 3), the norm is taken before that.

    Lengths are taken head by head and averaged: what heads send in opposite directions does not cancel. The other
    choice, ‖Σ_h A_j^h V_j^h W_O^h‖₂, is the length of what really arrives; it is not offered. The last row sees only
    the direct path from the image; a length says nothing of direction, so not whether it helps the answer.

    One forward pass; no S×S matrix.

    Args:
        per_head: ‖·‖ of every head, (layer, head, token), instead of their mean, (layer, token).
        layers: "all" or decoder layers, 0-based, in the order wanted.

    Raises:
        MapError: `per_head` is not a bool.
        SiteError: layers that are no indices; when called, layers the model does not have.
        ModelError: when called, attention without an `o_proj` or that changes heads' outputs before it.

    Source: Kobayashi et al. (arXiv 2004.10102).
    """

    per_head: bool = False
    layers: Literal["all"] | Sequence[int] = "all"

    def __post_init__(self) -> None:
        check_bool("per_head", self.per_head)
        object.__setattr__(self, "layers", site_layers(self.layers))

    def __call__(
        self,
        mllm: Mllm,
        samples: Sample | Iterable[Sample] | Batch | Prefix,
        *,
        prompt: Prompt = PAPER_PROMPT,
        target: Target = Target("greedy"),  # noqa: B008 – a frozen value
    ) -> Maps:
        """The maps of these samples, run as one batch; they do not depend on the target.

        Raises:
            InterpError: samples or prompts that cannot be encoded, or the errors above.
        """
        layers = layers_of(mllm, self.layers)
        with Meter(mllm.device) as meter:
            given = given_as(mllm, samples, prompt)
            norms, after = projected_norms(mllm, given, layers, meter)
            tokens = (given.batch if isinstance(given, Prefix) else given).tokens
            logits = xr.DataArray(after.cpu().numpy(), dims=["sample", "token_id"], name="logits")
        shown = norms if self.per_head else [one.mean(axis=1) for one in norms]
        name = "value-weighted attention"
        maps = [labelled(one, own, name, layers) for one, own in zip(shown, tokens, strict=True)]
        return Maps(tuple(maps), tokens, meter.cost, logits)

    def to_dict(self) -> dict[str, Any]:
        """The indicator as JSON values, part of a study's hash."""
        return {
            "indicator": "value-weighted attention",
            "per_head": self.per_head,
            "layers": self.layers if self.layers == "all" else list(self.layers),
        }
