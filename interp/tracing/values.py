"""Arrays inside edits: read-only, compared and hashed by content.

Edits may hold one array per sample; `for_samples` selects the arrays of some of the samples.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from copy import copy
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, TypeVar

import numpy as np
import torch
from jaxtyping import Float

from interp.errors import EditError
from interp.inputs.text import count
from interp.tracing.site import ImageMask, Site

__all__ = ["Values", "for_samples"]


T = TypeVar("T")


@dataclass(frozen=True, eq=False)
class Values:
    """One array for all samples, or, if `per_sample`, one array per sample."""

    arrays: tuple[np.ndarray, ...]
    per_sample: bool

    @classmethod
    def of(cls, given: Any, ndim: int) -> Values:
        """Values from an array of `ndim` dimensions, or from a sequence of such arrays, one per sample.

        An array is anything that numpy can read, such as a tensor or a labelled array of a trace.

        Raises:
            EditError: Another number of dimensions, or values that are not finite float32 numbers.
        """
        if isinstance(given, Values):
            return given
        single = hasattr(given, "shape") or not isinstance(given, Sequence) or isinstance(given, str | range)
        arrays = tuple(_array(one) for one in ([given] if single else given))
        if single and arrays[0].ndim == ndim + 1:
            arrays, single = tuple(arrays[0]), False
        for one in arrays:
            if one.ndim != ndim:
                raise EditError(
                    f"values are an array of {count(ndim, 'dimension')}, or one such array per sample; got shape "
                    f"{one.shape}."
                )
            if not np.isfinite(one).all():
                raise EditError(
                    "values must be finite; got NaN or infinity. trace.rows of a batch is padded with NaN: give one "
                    "array per sample instead, such as [one.rows for one in trace]."
                )
        if not arrays:
            raise EditError("values need an array, or one array per sample; got none.")
        return cls(tuple(_frozen(one) for one in arrays), not single)

    def of_sample(self, sample: int, n_samples: int) -> Float[np.ndarray, ...]:
        """The values of one sample of a batch.

        Raises:
            EditError: A number of arrays that is not the number of samples.
        """
        self._check(n_samples)
        return self.arrays[sample if self.per_sample else 0]

    def part(self, at: Sequence[int], n_samples: int) -> Values:
        """The values of some of `n_samples` samples.

        Raises:
            EditError: A number of arrays that is not the number of samples.
        """
        self._check(n_samples)
        return Values(tuple(self.arrays[i] for i in at), True) if self.per_sample else self

    def _check(self, n_samples: int) -> None:
        if self.per_sample and len(self.arrays) != n_samples:
            raise EditError(
                f"values hold {count(len(self.arrays), 'array')} for a batch of {count(n_samples, 'sample')}. Give one "
                "array per sample, or a single array for all samples."
            )

    @cached_property
    def digest(self) -> str:
        """Hex SHA-256 of the arrays' shapes and numbers."""
        hashed = hashlib.sha256(repr(self.per_sample).encode())
        for one in self.arrays:
            hashed.update(repr(one.shape).encode() + one.tobytes())
        return hashed.hexdigest()

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Values) and self.digest == other.digest

    def __hash__(self) -> int:
        return hash(self.digest)

    def __repr__(self) -> str:
        shapes = ", ".join(str(one.shape) for one in self.arrays[:3])
        return f"Values({shapes}{', …' if len(self.arrays) > 3 else ''})"


def _array(given: Any) -> np.ndarray:
    if isinstance(given, torch.Tensor):
        given = given.detach().float().cpu().numpy()
    if isinstance(given, range):
        raise EditError(f"values are numbers in an array, a tensor or a trace's rows; got {given!r}.")
    try:
        with np.errstate(over="ignore"):  # the caller refuses infinity with a message of its own
            return np.array(given, np.float32)
    except (TypeError, ValueError, OverflowError) as error:
        raise EditError(
            f"values are numbers in an array, a tensor or a trace's rows; got {type(given).__name__}."
        ) from error


def _frozen(array: np.ndarray) -> np.ndarray:
    own = np.ascontiguousarray(array)
    own.setflags(write=False)
    return own


def for_samples(given: Sequence[T], at: Sequence[int], n_samples: int) -> list[T]:
    """Reads or edits for some of the samples: each sample keeps its own masks and values.

    Args:
        given: Reads or edits for all samples.
        at: The places of the chosen samples among all.
        n_samples: The number of all samples.

    Raises:
        SiteError: A number of masks that is not the number of samples.
        EditError: A number of arrays that is not the number of samples.
    """
    return [_for_samples(one, at, n_samples) for one in given]


def _for_samples(one: Any, at: Sequence[int], n_samples: int) -> Any:
    changed = {}
    for name, value in getattr(
        one, "__dict__", {}
    ).items():  # anything but a read or an edit is refused later
        part = _part(value, at, n_samples)
        if part is not value:
            changed[name] = part
    if not changed:
        return one
    found = copy(one)
    for name, value in changed.items():
        object.__setattr__(found, name, value)
    return found


def _part(value: Any, at: Sequence[int], n_samples: int) -> Any:
    """A field of a read or an edit, for some samples; the same object if it holds nothing per sample."""
    if isinstance(value, ImageMask | Values):
        return value.part(at, n_samples)
    if isinstance(value, Site):
        groups = [_part(group, at, n_samples) for group in value.groups]
        same = all(new is old for new, old in zip(groups, value.groups, strict=True))
        return value if same else replace(value, queries=groups[0], keys=groups[1])
    if isinstance(value, tuple) and any(isinstance(one, ImageMask) for one in value):
        parts = tuple(_part(one, at, n_samples) for one in value)
        return value if all(new is old for new, old in zip(parts, value, strict=True)) else parts
    return value
