"""Parts of `interp run`, `report` and `runs`: settings, names of runs, rows of the list, without a run."""

from __future__ import annotations

import dataclasses
import datetime
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from interp import study
from interp.cli import main
from interp.data import Samples
from interp.errors import RunError, StudyError
from interp.indicators import Attention
from interp.inputs.sample import Sample
from interp.run import Workers
from interp.study_commands import (
    COMMAND,
    Asked,
    _cells,
    _place,
    _run_names,
    _said,
    _say_left_out,
    _setting,
    _workers,
)

ASKED = Asked("layer-sweep", ("natural",), ("organism",), 3, "test", 0, {"device": "cpu"}, {})


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("n=1", ("n", 1)),
        ("rule=center", ("rule", "center")),
        ('metrics=["ar"]', ("metrics", ["ar"])),
        ("prompt=a=b", ("prompt", "a=b")),
        ("prompt=", ("prompt", "")),
        ("on=true", ("on", True)),
    ],
)
def test_a_setting_is_json_or_a_text(text: str, found: tuple[str, Any]) -> None:
    assert _setting(text) == found


@pytest.mark.parametrize("text", ["n", "=1", "1n=2", "a-b=2", ""])
def test_a_setting_has_a_name(text: str) -> None:
    with pytest.raises(StudyError, match="--set takes NAME=JSON"):
        _setting(text)


def test_a_place_that_exists_is_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "rows.csv").touch()
    assert [_place(one) for one in ("rows.csv", "natural")] == [str(tmp_path / "rows.csv"), "natural"]


def test_what_was_asked_is_read_back(tmp_path: Path) -> None:
    whole = Asked("benchmark", ("a", "b"), ("m", "k"), 0, "all", 7, {"dtype": "x"}, {"scorer": "é", "n": [1]})
    (tmp_path / COMMAND).write_text(whole.to_json())
    assert Asked.read(tmp_path) == whole
    stored = json.loads(whole.to_json())
    assert set(stored) == {*(one.name for one in dataclasses.fields(Asked)), "interp"}
    for name in (one.name for one in dataclasses.fields(Asked)):
        (tmp_path / COMMAND).write_text(json.dumps({key: one for key, one in stored.items() if key != name}))
        with pytest.raises(RunError, match="does not say what the run was asked for"):
            Asked.read(tmp_path)


@pytest.mark.parametrize(
    ("changes", "names"),
    [
        (({"seed": 1}, {"seed": 2}), ["seed 1", "seed 2"]),
        (({"data": ("/x/a.csv", "b")}, {"n": 5}), ["data a.csv + b, n 3", "data natural, n 5"]),
        (({"settings": {"rule": "center"}}, {}), ["rule center", "rule touch"]),
        (({"options": {"device": "cpu", "dtype": "float16"}}, {}), ["dtype float16", "dtype by default"]),
        (({"options": {"device": "cuda"}}, {}), ["device cuda", "device cpu"]),
        (({}, {}), ["run-0", "run-1"]),
        (({"seed": 1}, {"seed": 1}, {}), ["run-0", "run-1", "run-2"]),  # names would not tell all apart
    ],
)
def test_runs_are_named_by_what_differs(tmp_path: Path, changes: Any, names: list[str]) -> None:
    folders = []
    for place, one in enumerate(changes):
        folders.append(tmp_path / f"run-{place}")
        folders[-1].mkdir()
        (folders[-1] / COMMAND).write_text(dataclasses.replace(ASKED, **one).to_json())
    assert _run_names(folders) == names
    (folders[0] / COMMAND).unlink()
    assert _run_names(folders) == [folder.name for folder in folders]


def test_values_are_told_by_their_names() -> None:
    values = ["a/b.csv", ["a", 1], None, 0.5, ("x",), Attention()]
    assert [_said(one) for one in values] == ["b.csv", "a + 1", "null", "0.5", "x", "attention"]


def test_a_listed_run_has_a_cell_for_each_column() -> None:
    row = {
        "study": "s",
        "model": "m",
        "data": "d",
        "n": None,
        "state": "begun",
        "started": None,
        "folder": "f",
    }
    assert [str(one) for one in _cells(row, True)] == ["s", "m", "d", "", "begun", "", "f"]
    begun = datetime.datetime(2031, 2, 3, 4, 5).astimezone()
    assert [str(one) for one in _cells({**row, "n": 0, "started": begun}, False)] == [
        "m", "d", "0", "begun", "02-03 04:05", "f"
    ]  # fmt: skip


def test_every_worker_option_has_its_place() -> None:
    assert _workers() == Workers()
    assert _workers(3, "auto", 0.5) == Workers(n=3, address="auto", gpus=0.5)
    assert _workers(devices=("cpu", "cpu")) == Workers(n=2, devices=("cpu", "cpu"))


def test_a_study_is_made_of_what_was_asked(tmp_path: Path) -> None:
    one = dataclasses.replace(ASKED, seed=4, settings={"rule": "center"}, options={"dtype": "bfloat16"}).made(
        tmp_path
    )
    assert isinstance(one, study.LayerSweep)
    assert (len(one.data), one.seed, one.rule, one.model.id, one.model.dtype) == (
        3, 4, "center", "organism", "bfloat16"
    )  # fmt: skip
    assert dataclasses.replace(ASKED, settings={"seed": 9}).made(tmp_path).seed == 9
    grid = dataclasses.replace(ASKED, model=("organism", "organism-1")).made(tmp_path)
    assert [cell.model.id for _, cell in grid.studies] == ["organism", "organism-1"]
    both = dataclasses.replace(ASKED, data=("natural", "medical")).made(tmp_path)
    assert [cell.data.name.partition(" ")[0] for _, cell in both.studies] == ["natural", "medical"]


@pytest.mark.parametrize(
    ("changes", "split", "n"),
    [
        ({}, "test", 3),
        ({"split": "all", "n": 0}, "all", None),
        ({"study": "head-ranking"}, "validation", 3),
        ({"study": "head-ranking", "settings": {"split": "train"}}, "train", 3),
    ],
)
def test_samples_are_of_the_split_and_number_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, changes: Any, split: str, n: int | None
) -> None:
    def sets(data: Any, **options: Any) -> Any:
        assert (data, options) == (("natural",), {"split": split, "needed": True, "n": n, "seed": 0})
        raise KeyError("seen")

    monkeypatch.setattr("interp.data.open.sets", sets)
    with pytest.raises(KeyError, match="seen"):
        dataclasses.replace(ASKED, **changes).made(tmp_path)


def test_pages_compare_one_study(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: Any) -> None:
    class Sweep(SimpleNamespace):
        pass

    class Other(SimpleNamespace):
        pass

    found = {"a": Sweep(study=SimpleNamespace(title="Z")), "b": Other(study=SimpleNamespace(title="A"))}
    monkeypatch.setattr("interp.study_commands._stored", lambda folder: found[folder.name])
    assert main(["report", str(tmp_path / "a"), str(tmp_path / "b")]) == 2
    assert "a page compares runs of one study; got A, Z." in capsys.readouterr().err


@pytest.mark.parametrize("failures", [0, 2])
def test_a_run_says_where_it_is_and_what_failed(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: Any, failures: int
) -> None:
    asked: list[Any] = []
    result = SimpleNamespace(
        folder=tmp_path, failures=[None] * failures, table=lambda: "the table", failure_counts=lambda: "the reasons",
        report=lambda: tmp_path / "report.html",
    )  # fmt: skip

    def run(out: Path, workers: Any) -> Any:
        asked.append((out, workers))
        return result

    made = SimpleNamespace(data=Samples([], "rows"), run=run)
    monkeypatch.setattr(Asked, "made", lambda self, out: asked.append((self, out)) or made)
    words = (
        "run benchmark --data x y --model m k --out there --n 0 --split all --seed 7 --set scorer=strict n=[1] "
        "--workers 2 --device meta --dtype bfloat16 --revision r --processor p --adapter z"
    )
    assert main(words.split()) == 0
    options = {"device": "meta", "dtype": "bfloat16", "revision": "r", "processor": "p", "adapter": "z"}
    wanted = Asked("benchmark", ("x", "y"), ("m", "k"), 0, "all", 7, options, {"scorer": "strict", "n": [1]})
    assert asked == [(wanted, Path("there")), (Path("there"), Workers(2))]
    assert Asked.read(tmp_path) == wanted
    assert capsys.readouterr().out.splitlines() == [
        "the table", *(["the reasons"] if failures else []), f"page: {tmp_path / 'report.html'}",
        f"again, without computing: interp report {tmp_path}",
    ]  # fmt: skip


def test_rows_of_other_splits_are_told_for_each_data_set(capsys: Any) -> None:
    def rows(name: str, n: int, **skipped: int) -> Samples:
        sample = Sample("a.png", "?")
        return Samples([sample] * n, name, {why.replace("_", " "): count for why, count in skipped.items()})

    first = rows("one", 3, rows_of_the_split_train=2, rows_of_the_split_validation=5, crowd_regions=9)
    cells = [SimpleNamespace(data=one) for one in (first, first, rows("two", 1, crowd_regions=1))]
    _say_left_out(SimpleNamespace(studies=[(None, cell) for cell in cells]))
    assert capsys.readouterr().out == (
        "one: 2 of 10 rows are of the split train, 5 of 10 rows are of the split validation and not used; "
        "--split train takes those, --split all every row.\n"
    )
    _say_left_out(cells[2])
    assert capsys.readouterr().out == ""


def test_heads_are_chosen_for_one_model_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    asked: list[Any] = []

    def grounding(model: Any, samples: Any, **options: Any) -> Any:
        asked.append((model.id, samples, options))
        return SimpleNamespace(heads=((1, 2),), layer=4, said="chosen")

    def choice(data: Any, **options: Any) -> Any:
        return (data, options)

    monkeypatch.setattr("interp.study.refinement.method_choice.grounding", grounding)
    monkeypatch.setattr("interp.study.conventions.choice_samples", choice)
    methods = {"method": ["plain", "VGRefine"]}
    refined = dataclasses.replace(ASKED, study="refinement", n=0, seed=5, settings=methods)
    models = [study.ModelSpec("organism")]
    plain, refine = refined._methods(models, tmp_path)
    assert (refine.heads, refine.layers, plain.name) == (((1, 2),), (4,), "Plain")
    assert asked == [("organism", (("natural",), {"n": None, "seed": 5}), {"out": tmp_path, "seed": 5})]
    assert capsys.readouterr().out == "chosen\n"
    with pytest.raises(StudyError, match="VGRefine's heads belong to one model"):
        refined._methods(models * 2, tmp_path)
    assert len(dataclasses.replace(refined, settings={"method": "PAI"})._methods(models * 2, tmp_path)) == 1
    assert len(asked) == 1
