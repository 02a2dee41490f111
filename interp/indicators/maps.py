"""Maps, which every indicator returns: one labelled map over image tokens per sample; and how to make them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, overload

import numpy as np
import xarray as xr
from jaxtyping import Float

from interp.errors import MapError
from interp.inputs.prompt import Prompt
from interp.inputs.sample_list import as_samples
from interp.inputs.tokens import TokenMap
from interp.tracing import Batch, Cost, Mllm, Prefix
from interp.tracing.cost import Meter
from interp.tracing.prefix_pass import Samples, given_as, meant_prompt

__all__ = ["Maps", "Samples", "label_map", "map_each_sample"]

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
        for name, kind in (("arrays", xr.DataArray), ("tokens", TokenMap)):
            given = getattr(self, name)
            if not isinstance(given, tuple | list) or not all(isinstance(one, kind) for one in given):
                raise MapError(f"{name} is a tuple of {kind.__name__}, one per sample; got {given!r}.")
        if self.logits is not None and not isinstance(self.logits, xr.DataArray):
            raise MapError(f"logits is a DataArray (sample, token_id), or None; got {self.logits!r}.")
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

    Raises:
        MapError: Values that are not finite.
    """
    if not np.isfinite(values).all():
        raise MapError(
            f"the map of {name} holds NaN or infinity. Does the model overflow in its dtype? Load it with "
            'dtype="float32".'
        )
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


One = Callable[[Batch], tuple[xr.DataArray, Cost]]
"""A function from a batch of one sample to its map and the cost of the map."""


def map_each_sample(mllm: Mllm, samples: Samples, prompt: Prompt | None, one: One) -> Maps:
    """The maps of samples, computed one by one, so that no map depends on the other samples."""
    arrays, maps, cost = [], [], Cost()
    for batch, encoding in each_alone(mllm, samples, prompt):
        array, own = one(batch)
        arrays.append(array)
        maps.append(batch.tokens[0])
        cost = cost + encoding + own
    return Maps(tuple(arrays), tuple(maps), cost)


def each_alone(mllm: Mllm, samples: Samples, prompt: Prompt | None) -> Iterator[tuple[Batch, Cost]]:
    """Each sample as a batch of its own, and what encoding it cost; what is encoded already stays as it is."""
    if not isinstance(samples, Batch | Prefix):
        for sample in as_samples(samples):
            with Meter(mllm.device) as meter:
                batch = mllm.encode(sample, meant_prompt(sample, prompt))
            yield batch, meter.cost
        return
    with Meter(mllm.device) as meter:
        given = given_as(mllm, samples, prompt)
        whole = given.batch if isinstance(given, Prefix) else given
        parts = [mllm.encoder.part(whole, [i]) for i in range(len(whole))]
    yield from ((part, Cost() if i else meter.cost) for i, part in enumerate(parts))
