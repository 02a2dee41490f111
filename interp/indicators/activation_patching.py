"""Activation patching: the residual stream of image tokens is replaced by that of another sample's run."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
import xarray as xr
from jaxtyping import Bool, Float
from torch import Tensor

from interp.errors import MapError
from interp.indicators.indicator_checks import (
    check_call,
    check_whole,
    every_layer_of,
    layers_to_json,
    site_layers,
)
from interp.indicators.maps import BATCH_SIZE, Maps, Samples, label_map, map_each_sample
from interp.indicators.removals import in_order
from interp.indicators.token_windows import blocks
from interp.inputs.prompt import Prompt, Target
from interp.inputs.sample import Sample
from interp.tracing import Batch, Cost, Mllm
from interp.tracing.cost import Meter
from interp.tracing.passes.progress_bar import progress_bar
from interp.tracing.site import Layers
from interp.tracing.variants.cached_pass import Replaced
from interp.tracing.variants.target_pass import AnyPass, KeptTarget

__all__ = ["ActivationPatching"]

Partners = Mapping[str, Sample] | Sequence[tuple[Sample | str, Sample]]


@dataclass(frozen=True)
class ActivationPatching:
    """How far image tokens move the target when they hold a partner's residual stream: (layer, token) maps, nats.

    The partner is the same scene with one change, such as another colour of the object. After layer ℓ the stream at
    image token j is replaced by that of the partner's run. The value is (patched − plain)·sign(partner − plain). All
    three are values of the same target; a "greedy" target is the sample's own answer. Larger: the token, after that
    layer, carries more of what distinguishes the two. `attrs` hold "plain" and "partner"; their distance is a full
    effect. After the last layer no row reads an image token any more, so the value is 0.

    Args:
        partners: The partner of each sample, by the sample's id, or pairs (sample, partner).
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
        """The maps of these samples, one by one whatever `batch_size` is, with `progress`.

        Cost: a pass per layer and block, over the later layers and tokens.
        """
        check_call(mllm, prompt, target)
        layers = every_layer_of(mllm, self.layers)
        partners = dict(self.partners)

        def one(batch: Batch) -> tuple[xr.DataArray, Cost]:
            """A sample's map, and its cost; its partner is the one named for its id."""
            (sample,), (tokens,) = batch.samples, batch.tokens
            partner = partners.get(sample.id)
            if partner is None:
                raise MapError(
                    f"sample {sample.id} has no partner among the {len(partners)} given; name one for every sample."
                )
            entered = {layer + 1 for layer in layers if layer + 1 < mllm.n_layers}
            own = KeptTarget.of(mllm, batch, None, target, layers=entered)
            other = KeptTarget.of(mllm, partner, batch.prompt, target, layers=entered, aim=own.aim)
            if other.tokens.n != tokens.n:
                raise MapError(
                    f"sample {sample.id} has {tokens.n} image tokens and its partner {other.tokens.n}; a token is "
                    "patched with the same token of the partner. Take a partner with an image of the same size."
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

        return map_each_sample(mllm, samples, prompt, one, batch_size, progress)

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
        raise MapError("partners names at least one sample's partner; got none.")
    return tuple(sorted(found.items(), key=lambda pair: pair[0]))
