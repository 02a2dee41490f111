"""What indicators that go sample by sample share: the samples, their tokens, and labels for what they find."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import xarray as xr
from jaxtyping import Float

from interp.indicators.maps import Maps
from interp.prompt import Prompt
from interp.sample import Sample
from interp.tokens import TokenMap
from interp.tracing import Batch, Cost, Mllm, Prefix
from interp.tracing.cost import Meter

__all__ = ["Samples", "each", "labelled", "listed"]

Samples = Sample | Iterable[Sample] | Batch | Prefix

One = Callable[[Sample, TokenMap], tuple[xr.DataArray, Cost]]
"""From a sample and its tokens to its map and what that took."""


def listed(samples: Samples) -> list[Sample]:
    """The samples as a list."""
    if isinstance(samples, Batch | Prefix):
        return list(samples.samples)
    return [samples] if isinstance(samples, Sample) else list(samples)


def each(mllm: Mllm, samples: Samples, prompt: Prompt, one: One) -> Maps:
    """The maps of samples that are gone through one by one, so that each is as it would be alone."""
    arrays, maps, cost = [], [], Cost()
    for sample in listed(samples):
        with Meter(mllm.device) as meter:
            tokens = mllm.encode([sample], prompt).tokens[0]
        array, own = one(sample, tokens)
        arrays.append(array)
        maps.append(tokens)
        cost = cost + meter.cost + own
    return Maps(tuple(arrays), tuple(maps), cost)


def labelled(
    values: Float[np.ndarray, "*layer token"],
    tokens: TokenMap,
    name: str,
    *,
    layers: Sequence[int] | None = None,
    coords: Mapping[str, Any] | None = None,
    attrs: Mapping[str, Any] | None = None,
) -> xr.DataArray:
    """A map, ([layer,] token), float32, with the unpadded "position" of each image token."""
    dims = ("token",) if layers is None else ("layer", "token")
    given = {"token": np.arange(tokens.n), "position": ("token", tokens.image), **(coords or {})}
    if layers is not None:
        given["layer"] = list(layers)
    return xr.DataArray(
        values.astype(np.float32), dims=dims, coords=given, name=name, attrs=dict(attrs or {})
    )
