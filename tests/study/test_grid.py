from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from interp.errors import StudyError
from interp.study import Grid, ModelSpec
from tests.study.planted import Model, Planted, samples, sweep


def data() -> dict[str, Any]:
    return {"natural": samples(6), "medical": samples(6, start=20)}


def test_one_frame_with_a_column_per_axis(tmp_path: Path) -> None:
    grid = Grid(sweep(), data=data(), seed=[0, 1])
    result = grid.run(tmp_path, progress=False)
    assert result.axes == ("model", "data", "seed")
    combinations = result.scores[["data", "seed"]].drop_duplicates()
    assert [tuple(row) for row in combinations.to_numpy()] == [
        ("natural", "0"),
        ("natural", "1"),
        ("medical", "0"),
        ("medical", "1"),
    ]
    assert len(result.scores) == 4 * 6 * 27
    assert set(result.summary().columns) >= {"model", "data", "seed", "mean", "low", "high", "n", "n_groups"}


def test_cells_already_computed_by_another_study_are_not_computed_again(tmp_path: Path) -> None:
    sweep(data=samples(6)).run(tmp_path, progress=False)
    indicator = Planted()
    result = Grid(sweep(indicator=indicator), data=data()).run(tmp_path, progress=False)
    seen = {name for call in indicator.calls for name in call}
    assert seen == {f"s{number}" for number in range(20, 26)}
    assert len(list(tmp_path.glob("layer-sweep-*"))) == 2
    stored = json.loads((result.folder / "study.json").read_text())
    assert stored == result.study.to_dict()
    listed = stored["cells"]
    assert [cell["labels"]["data"] for cell in listed] == ["natural", "medical"]
    assert all((tmp_path / cell["run"] / "study.json").exists() for cell in listed)


def test_a_models_cells_are_run_side_by_side() -> None:
    models = [Model(), Model(fingerprint="e" * 64, family="other")]
    cells = Grid(sweep(), data=data(), model=models).sweeps
    assert [labels["model"] for labels, _ in cells] == ["planted", "planted", "other", "other"]
    assert [found.model for _, found in cells] == [models[0], models[0], models[1], models[1]]


def test_ids_become_models_under_their_own_names() -> None:
    grid = Grid(sweep(), model=["organism", ModelSpec("some/model", revision="abc")])
    assert list(grid.axes["model"].items()) == [
        ("organism", ModelSpec("organism")),
        ("some/model@abc", ModelSpec("some/model", revision="abc")),
    ]


@pytest.mark.parametrize(
    ("axes", "message"),
    [
        ({}, "varies at least one of model, data"),
        ({"metric": ["ar"]}, r"got \['metric'\]"),
        ({"data": {}}, "at least one value"),
        ({"seed": [1, 1]}, r"distinct labels; got \['1', '1'\]"),
        ({"model": "organism"}, "takes a list or a mapping"),
        ({"data": samples(3)}, "takes several Samples, got one"),
    ],
)
def test_axes_that_make_no_sense_are_refused(axes: dict[str, Any], message: str) -> None:
    with pytest.raises(StudyError, match=message):
        Grid(sweep(), **axes)
