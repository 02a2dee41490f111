"""From what the layers of a run gave to one labelled array per sample and read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
import pandas as pd
import torch
import xarray as xr
from jaxtyping import Float
from torch import Tensor

from interp.inputs.tokens import TokenMap
from interp.tracing.plan import Selection, StreamSelection

__all__ = ["label_rows"]

Given = Mapping[tuple[int, int], list[Tensor]]
"""(read, step) → what each layer gave, in layer order."""


def label_rows(
    rows: Given,
    selections: Sequence[Selection | StreamSelection],
    tokens: Sequence[TokenMap],
    n_steps: Sequence[int] | None,
) -> list[tuple[xr.DataArray, ...]]:
    """Each sample's arrays, one per read. `n_steps`: tokens each sample generated, None if none was asked."""
    labelled: list[list[xr.DataArray]] = [[] for _ in tokens]
    for number, selection in enumerate(selections):
        given = [(step, rows[number, step]) for read, step in sorted(rows) if read == number]
        if isinstance(selection, StreamSelection):
            stacked, label = _stream(given, selection, len(tokens)), partial(_labelled_stream, selection)
        else:
            stacked, label = _rows(given, selection, len(tokens)), partial(_labelled, selection)
        for i, sample in enumerate(tokens):
            first = 0 if len(selection.queries[i]) else 1
            steps = None if n_steps is None else n_steps[i] if selection.decodes else 1
            own = stacked[: None if steps is None else max(steps - first, 0), i]
            array = label(i, sample, own).assign_coords(step=first + np.arange(len(own)))
            labelled[i].append(array.isel(step=0, drop=True) if n_steps is None else array)
    return [tuple(one) for one in labelled]


def _rows(
    given: Sequence[tuple[int, list[Tensor]]], selection: Selection, n_samples: int
) -> Float[np.ndarray, "step sample layer head query key"]:
    """All steps' rows in the order the site asked for; pairs have one layer entry with all their heads."""
    order = sorted(selection.heads)
    paired = selection.pairs is not None and not selection.reduce
    if not given:
        n_heads = 1 if selection.reduce else len(selection.pairs or next(iter(selection.heads.values())))
        width = max(len(keys) for keys in selection.keys)
        return np.zeros((0, n_samples, 1 if paired else len(order), n_heads, 1, width), np.float32)
    axis = torch.cat if paired else torch.stack
    array = torch.stack([axis(layers, dim=1) for _, layers in given]).float().cpu().numpy()
    if paired:
        where = [(layer, head) for layer in order for head in selection.heads[layer]]
        wanted = [where.index(pair) for pair in selection.pairs or ()]
        return array[:, :, None, wanted]
    return array[:, :, [order.index(layer) for layer in selection.heads]]


def _stream(
    given: Sequence[tuple[int, list[Tensor]]], selection: StreamSelection, n_samples: int
) -> Float[np.ndarray, "step sample layer position hidden"]:
    """All steps' vectors, layers in the order asked for."""
    if not given:
        return np.zeros((0, n_samples, len(selection.layers), 1, 0), np.float32)
    order = sorted(selection.layers)
    array = torch.stack([torch.stack(layers, dim=1) for _, layers in given]).float().cpu().numpy()
    return array[:, :, [order.index(layer) for layer in selection.layers]]


def _labelled(
    selection: Selection,
    sample: int,
    tokens: TokenMap,
    values: Float[np.ndarray, "step layer head query key"],
) -> xr.DataArray:
    queries, keys = selection.queries[sample], selection.keys[sample]
    places = {int(position): i for i, position in enumerate(tokens.image)}
    last = "token" if all(int(k) in places for k in keys) else "key"
    coords: dict[str, Any] = {
        "layer": list(selection.heads),
        "head": list(next(iter(selection.heads.values()))),
        **({"query": queries} if len(queries) else {}),
        last: [places[int(k)] for k in keys] if last == "token" else keys,
        "position": (last, keys),
    }
    dims = ["step", "layer", "head", "query", last]
    dropped = ["head"] if selection.reduce else ["layer"] if selection.pairs is not None else []
    for name in {*dropped, *(["head"] if selection.pairs is not None else [])}:
        coords.pop(name, None)
    values = values[:, :, :, : len(queries) or 1, : len(keys)]
    values = values.squeeze(tuple(dims.index(d) for d in dropped))
    array = xr.DataArray(values, dims=[d for d in dims if d not in dropped], coords=coords, name="attention")
    if "head" in array.dims and selection.pairs is not None:
        index = pd.MultiIndex.from_tuples(selection.pairs, names=["layer", "head_in_layer"])
        array = array.assign_coords(xr.Coordinates.from_pandas_multiindex(index, "head"))
    return array


def _labelled_stream(
    selection: StreamSelection,
    sample: int,
    tokens: TokenMap,
    values: Float[np.ndarray, "step layer position hidden"],
) -> xr.DataArray:
    positions = selection.queries[sample]
    coords = {"layer": list(selection.layers), **({"position": positions} if len(positions) else {})}
    dims = ["step", "layer", "position", "hidden"]
    return xr.DataArray(values[:, :, : len(positions) or 1], dims=dims, coords=coords, name="residual")
