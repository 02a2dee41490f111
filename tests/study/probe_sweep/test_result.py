"""Probes of a run whose streams are written by hand: every measure of every sample is known."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
import xarray as xr

from interp.data import Samples
from interp.errors import InterpError, SampleError
from interp.study.probe_sweep.probes import fold_of, held_out
from interp.study.probe_sweep.result import MEASURES, ProbeResult
from interp.study.probe_sweep.task import ProbeTask, property_of
from tests.study.planted import sample, token_map

pytestmark = pytest.mark.usefixtures("unchecked")

N = 40
CLASSES = [("red", "blue")[i // 2 % 2] for i in range(N)]


def cell(model: str = "m", measured: bool = True, rare: int = 0) -> Any:
    """At layer 0 the stream is the class, at layer 1 it is noise; rows are stored in no order."""
    classes = [*CLASSES]
    classes[:rare] = ["mauve"] * rare
    known = sorted(set(classes))
    noise = np.random.default_rng(0).normal(size=(N, 3))
    samples = pd.DataFrame(
        {
            "index": range(N), "sample": [f"s{i}" for i in range(N)], "group": [f"g{i // 2}" for i in range(N)],
            "target": classes, "type": [f"g{i // 2}" for i in range(N)],
        }
    )  # fmt: skip
    features = [
        {"index": i, "position": "last", "layer": layer, "values": vector.tolist()}
        for i in reversed(range(N))
        for layer, vector in ((0, np.eye(3)[known.index(classes[i])]), (1, noise[i]))
    ]
    tables = {
        "samples": pa.Table.from_pandas(samples.sample(frac=1, random_state=1), preserve_index=False),
        "features": pa.Table.from_pandas(pd.DataFrame(features), preserve_index=False),
    }
    labels = {"model": model, "data": "d"}
    study = SimpleNamespace(folds=4, seed=0, penalty=1.0)
    return SimpleNamespace(
        labels=labels, key=tuple(labels.values()), measured=measured, study=study,
        folder=SimpleNamespace(read_table=lambda name: tables[name]),
    )  # fmt: skip


def result(*cells: Any) -> ProbeResult:
    study: Any = SimpleNamespace(title="Probes")
    return ProbeResult(study, cells, None)  # pyright: ignore[reportArgumentType]


def test_each_sample_has_its_own_probes_verdict() -> None:
    found = result(cell("a"), cell("none", measured=False), cell("b"))
    scores = found.scores
    assert list(scores) == ["model", "data", "sample", "group", "position", "layer", "measure", "value"]
    assert set(scores.model) == {"a", "b"}
    assert set(scores.measure) == set(MEASURES)
    assert len(scores) == 2 * N * 2 * len(MEASURES)
    means = scores[scores.model == "a"].groupby(["layer", "measure"]).value.mean()
    assert means[0, "accuracy"] == 1.0
    assert means[1, "accuracy"] < 0.75
    assert means[0, "control"] < 0.75
    assert means[0, "majority"] == means[1, "majority"] <= 0.5
    wide = found.values.pivot_table(index=["model", "index", "layer"], columns="measure", values="value")
    np.testing.assert_allclose(wide.selectivity, wide.accuracy - wide.control)
    said = found.said[found.said.model == "b"]
    assert list(said)[2:] == ["index", "sample", "group", "position", "layer", "target", "said"]
    zero = said[said.layer == 0].set_index("index")
    assert zero.said.sort_index().tolist() == zero.target.sort_index().tolist() == CLASSES
    assert zero["sample"][7] == "s7"
    assert zero.group[7] == "g3"


def test_a_class_of_one_group_is_never_seen() -> None:
    found = result(cell(), cell("rare", rare=2))
    assert found.unseen.to_numpy().tolist() == [["rare", "d", "mauve", 2, 2 / N]]
    values = found.values
    own = values[(values.model == "rare") & (values["index"] < 2) & (values.measure == "accuracy")]
    assert own.value.tolist() == [0.0] * 4
    assert result(cell()).unseen.empty


def task(**study: Any) -> Any:
    made: Any = object.__new__(ProbeTask)
    fields = {"data": Samples([sample(0, meta={"label": "a  b"}), sample(1, answer=None)]), "target": "answer",
              "control": "group", "positions": ("last", "box")}  # fmt: skip
    made.study = SimpleNamespace(**fields | study)
    made._sample_fields = lambda index: {"index": index}
    return made


def streams(n_layers: int = 2) -> Any:
    """The stream at layer l is l + the token's number, in two dimensions."""

    def of(n: int) -> xr.DataArray:
        values = np.arange(n_layers)[:, None, None] + np.arange(n)[None, :, None] + np.zeros(2)
        return xr.DataArray(values, {"layer": [4, 9]}, dims=("layer", "place", "hidden"))

    return {"last": of(1), "image": of(20), "question": of(3)}


def test_streams_are_averaged_over_their_position() -> None:
    """The box covers the tokens 0 and 1; the question has three tokens, the image twenty."""
    own = task(positions=("last", "question", "image", "box"))
    rows = own._rows(0, streams(), token_map(sample(0)))
    found = {(row["position"], row["layer"]): row["values"] for row in rows["features"]}
    assert found == {
        ("last", 4): [0, 0], ("last", 9): [1, 1], ("question", 4): [1, 1], ("question", 9): [2, 2],
        ("image", 4): [9.5, 9.5], ("image", 9): [10.5, 10.5], ("box", 4): [0.5, 0.5], ("box", 9): [1.5, 1.5],
    }  # fmt: skip
    assert rows["samples"] == [{"index": 0, "target": "left", "type": "patient-0"}]


def test_a_sample_without_class_type_or_box_fails() -> None:
    with pytest.raises(SampleError, match="the sample has no answer, so a probe cannot learn"):
        task()._rows(1, streams(), token_map(sample(1)))
    with pytest.raises(SampleError, match="the sample has no label"):
        task(control="label", data=Samples([sample(0)]))._rows(0, streams(), token_map(sample(0)))
    none = sample(0, boxes=())
    with pytest.raises(InterpError, match="the sample's boxes cover no image token"):
        task()._averaged(streams()["image"].values, "box", none, token_map(none))


def test_a_property_of_the_meta_has_single_spaces() -> None:
    one = task().study.data[0]
    assert property_of(one, "label", "g") == "a b"
    assert property_of(one, "group", "g") == "g"
    assert property_of(one, "question", "g") == one.question


def test_probes_have_the_folds_the_seed_and_the_penalty() -> None:
    options = {"folds": 2, "seed": 3, "penalty": 50.0}
    own = cell()
    own.study = SimpleNamespace(**options)
    groups = [f"g{i // 2}" for i in range(N)]
    noise = np.random.default_rng(0).normal(size=(N, 3))

    def expected(folds: int, seed: int, penalty: float) -> list[str]:
        return held_out(noise, CLASSES, fold_of(CLASSES, groups, folds, seed), penalty)

    found = result(own).said
    assert found[found.layer == 1].said.tolist() == expected(**options)
    for name, value in (("folds", 4), ("seed", 0), ("penalty", 1.0)):
        assert expected(**{**options, name: value}) != expected(**options), name
