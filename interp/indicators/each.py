"""What indicators that go sample by sample share: the samples, their tokens, the sum of their costs."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import xarray as xr

from interp.indicators.maps import Maps
from interp.prompt import Prompt
from interp.sample import Sample
from interp.tokens import TokenMap
from interp.tracing import Batch, Cost, Mllm, Prefix
from interp.tracing.cost import Meter

__all__ = ["Samples", "each", "listed"]

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
