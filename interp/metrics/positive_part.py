"""The positive part of signed weights, chosen by name where a metric needs a distribution."""

from __future__ import annotations

from typing import Any, TypeVar

import numpy as np
import xarray as xr

from interp.errors import MapError
from interp.metrics.numbers import real_numbers

__all__ = ["positive_part"]

Map = TypeVar("Map", xr.DataArray, np.ndarray)


def positive_part(map: Map) -> Map:
    """Returns max(w, 0) of each weight w: what a token adds, without what others take away. NaN stays NaN.

    Rows of gated DeltaNet layers are signed. `attention_ratio`, `kl_divergence` and the other metrics that need a
    distribution refuse them as they are; this says that the negative weights are left out.

    Args:
        map: Weights, (..., token). A labelled array keeps its labels; its name becomes "positive part of …".

    Raises:
        MapError: Not an array of real numbers.

    >>> positive_part(np.array([0.5, -0.25, 0.0]))
    array([0.5, 0. , 0. ])
    """
    given: Any = map
    values = real_numbers(given, "positive_part takes an array of real numbers (..., token)", MapError)
    if not isinstance(given, xr.DataArray):
        return np.maximum(values, 0)  # pyright: ignore[reportReturnType]
    made = given.copy(data=np.maximum(given.values, 0))
    made.name = f"positive part of {given.name or 'a map'}"
    made.attrs = {**given.attrs, "signed": False}
    return made  # pyright: ignore[reportReturnType]
