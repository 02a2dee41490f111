from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest

from interp.data import Samples
from interp.errors import EditError, StudyError
from interp.indicators import Attention
from interp.study import Grid, LayerSweep, ModelSpec
from interp.study.grid import _label
from interp.tracing import Knockout, Mllm, Site, wrap
from tests import tiny
from tests.study.planted import Model, Planted, sample, samples, sweep


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


def test_cells_of_another_study_are_not_computed_again(tmp_path: Path) -> None:
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
    cells = Grid(sweep(), data=data(), model=models).studies
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
        (
            {"rule": ["touch", "nearest"]},
            r"axis rule holds a value that does not fit, 'nearest': rule is one of",
        ),
        ({"seed": [0, "one"]}, r"'one': seed is a whole number ≥ 0"),
        ({"batch": [0]}, r"axis batch .* batch is a whole number ≥ 1"),
        ({"metrics": [("ar",), ("fame",)]}, r"'fame': metrics takes at least one of"),
        ({"edits": {"cut": ["layer 3"]}}, r"axis edits .* 'cut': edits= takes edits"),
    ],
)
@pytest.mark.usefixtures("unchecked")
def test_axes_that_make_no_sense_are_refused(axes: dict[str, Any], message: str) -> None:
    with pytest.raises(StudyError, match=message):
        Grid(sweep(), **axes)


def test_any_field_of_the_study_is_an_axis(tmp_path: Path) -> None:
    grid = Grid(sweep(data=samples(6)), metrics=[("ar",), ("ar", "kl")], batch=[2, 3])
    result = grid.run(tmp_path, progress=False)
    assert result.axes == ("model", "data", "metrics", "batch")
    assert result.metrics == ("ar", "kl")
    counts = result.scores.groupby(["metrics", "batch"]).metric.nunique()
    assert counts.to_dict() == {("ar", "2"): 1, ("ar", "3"): 1, ("ar, kl", "2"): 2, ("ar, kl", "3"): 2}
    assert "–" in result.table("kl")  # half of the cells lack it
    assert result.report().exists()


def hashes(out: Path) -> dict[str, str]:
    files = sorted(out.glob("layer-sweep-*/*/*.parquet"))
    return {str(file.relative_to(out)): hashlib.sha256(file.read_bytes()).hexdigest() for file in files}


def test_cells_that_share_a_pass_have_the_bytes_they_have_alone(tmp_path: Path) -> None:
    indicator = Planted(nan="s3", mismatch="s5")
    base = sweep(data=samples(10), indicator=indicator)
    grid = Grid(base, rule=["touch", "center"], metrics=[("ar",), ("kl", "js")], seed=[0, 1])
    grid.run(tmp_path / "grid", progress=False)
    together = [name for call in indicator.calls if "s5" not in call for name in call]
    assert sorted(together) == sorted(f"s{i}" for i in range(10) if i != 5)  # once each, for eight cells
    for _, alone in grid.studies:
        alone.replace(indicator=Planted(nan="s3", mismatch="s5")).run(tmp_path / "alone", progress=False)
    assert hashes(tmp_path / "grid") == hashes(tmp_path / "alone")
    assert len(hashes(tmp_path / "grid")) > 8 * 4


def test_what_the_pass_depends_on_is_not_shared(tmp_path: Path) -> None:
    first, second = Planted((0.0, 1.0, 1.0)), Planted((0.0, 2.0, 1.0))
    Grid(sweep(data=samples(4), indicator=first), indicator=[first, second]).run(tmp_path, progress=False)
    assert sorted(map(len, (first.calls, second.calls))) == [2, 2]
    batches = Planted()
    Grid(sweep(data=samples(4), indicator=batches), batch=[2, 4]).run(tmp_path, progress=False)
    assert len(batches.calls) == 3


def test_the_cell_that_ran_the_model_pays_for_it(tmp_path: Path) -> None:
    cost = Grid(sweep(data=samples(4)), seed=[0, 1]).run(tmp_path, progress=False).cost
    assert cost.forwards.fillna(0).tolist() == [2, 0]


def test_a_cell_that_fails_whole_leaves_its_reasons(tmp_path: Path) -> None:
    empty = Samples([sample(number, boxes=[]) for number in range(30, 33)], "empty")
    models = {"one": Model(), "two": Model(fingerprint="e" * 64)}
    grid = Grid(sweep(data=samples(6)), model=models, data={"good": samples(6), "bad": empty})
    result = grid.run(tmp_path, progress=False)
    failures = result.failures.groupby(["model", "data"]).size()
    assert failures.to_dict() == {("one", "bad"): 3, ("two", "bad"): 3}
    assert set(result.summary().data) == {"good"}
    assert result.compare("ar", layer=1, over="model").p.isna().tolist() == [False, True]
    assert "SampleError: the sample has no box" in result.report().read_text()
    with pytest.raises(StudyError, match="all failed"):
        Grid(sweep(), data={"bad": empty, "worse": empty[:2]}).run(tmp_path, progress=False)


@pytest.fixture(scope="module")
def mllm() -> Mllm:
    return wrap(tiny.llava(), tiny.processor())


def real(mllm: Mllm, **changes: Any) -> LayerSweep:
    data = [tiny.sample("is it red?", i, boxes=[(8, 8, 40, 30)], id=f"{i}") for i in range(4)]
    return LayerSweep(model=mllm, data=data, indicator=Attention(), metrics=("ar",), batch=2, **changes)


def test_a_real_model_runs_once_for_all_rules_and_seeds(mllm: Mllm, tmp_path: Path) -> None:
    passes: list[int] = []
    first = mllm.hf.model.language_model.layers[0]
    handle = first.register_forward_hook(lambda *_: passes.append(1))
    try:
        Grid(real(mllm), rule=["touch", "center"], seed=[0, 1]).run(tmp_path, progress=False)
    finally:
        handle.remove()
    assert len(passes) == 4  # two batches, a prefix and a rest each


def test_edits_are_an_axis_and_change_what_the_indicator_sees(mllm: Mllm, tmp_path: Path) -> None:
    blind = Knockout(Site(layers=[1], queries="last", keys="image"), mode="zero")
    result = Grid(real(mllm), edits={"as it is": (), "blind": [blind]}).run(tmp_path, progress=False)
    whole, edited = result.cells
    for layer, same in ((0, True), (1, False)):
        before, after = (cell.maps([0], layer)[0] for cell in (whole, edited))
        assert (before == after).all() == same
        assert after.any() == same
    assert real(mllm).run(tmp_path, progress=False).folder == whole.folder.path  # the hash it always had
    assert "edits" not in real(mllm).to_dict()
    assert real(mllm, edits=[blind]).to_dict()["edits"] == [blind.to_dict()]


def test_edits_need_a_real_model_and_to_be_a_list(tmp_path: Path) -> None:
    blind = Knockout(Site(layers=[1], queries="last", keys="image"))
    with pytest.raises(StudyError, match="edits is a list of edits"):
        sweep(edits=blind)
    with pytest.raises(EditError, match="come before edits of probabilities in the list"):
        sweep(edits=[Knockout(blind.site, mode="zero"), blind])
    with pytest.raises(
        StudyError, match=r"all failed.*edits need a model of interp.load or interp.wrap; got Model"
    ):
        sweep(edits=[blind]).run(tmp_path, progress=False)


@pytest.mark.parametrize(
    ("axis", "value", "label"),
    [
        ("edits", (), "none"),
        ("edits", ("a", 3), "'a', 3"),
        ("metrics", ("ar", "kl"), "ar, kl"),
        ("metrics", ["ar"], "ar"),
        ("metrics", 3, "3"),
        ("seed", 3, "3"),
    ],
)
def test_a_value_without_a_label_is_named_by_what_it_holds(axis: str, value: Any, label: str) -> None:
    assert _label(axis, value) == label


def test_every_option_of_a_run_reaches_the_cells(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    given: dict[str, Any] = {}

    def run(studies: Any, out: Any, **options: Any) -> Any:
        given.update(options, out=out, n=len(studies))
        raise StudyError("enough")

    monkeypatch.setattr("interp.study.grid.run_cells", run)
    with pytest.raises(StudyError, match="enough"):
        Grid(sweep(), data=data()).run(tmp_path, workers=2, progress=False, part=(1, 3), loaders=5)
    assert given.pop("workers").n == 2
    assert given == {"out": tmp_path, "n": 2, "progress": False, "part": (1, 3), "loaders": 5}


def test_a_grid_asks_what_its_study_asks_and_of_what_it_depends(tmp_path: Path) -> None:
    grid = Grid(sweep(), data=data(), seed=(0, 1))
    assert grid.title == f"{sweep().title} over data, seed"
    assert grid.question == f"{sweep().question} Does it depend on the data or the seed?"
    assert grid.page == sweep().page
    one, same = (Grid(sweep(model="organism"), data=data(), seed=seeds) for seeds in ((0, 1), [0, 1]))
    assert hash(one) == hash(same)
    assert list(grid.axes["seed"].items()) == [("0", 0), ("1", 1)]


def test_the_last_axis_runs_fastest_behind_the_models() -> None:
    models = {"b": Model(), "a": Model(fingerprint="e" * 64)}
    grid = Grid(sweep(), seed=[1, 0], model=models, batch=[2, 3])
    keys = [tuple(labels[name] for name in ("model", "seed", "batch")) for labels, _ in grid.studies]
    assert keys == [(m, s, b) for m in "ba" for s in "10" for b in "23"]
    assert [(study.seed, study.batch) for _, study in grid.studies] == [(int(s), int(b)) for _, s, b in keys]
    assert all(list(labels) == ["model", "data", "seed", "batch"] for labels, _ in grid.studies)
    assert all(study.model is models[labels["model"]] for labels, study in grid.studies)


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(
    ("axes", "message"),
    [
        ({"rules": ["touch"]}, r"got \['rules'\]\. Did you mean 'rule'"),
        ({"rule": {"a": "touch", "b": "nearest"}}, "does not fit, 'b': rule is one of"),
        ({"seed": 3}, "the axis seed takes a list or a mapping from label to value; got 3"),
        ({"seed": []}, r"needs at least one value and distinct labels; got \[\]"),
        ({"seed": {1: 0, "1": 1}}, r"distinct labels; got \['1', '1'\]"),
    ],
)
def test_an_axis_of_no_sense_says_what_came(axes: dict[str, Any], message: str) -> None:
    with pytest.raises(StudyError, match=message):
        Grid(sweep(), **axes)


@pytest.mark.usefixtures("unchecked")
def test_only_a_study_is_varied() -> None:
    wrong: Any = data()
    with pytest.raises(StudyError, match=r"a Grid varies a study, such as LayerSweep\(data=…\)"):
        Grid(wrong, seed=[0, 1])
