"""Attribution patching: the first-order estimate of hiding each image token, for all of them from one gradient."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
import xarray as xr
from jaxtyping import Float
from torch import Tensor

from interp.indicators.indicator_checks import (
    check_bool,
    check_call,
    check_one_of,
    layers_of,
    layers_to_json,
    site_layers,
)
from interp.indicators.maps import BATCH_SIZE, Maps, Samples, label_map, maps_in_batches
from interp.indicators.removals import HideTokens
from interp.inputs.prompt import Prompt, Target
from interp.tracing import Mllm
from interp.tracing.cost import Meter
from interp.tracing.gradients import RowGradients, row_gradients
from interp.tracing.parameters.weights import together
from interp.tracing.site import Layers

__all__ = ["AttributionPatching", "knockout_effect"]


@dataclass(frozen=True)
class AttributionPatching:
    """The fall of the target, to first order, if an image token were hidden from the rows after the image.

    Hiding token j from a row changes its weights A by ΔA_j = −A_j and, where the rest is renormalised,
    ΔA_k = A_k A_j/(1 − A_j). With g = ∂ v/∂A the target falls by −g·ΔA, which is

        mode "renormalise":  A_j (g_j − Σ_k A_k g_k) / (1 − A_j)
        mode "zero":         A_j g_j

    k runs over every key the row sees. The values of all rows and heads are added. They are nats of any sign; positive
    means that hiding the token lowers the target. First-order values add up: the sum over layers estimates hiding the
    token at all layers at once (`TokenKnockout(layers="all")`), one layer's value hiding it at that layer alone. A row
    with all its attention on the token (A_j = 1) is undefined once the token is hidden; it counts as 0.

    The estimate is wrong where the effect is not linear: large attention weights; a saturated softmax at the answer
    (the gradient of a certain answer is near 0 even if hiding the object would change it); tokens that carry the same
    content.

    The image runs once without gradients and the rows after it are differentiated: about 1.2 forward passes for all
    tokens, layers and heads. Models whose prompt rows see the whole prompt are differentiated whole.

    Args:
        layers: "all" or decoder layers, 0-based, in the order of the result. Of a hybrid model those with a softmax:
            gated DeltaNet layers are refused.
        queries: The rows the token is hidden from: "after_image" (all of them, the answer's too) or "last".
        per_head: A map for every head, (layer, head, token), instead of their sum, (layer, token).
        mode: "renormalise" (hide before the softmax) or "zero" (after it).

    Raises:
        MapError: Arguments of another kind.
        SiteError: Layers that are not indices; when called, layers the model does not have.

    Source: attribution patching (Nanda 2023; arXiv 2310.10348), with a knockout as the patch.
    """

    layers: Layers = "all"
    queries: Literal["after_image", "last"] = "after_image"
    per_head: bool = False
    mode: Literal["renormalise", "zero"] = "renormalise"

    layers_add_up: ClassVar[bool] = True
    """One map of all layers is the sum over layers."""

    @property
    def removal(self) -> HideTokens:
        """The removal whose effect it estimates, token by token."""
        return HideTokens(layers=self.layers, queries=self.queries)

    def __post_init__(self) -> None:
        check_bool("per_head", self.per_head)
        check_one_of("queries of AttributionPatching", self.queries, ("after_image", "last"))
        check_one_of("mode of AttributionPatching", self.mode, ("renormalise", "zero"))
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

        Raises:
            InterpError: Samples or prompts that cannot be encoded, layers the model does not have, or an answer of
                several tokens for a model whose prompt rows would see it.
        """
        check_call(mllm, prompt, target)
        return maps_in_batches(self._together, mllm, samples, prompt, target, batch_size, progress)

    def to_dict(self) -> dict[str, Any]:
        """The indicator as JSON values, part of a study's hash."""
        return {
            "indicator": "attribution patching",
            "layers": layers_to_json(self.layers),
            "queries": self.queries,
            "per_head": self.per_head,
            "mode": self.mode,
        }

    def _together(self, mllm: Mllm, samples: Samples, prompt: Prompt | None, target: Target) -> Maps:
        """The maps of samples that run together."""
        layers = layers_of(mllm, self.layers, "AttributionPatching")
        increasing = sorted(layers)
        order = [increasing.index(layer) for layer in layers]
        totals: list[Tensor] = []
        with Meter(mllm.device) as meter:
            first: RowGradients | None = None
            for one in row_gradients(
                mllm, samples, target, prompt, meter, layers=increasing, queries=self.queries
            ):
                first = one if first is None else first
                found = [self._effects(one, i, order) for i in range(len(one.tokens))]
                totals = [a + b for a, b in zip(totals, found, strict=True)] if totals else found
            assert first is not None
            maps = [
                label_map(total.cpu().numpy(), tokens, "attribution patching", layers)
                for total, tokens in zip(totals, first.tokens, strict=True)
            ]
            logits = xr.DataArray(first.logits.cpu().numpy(), dims=["sample", "token_id"], name="logits")
        return Maps(tuple(maps), first.tokens, meter.cost, logits)

    def _effects(self, one: RowGradients, sample: int, order: Sequence[int]) -> Tensor:
        """([layer, [head,]] token) of one pass."""
        image = torch.from_numpy(one.tokens[sample].image.copy())
        effects = []
        for at in order:
            rows, gradients = one.of(sample, at)
            effect = knockout_effect(rows, gradients, self.mode)[..., image.to(rows.device)].sum(dim=1)
            effects.append(effect if self.per_head else effect.sum(dim=0))
        return torch.stack(together(effects))


def knockout_effect(
    rows: Float[Tensor, "head row key"], gradients: Float[Tensor, "head row key"], mode: str
) -> Float[Tensor, "head row key"]:
    """The fall of the target, to first order, when each key is hidden from each row; positive where it falls."""
    if mode == "zero":
        return rows * gradients
    mean = (rows * gradients).sum(dim=-1, keepdim=True)
    rest = 1 - rows
    return torch.where(rest > 0, rows * (gradients - mean) / rest, 0.0)
