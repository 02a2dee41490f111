"""Converts anything that holds numbers to a float64 array; metrics and statistics read their arguments with it."""

from __future__ import annotations

from collections.abc import Mapping, Set
from numbers import Real
from typing import Any

import numpy as np
import xarray as xr
from jaxtyping import Float

from interp.errors import InterpError

__all__ = ["plain_array", "real_numbers"]


def real_numbers(
    given: Any, what: str, error: type[InterpError], *, missing: bool = False
) -> Float[np.ndarray, ...]:
    """The numbers as float64, from lists, arrays, pandas, xarray, and tensors of any dtype and device.

    Args:
        given: What the caller passed.
        what: What it should be, as the subject of a sentence: "a map is …".
        error: The error to raise.
        missing: Whether None and pandas' NA stand for NaN.

    Raises:
        InterpError: `error`, for values that are not real numbers, lists of unequal lengths, and masked entries, whose
            hidden numbers would count.
    """
    if type(given) is np.ndarray and given.dtype.kind in "biuf":
        return np.asarray(given, np.float64)
    array = plain_array(given, what, error)
    if missing and array.dtype == object:
        array = _filled(array)
    if array.dtype.kind not in "biuf":
        raise error(
            f"{what}; got {array.dtype}, shape {array.shape}. Pass real numbers, as an array or as lists of equal "
            "lengths."
        )
    return array.astype(np.float64)


def plain_array(given: Any, what: str, error: type[InterpError]) -> np.ndarray:
    """The values as a numpy array of any dtype; `what` and `error` are those of `real_numbers`.

    Raises:
        InterpError: `error`, for masked entries, and for what numpy cannot read.
    """
    if isinstance(given, np.ma.MaskedArray):
        if np.ma.is_masked(given):
            raise error(
                f"{what}; got a masked array with {int(np.ma.count_masked(given))} masked entries, whose hidden "
                "numbers would count. Pass array.filled(0) to count them as 0, or array.filled(nan) for undefined."
            )
        return given.data
    if isinstance(given, Mapping | Set | xr.Dataset):
        raise error(
            f"{what}; got a {type(given).__name__}, which has no order of entries. Pass a list or an array."
        )
    try:
        if hasattr(given, "detach"):  # a tensor; numpy has no bfloat16
            flat = given.detach().cpu()
            return (flat.double() if flat.is_floating_point() else flat).numpy()
        if isinstance(given, list | tuple) and not all(type(one) in _SCALARS for one in given):
            return np.asarray([_entry(one, what, error) for one in given])
        return np.asarray(given)
    except InterpError:
        raise
    except Exception as reason:  # lists of unequal lengths, tensors without numbers, objects of any kind
        raise error(
            f"{what}; got a {type(given).__name__} that is no array ({type(reason).__name__}: {reason}). Pass real "
            "numbers, as an array or as lists of equal lengths."
        ) from reason


_SCALARS = (bool, int, float, str, type(None), np.float64, np.float32, np.int64, np.bool_)


def _entry(one: Any, what: str, error: type[InterpError]) -> Any:
    """An entry of a list: a scalar as it is, anything else as an array."""
    return one if type(one) in _SCALARS else plain_array(one, what, error)[()]


def _filled(array: np.ndarray) -> np.ndarray:
    """An array of objects as float64, NaN for None and NA; as it was where an entry is no real number."""
    flat = [
        np.nan if one is None or type(one).__name__ == "NAType" else one for one in array.ravel().tolist()
    ]
    if not all(isinstance(one, Real) for one in flat):
        return array
    try:
        return np.array([float(one) for one in flat]).reshape(array.shape)
    except (OverflowError, TypeError):
        return array
