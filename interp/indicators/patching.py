"""Activation patching with another sample's run, and attribution patching: knockouts estimated from one gradient."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

import numpy as np
import torch
import xarray as xr
from jaxtyping import Bool, Float
from torch import Tensor

from interp.errors import MapError
from interp.indicators.indicator_checks import (
    check_bool,
    check_one_of,
    check_whole,
    every_layer_of,
    layers_of,
    layers_to_json,
    site_layers,
)
from interp.indicators.maps import BatchIndicator, Maps, One, SampleIndicator, Samples, label_map
from interp.indicators.removals import HideTokens, blocks, in_order
from interp.inputs.prompt import Prompt, Target
from interp.inputs.sample import Sample
from interp.tracing import Batch, Cost, Mllm
from interp.tracing.cost import Meter
from interp.tracing.gradients import RowGradients, row_gradients
from interp.tracing.parameters.weights import together
from interp.tracing.passes.progress_bar import progress_bar
from interp.tracing.site import Layers
from interp.tracing.variants.cached_pass import Replaced
from interp.tracing.variants.target_pass import AnyPass, KeptTarget

__all__ = ["ActivationPatching", "AttributionPatching", "knockout_effect"]


Partners = Mapping[str, Sample] | Sequence[tuple[Sample | str, Sample]]


@dataclass(frozen=True)
class ActivationPatching(SampleIndicator):
    """How far image tokens move the target when they hold a partner's residual stream: (layer, token) maps, nats.

    The partner is the same scene with one change, such as another colour of the object. After layer ℓ the stream at
    image token j is replaced by that of the partner's run. The value is (patched − plain)·sign(partner − plain). All
    three are values of the same target; a "greedy" target is the sample's own answer. Larger: the token, after that
    layer, carries more of what distinguishes the two. `attrs` hold "plain" and "partner"; their distance is a full
    effect. After the last layer no row reads an image token any more, so the value is 0.

    Cost: a pass per layer and block, over the later layers and tokens.

    Args:
        partners: A mapping from a sample's id to its partner, or pairs (sample, partner).
        layers: "all", or the layers after which the stream is patched, 0-based.
        block: Tokens are patched in blocks of `block` × `block`, which share a value; larger blocks are cheaper.
        batch: Variants in one pass; values do not depend on it.

    Raises:
        MapError: Partners of another kind; when called, a sample without a partner, or a partner with another number of
            image tokens.
        SiteError: Layers that are not indices; when called, layers the model does not have.

    Source: Meng et al., arXiv 2202.05262; Zhang and Nanda, arXiv 2309.16042.
    """

    partners: Partners
    layers: Layers = "all"
    block: int = 1
    batch: int = field(default=32, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "partners", _pairs(self.partners))
        object.__setattr__(self, "layers", site_layers(self.layers))
        check_whole("block of ActivationPatching", self.block, 1)
        check_whole("batch of ActivationPatching", self.batch, 1)

    def _one(self, mllm: Mllm, target: Target) -> One:
        """From a batch of one sample to its map and the cost of the map."""
        layers = every_layer_of(mllm, self.layers)
        partners = dict(self.partners)

        def one(batch: Batch) -> tuple[xr.DataArray, Cost]:
            """A sample's map, and its cost; its partner is the one named for its id."""
            (sample,), (tokens,) = batch.samples, batch.tokens
            partner = partners.get(sample.id)
            if partner is None:
                raise MapError(
                    f"every sample needs a partner; sample {sample.id} has none among the {len(partners)} given. Name "
                    "one for it."
                )
            entered = {layer + 1 for layer in layers if layer + 1 < mllm.n_layers}
            own = KeptTarget.of(mllm, batch, None, target, layers=entered)
            other = KeptTarget.of(mllm, partner, batch.prompt, target, layers=entered, aim=own.aim)
            if other.tokens.n != tokens.n:
                raise MapError(
                    f"sample {sample.id} has {tokens.n} image tokens and its partner {other.tokens.n}; a token is "
                    "patched with the same token of the partner. Use a partner with an image of the same size."
                )
            bar = progress_bar("patching", len(layers), noun="layers")
            rows = []
            with Meter(mllm.device) as meter, bar as advance:
                for layer in layers:
                    rows.append(self._layer(own, other.parts[0].kept, layer, meter))
                    advance(1)
            values = np.sign(other.plain - own.plain) * (np.stack(rows) - own.plain)
            attrs = {"plain": own.plain, "partner": other.plain}
            found = label_map(values, tokens, "activation patching", layers, attrs)
            return found, own.cost + other.cost + meter.cost

        return one

    def to_dict(self) -> dict[str, Any]:
        """The indicator as JSON values, partners by their fingerprints."""
        return {
            "indicator": "activation patching",
            "partners": {name: partner.fingerprint for name, partner in dict(self.partners).items()},
            "layers": layers_to_json(self.layers),
            "block": self.block,
        }

    def _layer(
        self, own: KeptTarget, partner: AnyPass, layer: int, meter: Meter
    ) -> Float[np.ndarray, " token"]:
        """The target's value with each token patched after one layer."""
        number = blocks(own.tokens, self.block) if self.block > 1 else np.arange(own.tokens.n)
        alone = number < 0  # without footprint: a block of its own
        number = np.where(alone, number.max(initial=-1) + np.cumsum(alone), number)
        values = np.full(number.max() + 1, own.plain)
        if layer + 1 < own.parts[0].kept.mllm.n_layers:
            masks = number == np.arange(len(values))[:, None]
            for part in in_order(masks, self.batch):
                values[part] = own.values(
                    lambda kept, part=part: _patched(kept, partner, layer, masks[part], meter)
                )
        return values[number]


def _patched(
    kept: AnyPass, partner: AnyPass, layer: int, masks: Bool[np.ndarray, "variant token"], meter: Meter
) -> Iterator[Float[Tensor, "variant ..."]]:
    stop = kept.stop(int(kept.tokens.image[masks.any(axis=0)][0]))
    given, own = partner.stream(layer + 1, meter), kept.added_at_image(meter)
    if layer in own:  # what the family adds after the layer stays the sample's own
        given = given - partner.added_at_image(meter)[layer] + own[layer]

    def patched(part: Bool[np.ndarray, "variant token"]) -> Float[Tensor, "variant ..."]:
        entering = Replaced(torch.from_numpy(part).to(kept.device), given)
        return kept.run(len(part), stop, meter, start=layer + 1, entering=entering)

    yield from kept.fitting(masks, patched)


def _pairs(partners: Any) -> tuple[tuple[str, Sample], ...]:
    """(sample id, partner), sorted by id."""
    given = partners.items() if isinstance(partners, Mapping) else partners
    if isinstance(given, str | bytes) or not isinstance(given, Iterable) or (getattr(given, "ndim", 1) == 0):
        raise MapError(f"partners are pairs (sample, partner), or partners by sample id; got {partners!r}.")
    listed = list(given)
    found: dict[str, Sample] = {}
    for one in listed:
        if not isinstance(one, tuple) or len(one) != 2 or not isinstance(one[1], Sample):
            raise MapError(f"partners are pairs (sample, partner), or partners by sample id; got {one!r}.")
        found[one[0].id if isinstance(one[0], Sample) else str(one[0])] = one[1]
    if not found:
        raise MapError("partners is empty. Name the partner of at least one sample.")
    return tuple(sorted(found.items(), key=lambda pair: pair[0]))


@dataclass(frozen=True)
class AttributionPatching(BatchIndicator):
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
        layers: "all" or decoder layers, 0-based, in the order of the result. In a hybrid model only layers with a
            softmax; gated DeltaNet layers are refused.
        queries: The rows the token is hidden from: "after_image" (all of them, the answer's too) or "last".
        per_head: A map for every head, (layer, head, token), instead of their sum, (layer, token).
        mode: "renormalise" (hide before the softmax) or "zero" (after it).

    Raises:
        MapError: Arguments of another kind.
        SiteError: Layers that are not indices; when called, layers the model does not have.
        InterpError: When called, an answer of several tokens for a model whose prompt rows would see it.

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
