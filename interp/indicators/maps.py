"""Maps, which every indicator returns: one labelled map over image tokens per sample; and how to make them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, overload

import numpy as np
import xarray as xr
from jaxtyping import Float

from interp.errors import MapError
from interp.inputs.prompt import Prompt
from interp.inputs.sample import Sample
from interp.inputs.tokens import TokenMap
from interp.tracing import Batch, Cost, Mllm, Prefix
from interp.tracing.cost import Meter

__all__ = ["Maps", "Samples", "as_list", "label_map", "map_each_sample"]

DIMS = (("token",), ("layer", "token"), ("layer", "head", "token"))


@dataclass(frozen=True, eq=False, repr=False)
class Maps(Sequence[xr.DataArray]):
    """One map per sample, in the samples' order: `maps[i]` is a DataArray ([layer, [head,]] token).

    Larger means more important. Tokens are numbered 0 … N−1 as in `tokens[i].image`; samples may differ in N.
    A slice is `Maps` again, with the cost of the whole call.

    Args:
        arrays: The maps.
        tokens: Where each map's tokens are in its sample's prompt and image.
        cost: Time, memory and passes of the whole call.
        logits: (sample, token_id) after the last prompt token, if the indicator ran the prompt; else None.

    Raises:
        MapError: The numbers of maps and token maps differ, a map has other dimensions, or it does not have one
            value per image token.
    """

    arrays: tuple[xr.DataArray, ...]
    tokens: tuple[TokenMap, ...]
    cost: Cost
    logits: xr.DataArray | None = None

    def __post_init__(self) -> None:
        if len(self.arrays) != len(self.tokens):
            raise MapError(
                f"each map needs its TokenMap; got {len(self.arrays)} maps and {len(self.tokens)} TokenMaps."
            )
        if self.logits is not None and self.logits.sizes["sample"] != len(self.arrays):
            raise MapError(
                f"{len(self.arrays)} maps need as many rows of logits; got {dict(self.logits.sizes)}."
            )
        for i, (array, tokens) in enumerate(zip(self.arrays, self.tokens, strict=True)):
            if array.dims not in DIMS or array.sizes["token"] != tokens.n:
                raise MapError(
                    f"map {i} must be ([layer, [head,]] token) with one value for each of the {tokens.n} "
                    f"image tokens; got {dict(array.sizes)}. Reduce other dimensions and keep every image token."
                )

    def __len__(self) -> int:
        return len(self.arrays)

    @overload
    def __getitem__(self, index: int) -> xr.DataArray: ...

    @overload
    def __getitem__(self, index: slice) -> Maps: ...

    def __getitem__(self, index: int | slice) -> xr.DataArray | Maps:
        if not isinstance(index, slice):
            return self.arrays[index]
        logits = None if self.logits is None else self.logits.isel(sample=index)
        return replace(self, arrays=self.arrays[index], tokens=self.tokens[index], logits=logits)

    def __repr__(self) -> str:
        shapes = sorted({" × ".join(f"{dim} {size}" for dim, size in a.sizes.items()) for a in self.arrays})
        return f"Maps({len(self)} × [{'; '.join(shapes)}])"


def label_map(
    values: Float[np.ndarray, ...],
    tokens: TokenMap,
    name: str,
    layers: Sequence[int] | None = None,
    attrs: Mapping[str, Any] | None = None,
) -> xr.DataArray:
    """The map ([layer, [head,]] token), float32, with "position", the unpadded position of each image token.

    Args:
        values: The map's values; the last axis is the image tokens.
        tokens: Where the sample's tokens are.
        name: What the values are.
        layers: The layers of the first axis, if it is the layers. The second axis, if there is one, is every head.
        attrs: Attributes of the array.
    """
    dims = [*("layer", "head")[: values.ndim - 1], "token"]
    coords: dict[str, Any] = {"token": np.arange(tokens.n), "position": ("token", tokens.image)}
    if layers is not None:
        coords["layer"] = list(layers)
    if "head" in dims:
        coords["head"] = np.arange(values.shape[1])
    bounded = np.clip(values, -np.finfo(np.float32).max, np.finfo(np.float32).max)
    return xr.DataArray(
        bounded.astype(np.float32), dims=dims, coords=coords, name=name, attrs=dict(attrs or {})
    )


Samples = Sample | Iterable[Sample] | Batch | Prefix

One = Callable[[Sample, TokenMap], tuple[xr.DataArray, Cost]]
"""A function from a sample and its tokens to its map and the cost of the map."""


def as_list(samples: Samples) -> list[Sample]:
    """The samples as a list."""
    if isinstance(samples, Batch | Prefix):
        return list(samples.samples)
    return [samples] if isinstance(samples, Sample) else list(samples)


def map_each_sample(mllm: Mllm, samples: Samples, prompt: Prompt, one: One) -> Maps:
    """The maps of samples, computed one by one, so that no map depends on the other samples."""
    arrays, maps, cost = [], [], Cost()
    for sample in as_list(samples):
        with Meter(mllm.device) as meter:
            tokens = mllm.encode([sample], prompt).tokens[0]
        array, own = one(sample, tokens)
        arrays.append(array)
        maps.append(tokens)
        cost = cost + meter.cost + own
    return Maps(tuple(arrays), tuple(maps), cost)
