"""The maps that two runs stored, for the samples that both measured."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import xarray as xr

from interp.data.samples import Samples
from interp.errors import DataError, StudyError
from interp.indicators.maps import Maps
from interp.study.layer_sweep.result import Cell
from interp.study.refinement.result import RefinementCell
from interp.study.result import GridResult, stored_tokens
from interp.tracing import Cost

__all__ = ["stored_maps"]


def stored_maps(runs: Mapping[str, tuple[GridResult, int | str]]) -> tuple[Samples, dict[str, Maps]]:
    """Returns the samples that every run measured, and each run's maps of them, as `write_pack` takes them.

    Args:
        runs: Condition → (result, which): of a `LayerSweep` the maps of layer `which`; of a `Refinement` its maps
            "before", "after" or "method". One result may serve twice. Each has one run, on the same samples.

    Raises:
        DataError: The runs are of different samples, or no sample has a map in all of them.
        StudyError: Something else than such a result, one with several runs, or a layer that was not measured.

    Example:
        samples, maps = stored_maps({"layer 2": (result, 2), "layer 6": (result, 6)})
    """
    if not isinstance(runs, Mapping) or not runs:
        raise DataError(f"runs are a mapping of a condition to (result, which); got {runs!r}.")
    cells = {name: _cell(name, given) for name, given in runs.items()}
    data = {name: cell.study.data for name, (cell, _) in cells.items()}
    if len({own.fingerprint for own in data.values()}) > 1:
        raise DataError(
            f"the runs of {', '.join(data)} are on different samples: {[len(own) for own in data.values()]} of them. "
            "Run both on the same data."
        )
    found = {name: _maps(cell, which) for name, (cell, which) in cells.items()}
    common = sorted(set.intersection(*(set(own) for own in found.values())))
    if not common:
        raise DataError("no sample has a map in every run. Read result.failures for the reasons.")
    samples = next(iter(data.values()))
    made = {}
    for name, (cell, _) in cells.items():
        arrays = tuple(xr.DataArray(found[name][index], dims=["token"], name=name) for index in common)
        made[name] = Maps(arrays, tuple(stored_tokens(cell, index) for index in common), Cost())
    return samples.like(samples[index] for index in common), made


def _cell(name: str, given: Any) -> tuple[Cell | RefinementCell, int | str]:
    pair = isinstance(given, tuple) and len(given) == 2
    if not pair or not isinstance(given[0], GridResult) or isinstance(given[1], bool):
        raise StudyError(f"{name!r} needs (result, which), such as (study.run(), 14); got {given!r}.")
    result, which = given
    kind = int if isinstance(result.cells[0], Cell) else str
    if not isinstance(result.cells[0], Cell | RefinementCell) or not isinstance(which, kind):
        raise StudyError(
            f"{name!r}: maps are stored by a LayerSweep, by layer, and by a Refinement, as 'before', 'after' or "
            f"'method'; got a {type(result).__name__} and {which!r}."
        )
    if len(result.cells) > 1:
        raise StudyError(
            f"{name!r} has {len(result.cells)} runs. Pass the result of one study, not of a Grid."
        )
    return result.cells[0], which


def _maps(cell: Cell | RefinementCell, which: int | str) -> dict[int, np.ndarray]:
    """Index → map, for the samples that have it."""
    indices = [int(index) for index in cell.frame("samples")["index"]]
    if isinstance(cell, Cell):
        return cell.maps(indices, int(which))
    found = cell.maps(indices)
    known = sorted({name for own in found.values() for name in own})
    if which not in known:
        raise StudyError(f"this Refinement stored the maps {', '.join(known) or 'of none'}; got {which!r}.")
    return {index: own[str(which)] for index, own in found.items() if which in own}
