"""Values over image tokens as a labelled map."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import xarray as xr
from jaxtyping import Float

from interp.tokens import TokenMap

__all__ = ["labelled"]


def labelled(
    values: Float[np.ndarray, ...],
    tokens: TokenMap,
    name: str,
    layers: Sequence[int] | None = None,
    attrs: Mapping[str, Any] | None = None,
) -> xr.DataArray:
    """The map ([layer, [head,]] token), float32, with "position", the unpadded position of each image token.

    Args:
        values: its values; the last axis is the image tokens.
        tokens: where the sample's tokens are.
        name: what the values are.
        layers: the layers of the first axis, if it has them; a second axis is then every head.
        attrs: what else is to be known.
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
