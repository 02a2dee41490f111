"""Attention times its gradient: the part of the last row's attention that raises the answer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
import xarray as xr
from torch import Tensor

from interp.indicators.indicator_checks import (
    check_bool,
    check_one_of,
    layers_of,
    layers_to_json,
    site_layers,
)
from interp.indicators.maps import BatchIndicator, Maps, Samples, label_map
from interp.inputs.prompt import Prompt, Target
from interp.tracing import Mllm
from interp.tracing.cost import Meter
from interp.tracing.gradients import RowGradients, row_gradients
from interp.tracing.parameters.weights import together
from interp.tracing.site import Layers

__all__ = ["AttentionGradient"]


@dataclass(frozen=True)
class AttentionGradient(BatchIndicator):
    """mean_h A ⊙ ReLU(∂ v/∂A): the last prompt row's attention, weighted by how much it raises the target.

    A is a head's attention weight from the last prompt token to an image token and v the target's value in nats.
    The gradient passes through everything that follows the row, later layers too, but not through the softmax that
    gives the row. Values are in [0, ∞). With `signed` they are A ⊙ ∂ v/∂A: the sum over tokens is the first-order
    effect of scaling the row, and a token's value is that of setting its weight to zero without renormalising.

    Only the last prompt row's gradient is used, so a map shows the direct path from the image to that row and not what
    reaches it through the question's rows (see `AttributionPatching`). Attention sinks drop out where the gradient
    there is near 0. Where the model is certain of its answer, log p is flat and all values are small.

    Everything before the last row runs once without gradients; only that row and the answer's rows are differentiated.
    Together this costs about one forward pass. Models whose prompt rows see the whole prompt are differentiated whole.

    Args:
        signed: Whether to keep the gradient's sign.
        per_head: A map for every head, (layer, head, token), instead of one per layer, (layer, token).
        layers: "all" or decoder layers, 0-based, in the order of the result. In a hybrid model only layers with a
            softmax; gated DeltaNet layers are refused.
        queries: "last", the row that predicts the answer's first token.

    Raises:
        MapError: Arguments of another kind.
        SiteError: Layers that are not indices; when called, layers the model does not have.
        InterpError: When called, an answer of several tokens for a model whose prompt rows would see it.

    Source: grad_att of ViCrop (arXiv 2502.17422) for one layer, after Chefer et al. (arXiv 2103.15679).
    """

    signed: bool = False
    per_head: bool = False
    layers: Layers = "all"
    queries: Literal["last"] = "last"

    def __post_init__(self) -> None:
        check_bool("signed", self.signed)
        check_bool("per_head", self.per_head)
        check_one_of("queries of AttentionGradient", self.queries, ("last",))
        object.__setattr__(self, "layers", site_layers(self.layers))

    def to_dict(self) -> dict[str, Any]:
        """The indicator as JSON values, part of a study's hash."""
        return {
            "indicator": "attention gradient",
            "signed": self.signed,
            "per_head": self.per_head,
            "layers": layers_to_json(self.layers),
            "queries": self.queries,
        }

    def _together(self, mllm: Mllm, samples: Samples, prompt: Prompt | None, target: Target) -> Maps:
        """The maps of samples that run together."""
        layers = layers_of(mllm, self.layers, "AttentionGradient")
        increasing = sorted(layers)
        with Meter(mllm.device) as meter:
            passes = list(row_gradients(mllm, samples, target, prompt, meter, layers=increasing))
            order = [increasing.index(layer) for layer in layers]
            maps = tuple(self._map(passes, i, layers, order) for i in range(len(passes[0].tokens)))
            logits = xr.DataArray(passes[0].logits.cpu().numpy(), dims=["sample", "token_id"], name="logits")
        return Maps(maps, passes[0].tokens, meter.cost, logits)

    def _map(
        self, passes: Sequence[RowGradients], sample: int, layers: Sequence[int], order: Sequence[int]
    ) -> xr.DataArray:
        """One sample's map; the gradients of several passes are added before ReLU."""
        tokens = passes[0].tokens[sample]
        values = torch.stack(together([self._weighed(passes, sample, at) for at in order])).cpu().numpy()
        return label_map(values[..., tokens.image], tokens, "attention × gradient", layers)

    def _weighed(self, passes: Sequence[RowGradients], sample: int, layer: int) -> Tensor:
        pairs = [one.of(sample, layer) for one in passes]
        n = min(one.tokens[sample].length for one in passes)  # without the answers
        rows = pairs[0][0][:, 0, :n]
        gradient = sum((pair[1][:, 0, :n] for pair in pairs), torch.zeros_like(rows))
        weighed = rows * (gradient if self.signed else gradient.clamp(min=0))
        return weighed if self.per_head else weighed.mean(dim=0)
