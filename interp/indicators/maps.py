"""What every indicator returns: one labelled map over image tokens per sample."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import overload

import xarray as xr

from interp.errors import MapError
from interp.tokens import TokenMap
from interp.tracing import Cost

__all__ = ["Maps"]

DIMS = (("token",), ("layer", "token"), ("layer", "head", "token"))


@dataclass(frozen=True, eq=False, repr=False)
class Maps(Sequence[xr.DataArray]):
    """One map per sample, in the samples' order: `maps[i]` is a DataArray ([layer, [head,]] token).

    Larger means more important. Tokens are numbered 0 … N−1 as in `tokens[i].image`; samples may differ in N.
    A slice is `Maps` again, with the cost of the whole call.

    Args:
        arrays: the maps.
        tokens: where each map's tokens are in its sample's prompt and image.
        cost: time, memory and passes of the whole call.
        logits: (sample, token_id) after the last prompt token, where the indicator ran the prompt; else None.

    Raises:
        MapError: another number of token maps than of maps, other dimensions, or a map without one value per
            image token.
    """

    arrays: tuple[xr.DataArray, ...]
    tokens: tuple[TokenMap, ...]
    cost: Cost
    logits: xr.DataArray | None = None

    def __post_init__(self) -> None:
        if len(self.arrays) != len(self.tokens):
            raise MapError(
                f"each map needs its TokenMap; got {len(self.arrays)} maps, {len(self.tokens)} of them."
            )
        if self.logits is not None and self.logits.sizes["sample"] != len(self.arrays):
            raise MapError(
                f"{len(self.arrays)} maps need as many rows of logits; got {dict(self.logits.sizes)}."
            )
        for i, (array, tokens) in enumerate(zip(self.arrays, self.tokens, strict=True)):
            if array.dims not in DIMS or array.sizes["token"] != tokens.n:
                raise MapError(
                    f"map {i} must be ([layer, [head,]] token) with one value for each of the {tokens.n} "
                    f"image tokens; got {dict(array.sizes)}. Reduce other dimensions, keep every image token."
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
