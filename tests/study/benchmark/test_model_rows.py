"""Rows of a paper's table: baselines, models that only answer, and one model under VGRefine."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest

from interp.conformance.tiny import tiny
from interp.data import bundled
from interp.errors import StudyError
from interp.methods import Plain, VGRefine
from interp.study import ModelSpec
from interp.study.benchmark.model_rows import ModelRow, baselines, question_sets, refined_row, run_rows, show


def test_a_model_that_only_answers_is_a_row(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for part in tiny("llava"):
        part.save_pretrained(tmp_path / "other")
    data = bundled("medical", n=2)
    own = ModelRow(ModelSpec("organism"), {"Plain": Plain()})
    rows = [*baselines([], [str(tmp_path / "other")]), own]
    result = run_rows(rows, {"medical": data}, out=tmp_path / "runs", max_new_tokens=1, batch=2)
    lines = result.rows()["model"].tolist()
    assert lines == ["N", f"{tmp_path / 'other'}, adapter answers_only, as it is", "organism, as it is"]
    show(result, tmp_path / "page.html", note="A note.")
    said = capsys.readouterr().out
    assert "they say nothing about the paper's models" in said
    assert "A note." in said
    with pytest.raises(StudyError, match="at least one row"):
        run_rows([], {"medical": data})


def test_baselines_answer_as_they_are_with_their_fields() -> None:
    one, other = baselines(["a"], ["b"], dtype="bfloat16")
    assert [row.model for row in (one, other)] == [
        ModelSpec("a", dtype="bfloat16"), ModelSpec("b", dtype="bfloat16", adapter="answers_only")
    ]  # fmt: skip
    assert [row.methods for row in (one, other)] == [{"Plain": Plain()}] * 2


@pytest.mark.usefixtures("unchecked")
def test_each_name_has_its_split_or_all_have_one(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[object, ...]] = []

    def read(names: list[str], *, split: str, n: int | None, seed: int, needed: bool) -> dict[str, str]:
        asked.append((*names, split, n, seed, needed))
        return {names[0].rpartition("/")[2]: split}

    monkeypatch.setattr("interp.study.benchmark.model_rows.sets", read)
    assert question_sets(["a", "b"], ["test"], n=5, seed=3) == {"a": "test", "b": "test"}
    assert question_sets(["a", "b"], ["test", "train"]) == {"a": "test", "b": "train"}
    assert asked == [("a", "test", 5, 3, True), ("b", "test", 5, 3, True), ("a", "test", None, 0, True),
                     ("b", "train", None, 0, True)]  # fmt: skip
    with pytest.raises(StudyError, match="got 2 splits for 3 names"):
        question_sets(["a", "b", "c"], ["test", "train"])
    with pytest.raises(StudyError, match="two data sets are called a; rename a file"):
        question_sets(["x/a", "y/a"], ["test"])


@pytest.mark.usefixtures("unchecked")
def test_a_refined_model_has_both_variants_at_the_chosen_layer(monkeypatch: pytest.MonkeyPatch) -> None:
    chosen = SimpleNamespace(heads=((0, 1), (2, 3)), layer=4)
    asked: dict[str, object] = {}
    monkeypatch.setattr(
        "interp.study.benchmark.model_rows.choice_samples", lambda names, n, seed: (names, n, seed)
    )
    monkeypatch.setattr(
        "interp.study.benchmark.model_rows.grounding",
        lambda model, data, **options: asked.update(options, data=data, model=model) or chosen,
    )
    spec = ModelSpec("organism")
    row, found = refined_row(spec, "natural", out="runs", n=7, k=3, seed=2, batch=5, rank="kl")
    assert found is chosen
    assert asked == {
        "model": spec, "data": (("natural",), 7, 2), "out": "runs", "k": 3, "seed": 2, "workers": 1, "batch": 5,
        "rank": "kl",
    }  # fmt: skip
    assert row.model == spec
    assert list(row.methods) == ["Plain", "VGRefine, code", "VGRefine, paper"]
    assert row.methods["VGRefine, paper"] == VGRefine(chosen.heads, (4,), variant="paper")
    assert row.methods["VGRefine, code"] == VGRefine(chosen.heads, (4,), variant="code")
    named, _ = refined_row(spec, ["a", "b"], out="runs", layers=[1, 2])
    assert named.methods["VGRefine, code"] == VGRefine(chosen.heads, (1, 2), variant="code")
    assert asked["data"] == (("a", "b"), 80, 0)


def test_rows_without_data_are_refused() -> None:
    with pytest.raises(StudyError, match=r"at least one data set; got none\. Give data=\{label: samples\}"):
        run_rows(baselines(["organism"]), {})
