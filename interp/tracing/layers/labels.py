"""Turns the tensors that layers returned in a run into labelled arrays, one for each sample and read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache, partial
from typing import Any

import numpy as np
import pandas as pd
import torch
import xarray as xr
from jaxtyping import Float, Int
from torch import Tensor
from xarray.indexes import PandasIndex

from interp.inputs.patch_map import PatchMap
from interp.inputs.tokens import TokenMap
from interp.tracing.layers.request import Selection, StreamSelection
from interp.tracing.layers.vision_request import VisionSelection
from interp.tracing.parameters.weights import together

__all__ = ["LINEAR", "label_rows", "relabelled"]

LINEAR = "linear attention"
"""The name of arrays with rows of gated DeltaNet layers."""
_SIGNED = (
    "weight of each token's value in a gated DeltaNet layer's output: signed, and rows may have any sum; a short "
    "convolution has mixed each value with those of the tokens before it"
)

Given = Mapping[tuple[int, int], list[Tensor]]
"""(read, step) → the tensor that each layer returned, in layer order."""


def label_rows(
    rows: Given,
    selections: Sequence[Selection | StreamSelection | VisionSelection],
    tokens: Sequence[TokenMap],
    n_steps: Sequence[int] | None,
    patches: Sequence[PatchMap] = (),
    n_reasoning: Sequence[int] | None = None,
) -> list[tuple[xr.DataArray, ...]]:
    """Each sample's arrays, one per read.

    Args:
        rows: The tensors that the layers returned.
        selections: What each read selects.
        tokens: Where each sample's tokens are.
        n_steps: How many tokens each sample generated; None for a run that does not generate.
        patches: Where each sample's patches are, for reads of the vision tower.
        n_reasoning: How many of each sample's generated tokens belong to the thought; None for none.
    """
    labelled: list[list[xr.DataArray]] = [[] for _ in tokens]
    for number, selection in enumerate(selections):
        given = [(step, rows[number, step]) for read, step in sorted(rows) if read == number]
        if isinstance(selection, VisionSelection):
            seen = _rows(given, selection, len(tokens))
            for i, own in enumerate(patches):
                labelled[i].append(_labelled_patches(selection, i, own, seen[:, i]))
            continue
        if isinstance(selection, StreamSelection):
            stacked, label = _stream(given, selection, len(tokens)), partial(_labelled_stream, selection)
        else:
            stacked, label = _rows(given, selection, len(tokens)), partial(_labelled, selection)
        for i, sample in enumerate(tokens):
            first = 0 if len(selection.queries[i]) else 1
            steps = None if n_steps is None else n_steps[i] if selection.decodes else 1
            own = stacked[: None if steps is None else max(steps - first, 0), i]
            n_thought = 0 if n_reasoning is None else n_reasoning[i]
            if selection.stage == "answer":
                own, first = own[n_thought:], first + n_thought
            elif selection.stage == "reasoning":
                own = own[:n_thought]
            labelled[i].append(label(i, sample, own, None if n_steps is None else first))
    return [tuple(one) for one in labelled]


def _rows(
    given: Sequence[tuple[int, list[Tensor]]], selection: Selection | VisionSelection, n_samples: int
) -> Float[np.ndarray, "step sample layer head query key"]:
    """The rows of all steps, with layers in the site's order; (layer, head) pairs lie along "head", in one layer."""
    order = sorted(selection.heads)
    paired = selection.pairs is not None and not selection.reduce
    if not given:
        n_heads = 1 if selection.reduce else len(selection.pairs or next(iter(selection.heads.values())))
        width = max(len(keys) for keys in selection.keys)
        return np.zeros((0, n_samples, 1 if paired else len(order), n_heads, 1, width), np.float32)
    axis = torch.cat if paired else torch.stack
    array = torch.stack([axis(together(layers), dim=1) for _, layers in given]).float().cpu().numpy()
    if paired:
        where = [(layer, head) for layer in order for head in selection.heads[layer]]
        wanted = [where.index(pair) for pair in selection.pairs or ()]
        return array[:, :, None, wanted]
    return array[:, :, [order.index(layer) for layer in selection.heads]]


def _stream(
    given: Sequence[tuple[int, list[Tensor]]], selection: StreamSelection, n_samples: int
) -> Float[np.ndarray, "step sample layer position hidden"]:
    """The vectors of all steps, with layers in the order of the read."""
    if not given:
        return np.zeros((0, n_samples, len(selection.layers), 1, 0), np.float32)
    order = sorted(selection.layers)
    array = torch.stack([torch.stack(together(layers), dim=1) for _, layers in given]).float().cpu().numpy()
    return array[:, :, [order.index(layer) for layer in selection.layers]]


Along = Mapping[str, Sequence[int] | Int[np.ndarray, " _"]]
"""Dimension → its coordinate."""


def _array(
    values: np.ndarray, dims: Sequence[str], along: Along, name: str, position: tuple[str, Any] | None = None
) -> xr.DataArray:
    """An array with a coordinate along each dimension in `along`.

    Args:
        values: The numbers.
        dims: The names of the dimensions.
        along: Dimension → coordinate.
        name: The name of the array.
        position: The dimension that gets a second coordinate, "position", and this coordinate's values.
    """
    coordinates = tuple((dim, np.asarray(at, np.int64).tobytes()) for dim, at in along.items())
    other = None if position is None else (position[0], np.asarray(position[1], np.int64).tobytes())
    coords, indexes = _labels(coordinates, other)
    variable = xr.Variable(tuple(dims), values)
    return xr.DataArray(variable, dict(coords), name=name, indexes=dict(indexes), fastpath=True)


def relabelled(array: xr.DataArray, values: np.ndarray, without: str | None = None) -> xr.DataArray:
    """The array with other values. It is faster than xarray's `copy` and `isel`, which copy every coordinate.

    Args:
        array: The array. The new array shares its coordinates, which are never written to.
        values: Values of the same shape, or of that shape without the dimension `without`.
        without: The dimension that the values lack; None if they lack none.
    """
    dims = tuple(dim for dim in array.dims if dim != without)
    coords = {name: one for name, one in array.coords.variables.items() if without not in one.dims}
    indexes = {name: one for name, one in array.xindexes.items() if name in coords}
    variable = xr.Variable(dims, values, attrs=array.attrs)
    return xr.DataArray(variable, coords, name=array.name, indexes=indexes, fastpath=True)


@lru_cache(maxsize=256)
def _labels(
    along: tuple[tuple[str, bytes], ...], position: tuple[str, bytes] | None
) -> tuple[dict[Any, xr.Variable], dict[Any, Any]]:
    """The coordinates and indexes, from values given as bytes. They are cached, because xarray makes them slowly."""
    found = {dim: PandasIndex(pd.Index(np.frombuffer(at, np.int64)), dim) for dim, at in along}
    variables = {dim: one.create_variables()[dim] for dim, one in found.items()}
    more = {} if position is None else {"position": (position[0], np.frombuffer(position[1], np.int64))}
    coords = xr.Coordinates({**variables, **more}, indexes=found)
    return dict(coords.variables), dict(coords.xindexes)


def _labelled(
    selection: Selection,
    sample: int,
    tokens: TokenMap,
    values: Float[np.ndarray, "step layer head query key"],
    first: int | None,
) -> xr.DataArray:
    apart = (selection.kind == "cross") != (
        tokens.cross is not None
    )  # then no key of the site's is an image token
    places = None if apart else _numbers(selection.keys[sample], tokens)
    return _attention(selection, sample, places, values, first, "token")


def _labelled_patches(
    selection: VisionSelection,
    sample: int,
    patches: PatchMap,
    values: Float[np.ndarray, "step layer head query key"],
) -> xr.DataArray:
    """Rows of the vision tower. The last dimension is "patch" if every key is a patch, else "key".

    Its coordinates "view" and "sequence" say which view and which sequence each key belongs to.
    """
    keys = selection.keys[sample]
    array = _attention(selection, sample, _numbers(keys, patches), values, None, "patch")
    last = array.dims[-1]
    return array.assign_coords(view=(last, patches.labels[keys]), sequence=(last, patches.sequence[keys]))


def _attention(
    selection: Selection | VisionSelection,
    sample: int,
    places: Int[np.ndarray, " place"] | None,
    values: Float[np.ndarray, "step layer head query key"],
    first: int | None,
    kind: str,
) -> xr.DataArray:
    """A sample's rows; `places` numbers the keys along the dimension `kind`. If it is None, the dimension is "key"."""
    queries, keys = selection.queries[sample], selection.keys[sample]
    last = "key" if places is None else kind
    along = {
        "step": np.arange(len(values)) + (first or 0),
        "layer": list(selection.heads),
        "head": list(next(iter(selection.heads.values()))),
        "query": queries,
        last: keys if places is None else places,
    }
    dims = ["step", "layer", "head", "query", last]
    paired = selection.pairs is not None
    dropped = [
        *(["step"] if first is None else []),
        *(["head"] if selection.reduce else ["layer"] if paired else []),
    ]
    unlabelled = {*dropped, *(["head"] if paired else []), *([] if len(queries) else ["query"])}
    values = values[:, :, :, : len(queries) or 1, : len(keys)]
    values = values.squeeze(tuple(dims.index(d) for d in dropped))
    kept = {dim: at for dim, at in along.items() if dim not in unlabelled}
    left = [dim for dim in dims if dim not in dropped]
    linear = isinstance(selection, Selection) and selection.kind == "linear"
    array = _array(values, left, kept, LINEAR if linear else "attention", (last, keys))
    if linear:
        array.attrs = {"signed": True, "long_name": _SIGNED}
    if "head" in left and selection.pairs is not None:
        index = pd.MultiIndex.from_tuples(selection.pairs, names=["layer", "head_in_layer"])
        array = array.assign_coords(xr.Coordinates.from_pandas_multiindex(index, "head"))
    return array


def _numbers(keys: Int[np.ndarray, " key"], tokens: TokenMap) -> Int[np.ndarray, " key"] | None:
    """The keys' numbers among the image tokens; None if some key is not an image token."""
    if np.array_equal(keys, tokens.image):
        return np.arange(len(keys))
    order = np.argsort(tokens.image)
    at = np.searchsorted(tokens.image, keys, sorter=order)
    if not tokens.n or (at == tokens.n).any() or (tokens.image[order[at]] != keys).any():
        return None
    return order[at]


def _labelled_stream(
    selection: StreamSelection,
    sample: int,
    tokens: TokenMap,
    values: Float[np.ndarray, "step layer position hidden"],
    first: int | None,
) -> xr.DataArray:
    positions = selection.queries[sample]
    values = values[:, :, : len(positions) or 1]
    along = {
        **({} if first is None else {"step": np.arange(len(values)) + first}),
        "layer": list(selection.layers),
        **({"position": positions} if len(positions) else {}),
    }
    dims = ["step", "layer", "position", "hidden"]
    if first is None:
        values, dims = values[0], dims[1:]
    if selection.name == "experts":
        return _labelled_routing(values, dims, along, positions, tokens)
    return _array(values, dims, along, selection.name)


def _labelled_routing(
    values: Float[np.ndarray, "*step layer position expert"],
    dims: Sequence[str],
    along: Along,
    positions: Int[np.ndarray, " position"],
    tokens: TokenMap,
) -> xr.DataArray:
    """The routing of tokens: along "token" if all are image tokens, else along "position"."""
    named = [{"hidden": "expert"}.get(dim, dim) for dim in dims]
    numbers = _numbers(positions, tokens) if len(positions) else None
    along = {**along, "expert": np.arange(values.shape[-1])}
    if numbers is None:
        return _array(values, named, along, "experts")
    kept = {dim: at for dim, at in along.items() if dim != "position"}
    named[-2] = "token"
    return _array(values, named, {**kept, "token": numbers}, "experts", ("token", positions))
