"""Grids over studies of every kind."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from interp.data import Samples
from interp.errors import StudyError
from interp.indicators import Attention, CentrePrior
from interp.inputs.prompt import PAPER_PROMPT
from interp.study import Grid, GridResult, HeadGrid, ModelSpec, Study
from interp.study.runs import run_cells
from interp.study.study import (
    Checked,
    as_indicator,
    as_samples,
    field,
    is_indicator,
    is_per_layer,
    is_prompt,
    not_empty,
    one_of,
    some_of,
    true_or_false,
    whole_number,
    words,
)
from tests.study.fake_study import Lengths, Times
from tests.study.planted import Model, sample, samples, sweep
from tests.study.planted_heads import PlantedHeads, ranking


def data(n: int = 6) -> dict[str, Any]:
    return {"natural": samples(n), "medical": samples(n, start=20)}


@pytest.mark.usefixtures("unchecked")
def test_the_kinds_of_studies_there_are_meet_the_protocol() -> None:
    assert all(isinstance(study, Study) for study in (sweep(), ranking(), Lengths()))
    assert not isinstance(Model(), Study)
    with pytest.raises(StudyError, match=r"a Grid varies a study, such as LayerSweep.*got Times"):
        Grid(Times(2), method=[1])  # pyright: ignore[reportArgumentType]


def test_a_grid_over_a_head_ranking_is_one_frame_and_one_page(tmp_path: Path) -> None:
    grid = Grid(ranking(), data=data(), metric=["ar", "kl"])
    result = grid.run(tmp_path, progress=False)
    assert isinstance(result, HeadGrid)
    assert result.axes == ("model", "data", "metric")
    assert list(result.scores.columns) == [
        *("model", "data", "metric", "sample", "group", "layer", "head", "value")
    ]
    assert len(result.scores) == 4 * 6 * 6
    for (labels, study), own in zip(grid.studies, result.results, strict=True):
        alone = study.run(tmp_path / "alone", progress=False)
        here = result.scores[(result.scores.data == labels["data"]) & (result.scores.metric == study.metric)]
        assert here.value.tolist() == alone.scores.value.tolist()
        assert own.top(3) == alone.top(3)
        assert own.folder.name == alone.folder.name
    summary = result.summary()
    assert summary.groupby(["data", "metric"]).size().tolist() == [6] * 4
    assert {"gain", "mean", "low", "high"} <= set(summary.columns)


def test_the_head_page_compares_each_cell_with_the_first(tmp_path: Path) -> None:
    result = Grid(ranking(), data=data()).run(tmp_path, progress=False)
    page = result.report(k=2)
    assert page == result.folder / "report.html"
    assert "Are they the same on natural and on medical?" in page.read_text()
    assert result.report(tmp_path / "there.html", k=2).exists()


def test_head_rankings_that_differ_after_the_pass_share_it(tmp_path: Path) -> None:
    indicator = PlantedHeads()
    Grid(ranking(indicator=indicator), metric=["ar", "kl"], rule=["touch", "center"]).run(
        tmp_path, progress=False
    )
    assert len(indicator.calls) == 6  # 12 samples in micro-batches of 2, once for four cells


def test_a_head_ranking_cell_that_fails_whole_is_a_failure(tmp_path: Path) -> None:
    empty = Samples([sample(number, boxes=[]) for number in range(3)], "empty")
    result = Grid(ranking(), data={"good": samples(4), "bad": empty}).run(tmp_path, progress=False)
    assert result.failures.groupby("data").size().to_dict() == {"bad": 3}
    assert set(result.scores.data) == {"good"}
    assert len(result.results) == 1


def test_a_study_of_a_third_kind_is_varied_by_any_of_its_fields(tmp_path: Path) -> None:
    silent = Samples([*samples(3), sample(5, question="", boxes=[])], "silent")
    methods = {"once": Times(1), "twice": Times(2)}
    grid = Grid(Lengths(), method=methods, data={"all": samples(4), "silent": silent}, unit=["words"])
    result = grid.run(tmp_path, progress=False)
    assert result.axes == ("model", "data", "method", "unit")
    means = result.summary().set_index(["data", "method", "what"])["mean"]
    assert means["all", "once", "length"] == 6.0  # "Which side is thing 0 on?"
    assert means["all", "twice", "length"] == 12.0
    failures = result.failures
    assert failures[["data", "method", "reason"]].to_numpy().tolist() == [
        ["silent", "once", "there is no question."],
        ["silent", "twice", "there is no question."],
    ]
    assert result.cost.forwards.tolist() == [2.0, 2.0, 2.0, 2.0]
    with pytest.raises(
        StudyError, match=r"a page of its own, got 'Lengths of questions over method.*summary"
    ):
        result.report()
    alone = grid.studies[-1][1].run(tmp_path / "alone")
    assert alone.folder.name == result.cells[-1].folder.path.name
    with pytest.raises(StudyError, match=r"axis unit .* 'miles': unit is one of words, letters; got .miles"):
        Grid(Lengths(), unit=["miles"])


class Shown(Lengths):
    name = "shown-lengths"
    page = "tests.study.fake_page"


def test_the_page_is_that_of_the_module_the_study_names(tmp_path: Path) -> None:
    alone = Shown(data=samples(3)).run(tmp_path, progress=False)
    assert alone.report() == alone.folder / "report.html"
    assert alone.report(tmp_path / "deep" / "page.html").read_text() == "Lengths of questions: 3 samples"
    assert list(alone.figures()) == ["lengths"]
    grid = Grid(Shown(), data={"a": samples(2), "b": samples(3)}).run(tmp_path, progress=False)
    assert grid.report().read_text() == "Lengths of questions over data: 5 samples"
    assert list(grid.figures()) == ["lengths"]


def test_the_table_of_any_result_lists_its_summary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    grid = Grid(Lengths(), method={"once": Times(1), "twice": Times(2)}, data={"a": samples(2)})
    text = grid.run(tmp_path, progress=False).table()
    assert [line.split()[1] for line in text.splitlines() if " length " in line] == ["once", "twice"]
    assert "6.000" in text
    assert "12.000" in text
    monkeypatch.setattr("interp.study.result.N_ROWS", 1)
    assert grid.run(tmp_path, progress=False).table().endswith("1 more rows: read summary().")


def test_results_of_the_same_axes_are_joined(tmp_path: Path) -> None:
    one, two = (Lengths(data=samples(2, name)).run(tmp_path, progress=False) for name in ("one", "two"))
    assert GridResult.join([one, two]).samples.data.tolist() == ["one", "one", "two", "two"]
    assert GridResult.join([one, one], runs=["a", "b"]).samples.run.tolist() == ["a", "a", "b", "b"]
    with pytest.raises(StudyError, match="two cells of the same labels"):
        GridResult.join([one, one])
    with pytest.raises(StudyError, match="one name per result"):
        GridResult.join([one, two], runs=["a", "a"])
    with pytest.raises(StudyError, match="results of the same axes"):
        GridResult.join([])


def test_methods_are_labelled_by_their_names() -> None:
    grid = Grid(Lengths(), method=[Times(1), Times(2, "double")])
    assert list(grid.axes["method"]) == ["times", "double"]


def test_an_axis_cannot_have_the_name_of_a_column(tmp_path: Path) -> None:
    cells = ((Lengths().labels | {"what": "x"}, Lengths()),)
    with pytest.raises(StudyError, match=r"the table scores of lengths has a column what already"):
        list(run_cells(cells, tmp_path, workers=1, progress=False))
    assert list(tmp_path.iterdir()) == []


class Settings(Checked):
    names: tuple[str, ...] = field(default=("a",), converter=words, validator=some_of("abc"))
    size: int = field(default=1, validator=whole_number(1))
    least: int | None = field(default=None, validator=whole_number(0, or_none=True))
    note: str = field(default="", compare=False)

    def check(self) -> None:
        if self.size > 1 and len(self.names) > 1:
            raise StudyError("a size goes with one name.")


def test_values_are_converted_before_they_are_checked() -> None:
    assert Settings(names="b").names == ("b",)
    assert Settings(names=["a", "c"]).names == ("a", "c")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"names": "d"}, r"names takes at least one of a, b, c, each once; got \('d',\)"),
        ({"names": []}, r"names takes at least one of a, b, c, each once; got \(\)"),
        ({"names": ["a", "a"]}, r"each once; got \('a', 'a'\)"),
        ({"size": 0}, "size is a whole number ≥ 1; got 0"),
        ({"size": True}, "size is a whole number ≥ 1; got True"),
        ({"size": 1.0}, r"size is a whole number ≥ 1; got 1\.0"),
        ({"least": -1}, "least is a whole number ≥ 0, or None; got -1"),
        ({"size": 2, "names": ["a", "b"]}, "a size goes with one name"),
    ],
)
def test_a_value_that_makes_no_sense_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(StudyError, match=message):
        Settings(**changes)


def test_fields_are_frozen_and_keyword_only() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        Settings().size = 2  # pyright: ignore[reportAttributeAccessIssue]
    with pytest.raises(TypeError):
        Settings(("a",))  # pyright: ignore[reportCallIssue]


def test_equality_and_hash_leave_out_what_does_not_count() -> None:
    assert Settings(note="one") == Settings(note="another")
    assert hash(Settings(note="one")) == hash(Settings(note="another"))
    assert Settings(size=2) != Settings()


def test_a_word_that_is_no_text_is_refused() -> None:
    with pytest.raises(StudyError, match=r"rule is one of touch, center; got \['touch'\]"):
        one_of("touch", "center")("rule", ["touch"])


@pytest.mark.parametrize("data", ["medical", 3, [1, 2], None])
def test_what_are_no_samples_is_refused(data: Any) -> None:
    with pytest.raises(StudyError, match="data is Samples or a list of Sample"):
        as_samples(data)


def test_a_study_has_typed_fields_whatever_it_was_given() -> None:
    study = Lengths(data=[sample(0), sample(1)], model="organism")
    assert study.data == Samples([sample(0), sample(1)])
    assert study.model == ModelSpec("organism")
    assert (study.prompt, study.seed, study.batch) == (PAPER_PROMPT, 0, 2)


def test_a_changed_copy_is_checked_as_a_new_study_is() -> None:
    study = Lengths(method=Times(2))
    changed = study.replace(batch=4)
    assert (changed.batch, changed.method, changed.data) == (4, Times(2), study.data)
    assert study.batch == 2
    assert changed == Lengths(method=Times(2), batch=4, model=study.model)
    with pytest.raises(StudyError, match="batch is a whole number ≥ 1; got 0"):
        study.replace(batch=0)
    with pytest.raises(StudyError, match="hold no sample"):
        study.replace(data=Samples([], "none"))


def test_the_json_of_a_study_is_its_tasks() -> None:
    study = Lengths(method=Times(3))
    assert study.to_dict(Model()) == study.task(Model()).to_dict()
    assert study.to_json(Model()) == study.to_json()
    assert study.to_json() != study.replace(method=Times(4)).to_json()
    assert study.labels == {"model": "planted", "data": "planted"}
    assert Lengths(data=samples(2, "few")).label == "planted · few"


@pytest.mark.usefixtures("unchecked")
def test_every_option_of_a_run_reaches_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    given: dict[str, Any] = {}

    def run(cells: Any, out: Any, **options: Any) -> Any:
        given.update(options, cells=cells, out=out)
        raise StudyError("enough")

    monkeypatch.setattr("interp.study.study.run_cells", run)
    study, model = Lengths(data=samples(2)), Model()
    with pytest.raises(StudyError, match="enough"):
        study.run(tmp_path, workers=2, progress=False, part=(1, 3), loaders=5, mllm=model)
    assert given.pop("workers").n == 2
    assert given == {
        "cells": ((study.labels, study),), "out": tmp_path, "progress": False, "part": (1, 3), "loaders": 5,
        "mllm": model,
    }  # fmt: skip
    with pytest.raises(StudyError, match="enough"):
        study.run()
    assert (given["out"], given["progress"], given["part"], given["loaders"]) == ("runs", True, None, 0)


@pytest.mark.usefixtures("unchecked")
def test_fields_say_what_they_take() -> None:
    assert as_indicator("attention") == Attention()
    assert as_indicator(3) == 3  # its validator speaks
    with pytest.raises(StudyError, match=r"got 'atention'.*Or pass an indicator, such as Attention\(\)"):
        as_indicator("atention")
    is_indicator("indicator", Attention())
    with pytest.raises(
        StudyError, match=r"indicator is one of interp\.indicators, .* the name of one; got 3"
    ):
        is_indicator("indicator", 3)
    is_prompt("prompt", PAPER_PROMPT)
    with pytest.raises(StudyError, match=r"prompt is an interp\.Prompt; got 'x'"):
        is_prompt("prompt", "x")
    is_per_layer("a sweep", Attention())
    is_per_layer("a sweep", object())  # its maps are checked when they are made
    with pytest.raises(
        StudyError, match=r"a sweep needs maps per layer; CentrePrior gives one map \(token\)"
    ):
        is_per_layer("a sweep", CentrePrior())
    for value in (True, False):
        true_or_false("fast", value)
    with pytest.raises(StudyError, match="fast is True or False; got 1"):
        true_or_false("fast", 1)


def test_samples_may_come_as_a_list_and_say_their_name() -> None:
    data = samples(2, "two")
    assert as_samples(data) is data
    assert as_samples((sample(0),)) == Samples([sample(0)])
    assert len(as_samples([])) == 0
    with pytest.raises(StudyError, match=r"validation is Samples or a list of Sample, .*got int"):
        as_samples(3, "validation")
    with pytest.raises(StudyError, match=r"the data 'none' hold no sample\. Was a filter too strict"):
        not_empty("data", Samples([], "none"))


def test_words_stay_in_their_order() -> None:
    assert words("ar") == ("ar",)
    assert words(["kl", "ar"]) == words(np.array(["kl", "ar"])) == ("kl", "ar")
    assert words({"kl"}) == {"kl"}
    with pytest.raises(StudyError, match=r"got \('b', 'd'\)"):
        some_of("abc")("names", ("b", "d"))
    with pytest.raises(StudyError, match=r"rule is one of touch, center; got 'toch'\. Did you mean 'touch'"):
        one_of("touch", "center")("rule", "toch")


def test_a_study_that_needs_no_other_is_its_own_to_run() -> None:
    study = Lengths()
    assert not study.unresolved
    assert study.resolved() is study
