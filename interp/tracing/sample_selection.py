"""Reads and edits that hold something for each sample, such as a mask, for some of the samples."""

from __future__ import annotations

from collections.abc import Sequence
from copy import copy
from dataclasses import replace
from typing import Any, TypeVar

from interp.tracing.site import ImageMask, Site
from interp.tracing.values import Values

__all__ = ["for_samples"]

T = TypeVar("T")


def for_samples(given: Sequence[T], at: Sequence[int], n_samples: int) -> list[T]:
    """The reads or edits of `n_samples` samples, for those at some places: each sample keeps its own mask and values.

    Raises:
        SiteError: Another number of masks than samples.
        EditError: Another number of values than samples.
    """
    return [_for_samples(one, at, n_samples) for one in given]


def _for_samples(one: Any, at: Sequence[int], n_samples: int) -> Any:
    changed = {}
    for name, value in getattr(one, "__dict__", {}).items():  # what is no read or edit is refused later
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
    """The part of a read's or an edit's field; the field itself where it holds nothing for each sample."""
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
