"""Maps per head with a known share inside the box, and results made of given scores."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import xarray as xr

from interp.data import Samples
from interp.errors import ImageTokenMismatch
from interp.indicators import Maps
from interp.inputs.prompt import PAPER_PROMPT, Prompt
from interp.inputs.sample import Sample
from interp.run import RunFolder
from interp.run.task import FAILURE_SCHEMA
from interp.study.head_ranking.result import HeadResult
from interp.study.head_ranking.study import HeadRanking
from interp.study.head_ranking.task import SAMPLES, SCORES
from interp.study.runs import GridCell
from interp.tracing import Cost
from tests.study.planted import Model, samples, token_map

GAIN = ((0.0, 3.0), (1.0, 7.0), (3.0, 0.5))


@dataclass(frozen=True)
class PlantedHeads:
    """Head (l, h)'s map is 1 everywhere and 1 + gain[l][h] where a footprint meets a box."""

    gain: tuple[tuple[float, ...], ...] = GAIN
    per_head: bool = True
    layers: tuple[int, ...] = (0, 1, 2)
    silent: tuple[tuple[int, int], ...] = ()
    nan: tuple[str, int, int] | None = None
    dark: str = ""
    mismatch: str = ""
    bug: str = ""
    calls: list[tuple[str, ...]] = field(default_factory=list, compare=False)

    def __call__(self, mllm: Any, samples: Sequence[Sample], *, prompt: Prompt = PAPER_PROMPT) -> Maps:
        self.calls.append(tuple(sample.id for sample in samples))
        for sample in samples:
            if sample.id == self.mismatch:
                raise ImageTokenMismatch("the prompt holds 19 image tokens but the grid is 4×5 = 20.")
            if sample.id == self.bug:
                raise ZeroDivisionError("a bug")
        tokens = tuple(token_map(sample) for sample in samples)
        maps = tuple(
            self._map(sample, found.mask(sample.boxes)) for sample, found in zip(samples, tokens, strict=True)
        )
        return Maps(maps, tokens, Cost(0.5, 1000, 1, 0))

    def _map(self, sample: Sample, inside: np.ndarray) -> xr.DataArray:
        values = 1 + np.array(self.gain)[..., None] * inside
        for layer, head in self.silent:
            values[layer, head] = 0
        if self.nan is not None and self.nan[0] == sample.id:
            values[self.nan[1], self.nan[2], 0] = np.nan
        if sample.id == self.dark:
            values[:] = 0
        coords = {"layer": list(self.layers), "head": range(values.shape[1])}
        return xr.DataArray(values, dims=("layer", "head", "token"), coords=coords)

    def to_dict(self) -> dict[str, Any]:
        return {"indicator": "planted", "gain": [list(row) for row in self.gain]}


def ranking(**changes: Any) -> HeadRanking:
    base = HeadRanking(data=samples(), model=Model(), indicator=PlantedHeads(), metric="ar", batch=2)
    return replace(base, **changes)


def made(
    out: Path,
    values: np.ndarray,
    *,
    name: str = "made",
    groups: Sequence[str] | None = None,
    metric: str = "ar",
    heads: int = 4,
) -> HeadResult:
    """A result whose sample i scored values[i] at the heads in order, `heads` of them per layer."""
    n, n_pairs = values.shape
    groups = [f"{name}-{i}" for i in range(n)] if groups is None else groups
    study = ranking(data=Samples(samples(2), name), metric=metric)
    folder = RunFolder.create(out, name, {"made": float(np.nansum(values)), "shape": [n, n_pairs]})
    index, pair = np.divmod(np.arange(n * n_pairs), n_pairs)
    columns = {"index": index, "layer": pair // heads, "head": pair % heads, "value": values.ravel()}
    folder.write_table("scores", pa.table(columns).cast(SCORES))
    rows = [
        {"index": i, "sample": f"{name}{i}", "group": group, "n_tokens": 20, "n_box_tokens": 2}
        | {"lost_area": 0.0, "even": 1.0}
        for i, group in enumerate(groups)
    ]
    folder.write_table("samples", pa.Table.from_pylist(rows, schema=SAMPLES))
    folder.write_table("failures", FAILURE_SCHEMA.empty_table())
    return HeadResult(study, (GridCell(study.labels, study, folder),), folder.path)
