"""Maps that several tasks read are made and paid for once, and maps of other dimensions stop the run."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr

from interp.errors import RunError
from interp.indicators import Maps
from interp.inputs.sample import Sample
from interp.inputs.tokens import TokenMap
from interp.run import ProcessCache
from interp.study.samples_task import _n_bytes
from interp.tracing import Cost
from tests.study.planted import Model, Planted, samples, sweep, token_map


def test_tasks_of_one_cache_share_maps_and_the_first_pays() -> None:
    indicator = Planted()
    shelf, tasks = ProcessCache(), []
    for changes in ({}, {"metrics": ("ar",)}, {"seed": 3}, {"batch": 4}):
        study = sweep(data=samples(4), indicator=indicator, **changes)
        tasks.append(study.task(study.model))
        tasks[-1].use(shelf)
    costs = [task.compute((0, 1)).cost for task in tasks]
    assert indicator.calls == [("s0", "s1")] * 2  # other batches may round differently
    assert costs[0]["forwards"] == 1
    assert costs[1] == costs[2] == {}
    assert costs[3] == costs[0]
    again = tasks[1].compute((2, 3))
    assert again.cost == costs[0]
    assert indicator.calls[-1] == ("s2", "s3")


def test_the_size_of_maps_counts_their_logits() -> None:
    maps = tuple(xr.DataArray(np.zeros((2, 20)), dims=("layer", "token")) for _ in range(2))
    tokens = (token_map(samples(1)[0]),) * 2
    logits = xr.DataArray(np.zeros((2, 5)), dims=("sample", "token_id"))
    assert _n_bytes(Maps(maps, tokens, Cost(), None)) == 2 * 40 * 8
    assert _n_bytes(Maps(maps, tokens, Cost(), logits)) == 2 * 40 * 8 + 10 * 8


@dataclass(frozen=True)
class Flat(Planted):
    """Gives one map, of no layer."""

    def _map(self, sample: Sample, tokens: TokenMap) -> xr.DataArray:
        return xr.DataArray(np.ones(tokens.n), dims="token")


def test_maps_of_other_dimensions_stop_the_run(tmp_path: Path) -> None:
    study = sweep(data=samples(4), indicator=Flat(), model=Model())
    with pytest.raises(
        RunError, match=r"a LayerSweep needs maps \(layer, token\); Flat gives \(token\)\. Use another"
    ):
        study.run(tmp_path, progress=False)
    assert len(study.indicator.calls) == 1  # the first micro-batch says enough


def test_what_maps_depend_on_is_in_the_hash() -> None:
    def told(**changes: Any) -> dict[str, Any]:
        study = sweep(data=samples(2), **changes)
        return study.task(study.model).to_dict()

    assert told()["indicator"] == Planted().to_dict()
    assert told(indicator=Planted((1.0, 2.0)))["indicator"] != told()["indicator"]
    assert "edits" not in told()
