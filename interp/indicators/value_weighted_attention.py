"""Value-weighted attention: the norm of the vector that each image token sends to the last row."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import xarray as xr

from interp.indicators.indicator_checks import check_bool, check_call, layers_of, layers_to_json, site_layers
from interp.indicators.maps import BATCH_SIZE, Maps, Samples, label_map, maps_in_batches
from interp.inputs.prompt import Prompt, Target
from interp.tracing import Mllm, Prefix
from interp.tracing.cost import Meter
from interp.tracing.derived.ov_circuits import projected_norms
from interp.tracing.passes.prefix_pass import given_as
from interp.tracing.site import Layers

__all__ = ["ValueWeightedAttention"]


@dataclass(frozen=True)
class ValueWeightedAttention:
    """mean_h ‖A_j V_j W_O^h‖₂ of the last prompt row: how much each image token sends it, in [0, ∞).

    A_j is the head's attention weight to token j, V_j the value there (shared between the heads of a key-value head),
    and W_O^h the head's part of the output matrix, without bias. Attention sinks drop out: they have large weights
    and values of small norm. Units are those of the residual stream, so compare layers only within one model. Where a
    family normalises the output of o_proj (Gemma 3), the norm is taken before that.

    Norms are computed head by head and then averaged, so opposite contributions of heads do not cancel. The
    alternative, ‖Σ_h A_j^h V_j^h W_O^h‖₂, is the norm of the sum that arrives; it is not offered. A map shows only
    the direct path from the image to the last row. A norm has no direction, so it does not say whether a token
    supports the answer.

    Cost: one forward pass; no S×S matrix.

    Args:
        per_head: The norm of every head, (layer, head, token), instead of their mean, (layer, token).
        layers: "all" or decoder layers, 0-based, in the order of the result. Of a hybrid model those with a softmax:
            gated DeltaNet layers are refused.

    Raises:
        MapError: `per_head` is not a bool.
        SiteError: Layers that are not indices; when called, layers the model does not have.
        ModelError: When called, attention without an `o_proj`, or one that changes the heads' outputs before `o_proj`.

    Source: Kobayashi et al. (arXiv 2004.10102).
    """

    per_head: bool = False
    layers: Layers = "all"

    def __post_init__(self) -> None:
        check_bool("per_head", self.per_head)
        object.__setattr__(self, "layers", site_layers(self.layers))

    def __call__(
        self,
        mllm: Mllm,
        samples: Samples,
        *,
        prompt: Prompt | None = None,
        target: Target = Target("greedy"),  # noqa: B008 – a frozen value
        batch_size: int = BATCH_SIZE,
        progress: bool = True,
    ) -> Maps:
        """The maps of these samples, in micro-batches of `batch_size`, with `progress`, as in `Mllm.trace`.

        They do not depend on the target.

        Raises:
            InterpError: Samples or prompts that cannot be encoded, or the errors above.
        """
        check_call(mllm, prompt, target)
        return maps_in_batches(self._together, mllm, samples, prompt, target, batch_size, progress)

    def to_dict(self) -> dict[str, Any]:
        """The indicator as JSON values, part of a study's hash."""
        return {
            "indicator": "value-weighted attention",
            "per_head": self.per_head,
            "layers": layers_to_json(self.layers),
        }

    def _together(self, mllm: Mllm, samples: Samples, prompt: Prompt | None, target: Target) -> Maps:
        """The maps of samples that run together."""
        layers = layers_of(mllm, self.layers, "ValueWeightedAttention")
        with Meter(mllm.device) as meter:
            given = given_as(mllm, samples, prompt)
            norms, after = projected_norms(mllm, given, layers, meter)
            tokens = (given.batch if isinstance(given, Prefix) else given).tokens
            logits = xr.DataArray(after.cpu().numpy(), dims=["sample", "token_id"], name="logits")
        shown = norms if self.per_head else [one.mean(axis=1) for one in norms]
        name = "value-weighted attention"
        maps = [label_map(one, own, name, layers) for one, own in zip(shown, tokens, strict=True)]
        return Maps(tuple(maps), tokens, meter.cost, logits)
