"""A study is read back from its run's folder, and the page of a finished run needs neither the script nor a model."""

from __future__ import annotations

import dataclasses
import json
import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

import interp
from interp import study as studies
from interp.errors import RunError, StudyError
from interp.indicators import ValueWeightedAttention
from interp.inputs.sample import Sample
from interp.methods import PAI, VGRefine
from interp.metrics.scorers import OpenRecall
from interp.study import HeadRanking, LayerSweep, runs
from interp.study.runs import FILE, read_study, store_study
from interp.study.stored_result import stored_result
from tests.study.fake_study import Lengths

NATURAL = interp.data.bundled("natural", n=2)
MEDICAL = interp.data.bundled("medical", split="validation", n=2)
STUDIES = {
    "benchmark": interp.Benchmark(data=MEDICAL, scorer=["strict", OpenRecall(clean=True)], method="PAI"),
    "circuit": studies.Circuit(data=NATURAL),
    "layer-sweep": LayerSweep(
        data=NATURAL, edits=[interp.Knockout(interp.Site(layers=[1], queries=interp.word("circle")))]
    ),
    "head-ranking": HeadRanking(data=MEDICAL, indicator="attention"),
    "head-attribution": studies.HeadAttribution(data=NATURAL),
    "head-roles": studies.HeadRoles(data=NATURAL),
    "indicator-comparison": interp.IndicatorComparison(data=NATURAL, validation=MEDICAL, target=interp.Target("yes")),
    "knockout-sweep": interp.KnockoutSweep(data=NATURAL, flows=["image→last"]),
    "lens-sweep": studies.LensSweep(data=NATURAL),
    "probe-sweep": interp.ProbeSweep(data=NATURAL),
    "reasoning-sweep": interp.ReasoningSweep(data=NATURAL),
    "refinement": interp.Refinement(data=NATURAL, method=VGRefine(heads=HeadRanking(data=MEDICAL).top(3))),
    "grid": interp.Grid(LayerSweep(data=NATURAL), data={"a": NATURAL, "b": MEDICAL}, metrics=[("ar",), ("js",)]),
    "methods": interp.Grid(interp.Refinement(data=NATURAL), method={"x, y": PAI(alpha=0.3)}),
}  # fmt: skip


@pytest.mark.parametrize("name", STUDIES)
def test_every_study_is_read_back(name: str, tmp_path: Path) -> None:
    store_study(STUDIES[name], tmp_path)
    assert "missing" not in json.loads((tmp_path / FILE).read_text())
    found = read_study(tmp_path)
    assert found == STUDIES[name]
    assert type(found) is type(STUDIES[name])
    own = found.base if name in ("grid", "methods") else found
    assert {one.name for one in dataclasses.fields(own) if getattr(own, one.name) is None} == {
        one.name
        for one in dataclasses.fields(own)
        if getattr(getattr(STUDIES[name], "base", STUDIES[name]), one.name) is None
    }


def test_samples_keep_what_pages_show(tmp_path: Path) -> None:
    given = interp.data.Samples(
        [NATURAL[0].replace(meta={"lesion": 3}), MEDICAL[1], Sample.unusable("no image", id="x", group="g")],
        "mixed",
        {"no box": 2},
    )
    store_study(LayerSweep(data=given), tmp_path)
    found = read_study(tmp_path).data
    assert (found.name, dict(found.skipped)) == ("mixed", {"no box": 2})
    assert found.sample_ids == given.sample_ids
    assert found.groups == given.groups
    assert found[0].meta["lesion"] == 3
    assert np.array_equal(np.asarray(found[0].load()), np.asarray(given[0].load()))
    assert found[1].boxes == given[1].boxes
    assert not found[2].is_usable


def test_the_page_of_a_script_s_run_is_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mllm = interp.load("organism")
    grid = interp.Grid(LayerSweep(data=NATURAL, model="organism"), rule=["touch", "center"])
    alone = LayerSweep(data=NATURAL, model=mllm, metrics="ar")
    results = [one.run(tmp_path / "runs", progress=False) for one in (grid, alone)]
    pages = [one.report().read_bytes() for one in results]
    monkeypatch.setattr(interp.ModelSpec, "load", None)  # no model is opened
    again = [stored_result(one.folder).report(tmp_path / "again.html").read_bytes() for one in results]
    assert again == pages


def test_what_is_missing_is_said(tmp_path: Path) -> None:
    picture = np.zeros((20, 20, 3), np.uint8)
    data = [Sample(picture, "where?", boxes=[(1, 1, 9, 9)])]
    store_study(LayerSweep(data=data), tmp_path)
    with pytest.raises(RunError, match=r"is in memory .* Save it to a file"):
        read_study(tmp_path)
    store_study(Lengths(data=NATURAL), tmp_path)  # a study of another package
    with pytest.raises(RunError, match=r"Lengths, which is no dataclass of interp"):
        read_study(tmp_path)
    with pytest.raises(RunError, match=r"expected the folder of a run.*got .*nowhere"):
        stored_result(tmp_path / "nowhere")


def test_as_many_samples_as_fit_are_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    study = LayerSweep(data=NATURAL)
    monkeypatch.setattr(runs, "MOST", 2)
    store_study(study, tmp_path)
    assert read_study(tmp_path) == study
    monkeypatch.setattr(runs, "MOST", 1)
    store_study(study, tmp_path)
    with pytest.raises(RunError, match="the 2 samples of 'natural'; at most 1 are written"):
        read_study(tmp_path)


def test_a_folder_without_its_study_is_named(tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"holds no declared\.json, .* or the run was not finished"):
        read_study(tmp_path)


def test_a_run_that_is_not_finished_says_how_to_go_on(tmp_path: Path) -> None:
    result = LayerSweep(data=NATURAL, metrics="ar").run(tmp_path, progress=False)
    (result.folder / "tables" / "scores.parquet").unlink()
    with pytest.raises(RunError, match=r"not finished: not joined\. Run .* again"):
        stored_result(result.folder)


def test_changed_data_are_refused(tmp_path: Path) -> None:
    file = tmp_path / "scan.png"
    NATURAL[0].load().save(file)
    data = [Sample(str(file), "What color is the circle?", boxes=[(1, 1, 90, 90)], id="one")]
    result = LayerSweep(data=data, metrics="ar").run(tmp_path / "runs", progress=False)
    assert stored_result(result.folder).samples["sample"].tolist() == ["one"]
    NATURAL[1].load().save(file)
    with pytest.raises(RunError, match="fingerprint differ, so that images or questions were changed"):
        stored_result(result.folder)


def test_a_file_whose_name_is_no_utf8_is_kept(tmp_path: Path) -> None:
    file = os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9.png")
    with open(file, "wb") as handle:
        NATURAL[0].load().save(handle, "png")
    study = LayerSweep(data=[Sample(file, "What color is the circle?", boxes=[(1, 1, 90, 90)], id="one")])
    store_study(study, tmp_path)
    (found,) = read_study(tmp_path).data
    assert found.load().size == NATURAL[0].sizes[0]


def test_a_study_is_read_after_its_classes_have_moved(tmp_path: Path) -> None:
    """Runs of before the move name the module of then; runs of today name the package that offers the class."""
    study = LayerSweep(data=NATURAL, indicator=ValueWeightedAttention())
    store_study(study, tmp_path)
    written = (tmp_path / FILE).read_text()
    assert '"interp.indicators:ValueWeightedAttention"' in written
    moved = written.replace("interp.indicators:Value", "interp.indicators.value_weighted_attention:Value")
    (tmp_path / FILE).write_text(moved)
    assert read_study(tmp_path).to_dict() == study.to_dict()


@pytest.mark.parametrize(
    "name", ["os:system", "interp.errors:InterpError", "interp.inputs.files:write_atomically"]
)
def test_a_folder_from_elsewhere_runs_no_code(name: str, tmp_path: Path) -> None:
    written: dict[str, Any] = {"study": {"class": name, "fields": {}}}
    (tmp_path / FILE).write_text(json.dumps(written))
    with pytest.raises(RunError, match=r"cannot be read .TypeError: .* is no class of interp"):
        read_study(tmp_path)


def test_paths_of_a_sample_do_not_depend_on_where_it_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    given = {
        "images": ["a.png"],
        "video": "v.mp4",
        "masks": [{"path": "m.png", "label": 1}],
        "answer": "a.png",
    }
    assert runs._absolute(given) == {
        "images": [str(tmp_path / "a.png")],
        "video": str(tmp_path / "v.mp4"),
        "masks": [{"path": str(tmp_path / "m.png"), "label": 1}],
        "answer": "a.png",
    }
    frames = {"video": ["0.png", "/1.png"], "masks": [{"inside": 3}]}
    assert runs._absolute(frames) == {"video": [str(tmp_path / "0.png"), "/1.png"], "masks": [{"inside": 3}]}


def test_a_module_from_elsewhere_is_not_even_imported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "elsewhere_module.py").write_text("raise SystemExit('imported')")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(TypeError, match="'elsewhere_module:Thing' is no class of interp"):
        runs._class_named("elsewhere_module:Thing")


@pytest.mark.parametrize("mllm", ["organism", object(), 3])
def test_a_model_that_is_not_open_runs_nothing(mllm: Any, tmp_path: Path) -> None:
    with pytest.raises(StudyError, match="mllm is the study's model, opened by"):
        runs.run_cells((), tmp_path, workers=1, progress=False, mllm=mllm)


@pytest.mark.usefixtures("unchecked")
def test_studies_that_others_need_run_with_the_same_options(tmp_path: Path) -> None:
    given: list[Any] = []

    def resolved(out: Any, **options: Any) -> str:
        given.append((out, options))
        return f"ready {len(given)}"

    model = SimpleNamespace(encode=None)
    cells: Any = tuple(
        ({"n": str(n)}, SimpleNamespace(unresolved=True, model=model, resolved=resolved)) for n in "ab"
    )
    workers: Any = "workers"
    ready, opened = runs._ready(cells, None, tmp_path, workers=workers, progress=False)
    assert ready == (({"n": "a"}, "ready 1"), ({"n": "b"}, "ready 2"))
    assert opened is model
    assert given == [(tmp_path, {"workers": "workers", "progress": False, "mllm": model})] * 2
    settled: Any = (({}, SimpleNamespace(unresolved=False)),)
    assert runs._ready(settled, model, tmp_path, workers=workers, progress=True) == (settled, model)


@pytest.mark.parametrize(
    "value", [[("a", 1)], {"k": [(1.5, None)]}, ([True], {"a": ({"b": []},)}), [{1: "one"}], NATURAL]
)
def test_what_is_written_is_read_with_its_types(value: Any, tmp_path: Path) -> None:
    files: dict[str, str] = {}
    written = json.loads(json.dumps(runs._written(value, files)))
    for name, text in files.items():
        (tmp_path / name).write_text(text, "utf-8")
    found = runs._read(written, tmp_path)
    assert found == value
    assert type(found) is type(value)
