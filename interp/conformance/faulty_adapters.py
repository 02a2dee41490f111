"""Adapters with typical faults. The suite must fail each of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

import numpy as np

from interp.errors import ModelError
from interp.inputs.footprints import Footprints, select
from interp.models.adapter import Adapter, attends_in

__all__ = ["BREAKS", "broken_adapter"]

Order = Callable[[Footprints], np.ndarray]
"""A function of footprints that returns the index of the footprint that each token gets instead."""


def _lines(footprints: Footprints, edge: int) -> np.ndarray:
    """Returns the number of each token's row (edge 1) or column (edge 0); −1 without area."""
    edges = np.round(footprints.boxes[:, edge], 6)
    seen = ~np.isnan(edges)
    numbers = np.full(len(edges), -1)
    numbers[seen] = np.unique(edges[seen], return_inverse=True)[1].reshape(-1)
    return numbers


def _parts(footprints: Footprints) -> list[np.ndarray]:
    """Returns the tokens with area of each view of each image."""
    area = ~np.isnan(footprints.boxes).any(axis=1)
    keys = sorted(set(zip(footprints.image[area].tolist(), footprints.views[area].tolist(), strict=True)))
    return [
        np.flatnonzero(area & (footprints.image == image) & (footprints.views == view))
        for image, view in keys
    ]


def _permuted(new: Callable[[Footprints, np.ndarray], np.ndarray]) -> Order:
    """Returns an order that permutes the tokens with area within each view."""

    def order(footprints: Footprints) -> np.ndarray:
        whole = np.arange(len(footprints))
        for part in _parts(footprints):
            whole[part] = new(footprints, part)
        return whole

    return order


def _transposed(footprints: Footprints, part: np.ndarray) -> np.ndarray:
    """Takes the tokens column by column."""
    rows, columns = (_lines(footprints, edge)[part] for edge in (1, 0))
    return part[np.lexsort((rows, columns))]


def _shifted(footprints: Footprints, part: np.ndarray) -> np.ndarray:
    return np.roll(part, 1)


def _row_shifted(footprints: Footprints, part: np.ndarray) -> np.ndarray:
    """Shifts the tokens by the length of the first row."""
    rows = _lines(footprints, 1)[part]
    return np.roll(part, int((rows == rows[0]).sum()))


def _tiles_swapped(footprints: Footprints, part: np.ndarray) -> np.ndarray:
    """Exchanges two diagonal quarters of the view; in a view of one line, its halves."""
    rows, columns = (_lines(footprints, edge)[part] for edge in (1, 0))
    first, last = _early(rows) & _early(columns), _early(-rows) & _early(-columns)
    n = min(int(first.sum()), int(last.sum()))
    swapped = part.copy()
    swapped[np.flatnonzero(first)[:n]], swapped[np.flatnonzero(last)[:n]] = part[last][:n], part[first][:n]
    return swapped


def _early(lines: np.ndarray) -> np.ndarray:
    """Returns which tokens lie in the first half of the lines; all of them if there is one line."""
    known = np.unique(lines)
    return np.isin(lines, known[: max(len(known) // 2, 1)])


def _row_flipped(footprints: Footprints, part: np.ndarray) -> np.ndarray:
    """Reverses the middle row."""
    rows = _lines(footprints, 1)[part]
    middle = np.unique(rows)[len(np.unique(rows)) // 2]
    flipped = part.copy()
    flipped[rows == middle] = part[rows == middle][::-1]
    return flipped


_ORDERS: dict[str, Order] = {
    "transposed": _permuted(_transposed),
    "shifted": _permuted(_shifted),
    "row-shifted": _permuted(_row_shifted),
    "tile-swapped": _permuted(_tiles_swapped),
    "row-flipped": _permuted(_row_flipped),
}

BREAKS: MappingProxyType[str, str] = MappingProxyType(
    {
        "transposed": "each view's tokens taken column by column",
        "shifted": "each footprint given to the next token",
        "row-shifted": "each footprint given to the token one row on",
        "tile-swapped": "two quarters of each view exchanged",
        "row-flipped": "one row of each view from right to left",
        "images-swapped": "each image's footprints given to another image of the sample",
        "count": "one footprint too few",
        "attends": "another reach of attention declared",
    }
)
"""The faults by name, each with its description."""


class _Broken:
    """A correct adapter with faulty footprints or a faulty `attends`."""

    def __init__(self, good: Adapter, how: str) -> None:
        self._good, self._how = good, how
        declared = getattr(good, "attends", "causal")
        other = "causal" if declared != "causal" else "image_blocks"
        self.attends = other if how == "attends" else declared

    def attends_in(self, config: Any) -> Any:
        """Returns the faulty `attends`, or what the correct adapter declares of a model with this config."""
        return self.attends if self._how == "attends" else attends_in(self._good, config)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._good, name)

    def footprints(
        self, sizes: Sequence[tuple[int, int]], inputs: Mapping[str, Any], processor: Any, config: Any
    ) -> Footprints:
        """Returns the correct adapter's footprints with the fault."""
        found = self._good.footprints(sizes, inputs, processor, config)
        if self._how == "attends":
            return found
        if self._how == "count":
            return select(found, slice(len(found) - 1))
        if self._how == "images-swapped":
            return Footprints(found.boxes, found.grid, found.views, len(sizes) - 1 - found.image)
        order = _ORDERS[self._how](found)
        return Footprints(found.boxes[order], None, found.views, found.image)


def broken_adapter(adapter: Adapter, how: str) -> Any:
    """Returns the adapter with one of the faults in `BREAKS`.

    Raises:
        ModelError: `how` is not in `BREAKS`.
    """
    if not isinstance(how, str) or how not in BREAKS:
        raise ModelError(f"the fault of an adapter is one of {', '.join(BREAKS)}; got {how!r}.")
    return _Broken(adapter, how)
