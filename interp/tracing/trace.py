"""What a trace gives back: labelled rows per sample, logits, answers, cost."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import torch
import xarray as xr
from jaxtyping import Float
from torch import Tensor

from interp.errors import SiteError
from interp.tokens import TokenMap
from interp.tracing.cost import Cost
from interp.tracing.request import Selection

__all__ = ["SampleTrace", "Trace", "label_rows"]


@dataclass(frozen=True, eq=False)
class SampleTrace:
    """One sample's share of a trace: `reads` has one array per `Rows`, in the order asked for."""

    reads: tuple[xr.DataArray, ...]
    tokens: TokenMap
    answer: str | None = None

    @property
    def rows(self) -> xr.DataArray:
        """The rows of the trace's only read: ([step,] [layer,] [head,] query, key or token), float32.

        The last dimension is "token", numbered as the image tokens are, when only image tokens are read, else
        "key". "query" (of step 0) and "key" are unpadded positions; so is the coordinate "position", along the
        last dimension. With (layer, head) pairs, "head" is a MultiIndex of "layer" and "head_in_layer".

        Raises:
            SiteError: The trace has no read, or several: use `reads`.
        """
        return _only(self.reads)


@dataclass(frozen=True, eq=False)
class Trace(Sequence):
    """What a trace found. `trace[i]` is sample i.

    Attributes:
        logits: (sample, token_id) after the last prompt token, float32.
        answers: the generated texts; empty without generate=.
        tokens: where each sample's tokens are.
        cost: time, memory, passes.
    """

    samples: tuple[SampleTrace, ...]
    logits: xr.DataArray
    answers: list[str]
    tokens: tuple[TokenMap, ...]
    cost: Cost

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: Any) -> Any:
        return self.samples[index]

    def __iter__(self) -> Iterator[SampleTrace]:
        return iter(self.samples)

    @property
    def rows(self) -> xr.DataArray:
        """All samples' rows over a new first dimension "sample", padded with NaN.

        Query, key and token are counted from 0 within each sample; "position" (sample, key or token) keeps
        the unpadded positions, NaN in the padding.

        Raises:
            SiteError: The trace has no read, or several.
        """
        return _joined([sample.rows for sample in self.samples])


def _only(reads: Sequence[xr.DataArray]) -> xr.DataArray:
    if len(reads) != 1:
        raise SiteError(
            f"the trace has {len(reads)} reads; .rows is for one. "
            + ("Use trace[i].reads." if reads else "Ask for some: reads=[interp.Rows(interp.Site())].")
        )
    return reads[0]


def _joined(rows: Sequence[xr.DataArray]) -> xr.DataArray:
    last = rows[0].dims[-1]
    ragged = [d for d in rows[0].dims if d in ("step", "query", last)]
    sizes = {d: max(r.sizes[d] for r in rows) for d in ragged}
    plain = [r.drop_vars([d for d in (*ragged, "position") if d in r.coords]) for r in rows]
    padded = [r.pad({d: (0, sizes[d] - r.sizes[d]) for d in ragged}, constant_values=np.nan) for r in plain]
    places = np.full((len(rows), sizes[last]), np.nan)
    for line, r in zip(places, rows, strict=True):
        line[: r.sizes[last]] = r["position"].values
    joined = xr.concat(padded, dim="sample")
    counted = {d: np.arange(sizes[d]) for d in ragged}
    return joined.assign_coords({**counted, "position": (("sample", last), places)})


def label_rows(
    rows: Mapping[tuple[int, int], list[Tensor]],
    selections: Sequence[Selection],
    tokens: Sequence[TokenMap],
    n_steps: Sequence[int] | None,
) -> list[tuple[xr.DataArray, ...]]:
    """Each sample's arrays, one per read. `n_steps`: tokens each sample generated, None if none was asked."""
    stacked = [_stacked(rows, number, selection) for number, selection in enumerate(selections)]
    found = []
    for i, sample in enumerate(tokens):
        steps = None if n_steps is None else n_steps[i]
        found.append(
            tuple(
                _labelled(values[:, i], s, i, sample, steps)
                for values, s in zip(stacked, selections, strict=True)
            )
        )
    return found


def _stacked(
    rows: Mapping[tuple[int, int], list[Tensor]], number: int, selection: Selection
) -> Float[np.ndarray, "step sample layer head query key"]:
    """All steps' rows in the order the site asked for; pairs have one layer entry with all their heads."""
    steps = sorted(step for read, step in rows if read == number)
    order = sorted(selection.heads)
    axis = torch.cat if selection.pairs and not selection.reduce else torch.stack
    values = torch.stack([axis(rows[number, step], dim=1) for step in steps])
    array = values.float().cpu().numpy()
    if axis is torch.cat:
        where = [(layer, head) for layer in order for head in selection.heads[layer]]
        wanted = [where.index(pair) for pair in selection.pairs or ()]
        return array[:, :, None, wanted]
    return array[:, :, [order.index(layer) for layer in selection.heads]]


def _labelled(
    values: Float[np.ndarray, "step layer head query key"],
    selection: Selection,
    sample: int,
    tokens: TokenMap,
    n_steps: int | None,
) -> xr.DataArray:
    queries, keys = selection.queries[sample], selection.keys[sample]
    places = {int(position): i for i, position in enumerate(tokens.image)}
    last = "token" if all(int(k) in places for k in keys) else "key"
    steps = 1 if n_steps is None or not selection.decodes else n_steps
    values = values[:steps, :, :, : len(queries), : len(keys)]
    coords: dict[str, Any] = {
        "step": np.arange(len(values)),
        "layer": list(selection.heads),
        "head": list(next(iter(selection.heads.values()))),
        "query": queries,
        last: [places[int(k)] for k in keys] if last == "token" else keys,
        "position": (last, keys),
    }
    dims = ["step", "layer", "head", "query", last]
    dropped = ["step"] if n_steps is None else []
    if selection.reduce:
        dropped.append("head")
    elif selection.pairs is not None:
        dropped.append("layer")
        del coords["head"]
    values = values.squeeze(tuple(dims.index(d) for d in dropped))
    for name in dropped:
        coords.pop(name, None)
    array = xr.DataArray(values, dims=[d for d in dims if d not in dropped], coords=coords, name="attention")
    if "head" in array.dims and selection.pairs is not None:
        index = pd.MultiIndex.from_tuples(selection.pairs, names=["layer", "head_in_layer"])
        array = array.assign_coords(xr.Coordinates.from_pandas_multiindex(index, "head"))
    return array
