"""Maps, which every indicator returns: one labelled map over image tokens per sample; and how to make them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import reduce
from operator import add
from typing import Any, overload

import numpy as np
import xarray as xr
from jaxtyping import Float

from interp.errors import MapError
from interp.inputs.prompt import Prompt, Target
from interp.inputs.tokens import TokenMap
from interp.tracing import Batch, Cost, Mllm, Prefix
from interp.tracing.cost import Meter
from interp.tracing.execution import apart
from interp.tracing.passes.micro_batches import BATCH_SIZE, MicroBatch, Places, in_batches, in_order
from interp.tracing.passes.prefix_pass import Samples, given_as

__all__ = ["BATCH_SIZE", "Maps", "Samples", "label_map", "map_each_sample", "maps_in_batches"]

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


Together = Callable[[Any, Samples, Prompt | None, Target], Maps]
"""A function from a model, samples that run together, a prompt and a target to their maps."""


def maps_in_batches(
    together: Together,
    mllm: Any,
    samples: Samples,
    prompt: Prompt | None,
    target: Target,
    batch_size: int,
    progress: bool,
) -> Maps:
    """The maps of any number of samples, in micro-batches; the arguments are those of an indicator's call."""

    def run(own: Any, some: MicroBatch) -> Maps:
        groups = apart(own, some.samples, prompt, (), ()) if isinstance(own, Mllm) else None
        if groups is None:
            return together(own, some.samples, prompt, target)
        return _joined([(at, together(own, given, prompt, target)) for at, given, *_ in groups])

    return _joined(in_batches(mllm, samples, run, batch_size=batch_size, progress=progress))


def _joined(parts: Sequence[tuple[Places, Maps]]) -> Maps:
    """The maps of all samples, from those of micro-batches."""
    if len(parts) == 1:
        return parts[0][1]
    logits = [(at, one.logits.values) for at, one in parts if one.logits is not None]
    return Maps(
        tuple(in_order([(at, one.arrays) for at, one in parts])),
        tuple(in_order([(at, one.tokens) for at, one in parts])),
        reduce(add, (one.cost for _, one in parts)),
        xr.DataArray(np.stack(in_order(logits)), dims=["sample", "token_id"], name="logits")
        if logits
        else None,
    )


def map_each_sample(
    mllm: Mllm,
    samples: Samples,
    prompt: Prompt | None,
    one: One,
    batch_size: int = BATCH_SIZE,
    progress: bool = True,
) -> Maps:
    """The maps of samples, computed one by one whatever `batch_size` is, so that no map depends on other samples."""

    def run(own: Mllm, some: MicroBatch) -> Maps:
        with Meter(mllm.device) as meter:
            batch = given_as(own, some.samples, prompt)
        assert isinstance(batch, Batch)
        array, cost = one(batch)
        return Maps((array,), batch.tokens, meter.cost + cost)

    encoded = samples.batch if isinstance(samples, Prefix) else samples
    options: dict[str, Any] = {"batch_size": batch_size, "progress": progress, "alone": True}
    return _joined(in_batches(mllm, encoded, run, **options))
