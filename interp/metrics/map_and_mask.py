"""The checked map and mask that metrics of agreement with boxes compare, and the positive part of signed weights."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any, TypeVar

import numpy as np
import pandas as pd
import xarray as xr
from jaxtyping import Bool, Float
from numpy.typing import ArrayLike
from scipy.special import xlogy

from interp.errors import MapError
from interp.metrics.numbers import plain_array, real_numbers

__all__ = ["Pair", "check", "positive_part"]


Map = TypeVar("Map", xr.DataArray, np.ndarray)


@dataclass(frozen=True, eq=False)
class Pair:
    """A map and a mask whose leading axes broadcast; `defined` is False where no metric is defined.

    A mask of fractions says how much of each token lies inside (`tokens.coverage`). A metric accepts a pair in the
    place of a map, so that several metrics check the same map once. `signed` is the name of the map where its labels
    say that its weights are signed and some are negative; else None.
    """

    map: Float[np.ndarray, "*map_lead token"]
    mask: Bool[np.ndarray, "*mask_lead token"] | Float[np.ndarray, "*mask_lead token"]
    defined: Bool[np.ndarray, "*lead"]
    signed: str | None = None

    @property
    def n_tokens(self) -> int:
        """N, the number of image tokens."""
        return self.map.shape[-1]

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return np.array(self.map, dtype, copy=copy)

    @cached_property
    def n_inside(self) -> np.ndarray:
        """|B|: how many tokens are inside each mask, or the sum of their fractions; 1 instead of 0."""
        inside = self.mask.sum(axis=-1)
        return np.asarray(np.where(inside > 0, inside, 1))

    @property
    def whole(self) -> bool:
        """Whether every token lies inside or outside as a whole."""
        return self.mask.dtype == np.bool_

    @cached_property
    def wanted(self) -> Float[np.ndarray, "*mask_lead token"]:
        """G, the distribution that is uniform over the pixels inside: each token's share of them."""
        return self.mask / self.n_inside[..., None]

    @cached_property
    def uniform_kl(self) -> Float[np.ndarray, "*mask_lead"]:
        """KL(G ‖ uniform map) in nats: ln(N / |B|) for whole tokens."""
        if self.whole:
            return np.asarray(np.log(self.n_tokens / self.n_inside))
        return np.asarray(np.log(self.n_tokens) + xlogy(self.wanted, self.wanted).sum(axis=-1))

    @cached_property
    def shares(self) -> Float[np.ndarray, "*map_lead token"]:
        """The map's positive part divided by its sum; all zeros where nothing is positive.

        The map is divided by its largest value first, so that values from 1e-300 to 1e300 stay within float64.

        Raises:
            MapError: The map's labels say that its weights are signed; their positive part is the caller's to choose.
        """
        if self.signed is not None:
            raise MapError(
                f"this metric needs a distribution, and the weights of {self.signed!r} are signed (the least is "
                f"{self.map.min():.3g}). Take interp.metrics.positive_part(map), and say so where you report it; "
                "auroc, average_precision and pointing_game take values as they are."
            )
        positive = np.maximum(self.map, 0.0)
        peak = positive.max(axis=-1, keepdims=True)
        positive = positive / np.where(peak > 0, peak, 1.0)
        total = positive.sum(axis=-1, keepdims=True)
        return positive / np.where(total > 0, total, 1.0)

    def nan_unless(self, value: ArrayLike, also: ArrayLike = True) -> Float[np.ndarray, "*lead"]:
        """`value` where the pair is defined (and `also` holds), NaN elsewhere."""
        return np.where(self.defined & np.asarray(also), value, np.nan).astype(np.float64)

    @cached_property
    def has_positive(self) -> Bool[np.ndarray, "*map_lead"]:
        """Where the map has any positive value, so that `shares` is a distribution."""
        return np.asarray(np.any(self.map > 0, axis=-1))


def check(map: ArrayLike, mask: ArrayLike) -> Pair:
    """The map as finite float64 and the mask as bool or fractions, with shapes verified; a `Pair` is returned as it is.

    Both are read by position, tokens on the last axis. An axis that is named "token" is moved there.

    `defined` is False where the map holds a NaN or an infinity, where it is zero everywhere, and where the mask is
    empty or full. Metrics give NaN there, not their chance level.

    Raises:
        MapError: The map is not numeric, the mask is neither bool nor fractions in [0, 1], either has masked entries,
            their last axes differ, their leading axes do not broadcast, or their labels differ.
    """
    if isinstance(map, Pair):
        return map
    map, mask = _tokens_last(map), _tokens_last(mask)
    _check_labels(map, mask)
    values = real_numbers(map, "a map is an array of real numbers (..., token)", MapError)
    inside = plain_array(mask, "a mask is bool or fractions (token,) or (..., token)", MapError)
    if values.ndim == 0:
        raise MapError(
            f"a map is an array of real numbers (..., token); got {values.dtype}, shape {values.shape}. "
            "Pass one number per image token on the last axis."
        )
    if inside.dtype == object and inside.size and all(isinstance(one, bool) for one in inside.ravel()):
        inside = inside.astype(np.bool_)  # as pandas' nullable bools without NA are read
    inside = _fractions(inside)
    if inside.ndim == 0 or values.shape[-1] != inside.shape[-1] or values.shape[-1] == 0:
        raise MapError(
            f"map and mask must hold the same image tokens on their last axis; got map {values.shape} "
            f"and mask {inside.shape}. Make the mask from the same sample's tokens."
        )
    try:
        np.broadcast_shapes(values.shape, inside.shape)
    except ValueError:
        raise MapError(
            f"the mask's leading axes must broadcast against the map's; got map {values.shape} and mask "
            f"{inside.shape}. Add axes of length 1, as in mask[:, None, :]."
        ) from None
    finite = np.asarray(np.all(np.isfinite(values), axis=-1))
    if not finite.all():
        values = np.where(finite[..., None], values, 0.0)
    nonzero = values.any(axis=-1)
    proper = inside.any(axis=-1) & ~(inside == 1).all(axis=-1)
    return Pair(values, inside, np.asarray(nonzero & proper), _signed(map, values))


def _signed(map: Any, values: np.ndarray) -> str | None:
    """The name of a map whose labels say that it is signed, if it has negative values."""
    says = isinstance(map, xr.DataArray) and map.attrs.get("signed") is True
    return str(map.name) if says and values.size and values.min() < 0 else None


def _fractions(inside: np.ndarray) -> np.ndarray:
    """A mask of bool as it is; fractions as float64, checked."""
    if inside.dtype == np.bool_:
        return inside
    if inside.dtype.kind != "f" or not (np.isfinite(inside) & (inside >= 0) & (inside <= 1)).all():
        raise MapError(
            f"a mask is bool (token,) or (..., token), or fractions in [0, 1] of each token inside; got dtype "
            f"{inside.dtype}. Make one with tokens.mask(boxes) or tokens.coverage(boxes)."
        )
    return inside.astype(np.float64)


def _tokens_last(given: Any) -> Any:
    """A labelled array with its axis "token" last; anything else as it is."""
    if isinstance(given, xr.DataArray) and "token" in given.dims:
        return given.transpose(..., "token")
    return given


def _check_labels(map: Any, mask: Any) -> None:
    """Raises `MapError` where labels say that entries at the same position do not belong together."""
    if isinstance(map, pd.Series) and isinstance(mask, pd.Series) and not map.index.equals(mask.index):
        raise MapError(
            "the map's and the mask's index differ, and they are read by position. Align them, or pass "
            "map.to_numpy() and mask.to_numpy()."
        )
    if not (isinstance(map, xr.DataArray) and isinstance(mask, xr.DataArray)):
        return
    for own, other in zip(reversed(map.dims), reversed(mask.dims), strict=False):
        named = not any(str(one).startswith("dim_") for one in (own, other))
        if own != other and named and 1 not in (map.sizes[own], mask.sizes[other]):
            raise MapError(
                f"the map's axes {map.dims} and the mask's {mask.dims} are matched from the last one on, which puts "
                f"{own!r} beside {other!r}. Transpose or expand one of them."
            )
        both = own == other and own in map.coords and own in mask.coords and map.sizes[own] == mask.sizes[own]
        if both and not np.array_equal(map[own].values, mask[own].values):
            raise MapError(
                f"the map and the mask have different labels along {own!r}, and they are read by position. Align them "
                "with xarray.align, or pass .values."
            )


def positive_part(map: Map) -> Map:
    """Returns max(w, 0) of each weight w, so that negative weights count as 0. NaN stays NaN.

    Rows of gated DeltaNet layers are signed. `attention_ratio`, `kl_divergence` and the other metrics that need a
    distribution refuse signed rows; calling this function states that negative weights are left out.

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
