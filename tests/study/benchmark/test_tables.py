"""POPE's marks of a benchmark against scikit-learn, by kind of absent label, on answers that are known."""

from __future__ import annotations

import html
import re
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pandas as pd
import pytest
from sklearn.metrics import accuracy_score, f1_score, precision_score, recall_score

from interp.data import Samples
from interp.errors import StudyError
from interp.methods import Plain
from interp.study import BenchmarkResult, Grid
from interp.study.benchmark.tables import asks_yes_or_no, cell_text, left_out, rows_text, strata
from tests.study.benchmark.planted_benchmark import benchmark
from tests.study.planted import sample
from tests.study.planted_methods import Answering, Swap, named

N = 44
WRONG, CHANGES = (0, 1, 2, 5, 7, 11, 30, 31), (0, 2, 3, 8, 30)
KINDS = ("random", "adversarial")


def asked() -> Samples:
    made = [
        sample(
            i,
            answer="yes" if i % 2 else "no",
            options=None,
            group=f"picture-{i // 2}",
            meta={"negatives": KINDS[i // 2 % 2]},
        )
        for i in range(N)
    ]
    return Samples(made, "presence")


@pytest.fixture(scope="module")
def result(tmp_path_factory: pytest.TempPathFactory) -> BenchmarkResult:
    study = benchmark(data=asked(), model=Answering(wrong=named(*WRONG)))
    methods = {"Plain": Plain(), "Swap": Swap(changes=named(*CHANGES))}
    return Grid(study, method=methods).run(tmp_path_factory.mktemp("runs"), progress=False)


def said(changed: bool, kind: str) -> tuple[list[bool], list[bool]]:
    """The truth and what was said, of one kind or of all."""
    places = [i for i in range(N) if kind in ("all", KINDS[i // 2 % 2])]
    truth = [i % 2 == 1 for i in places]
    flipped = [(i in WRONG) != (changed and i in CHANGES) for i in places]
    return truth, [one != flip for one, flip in zip(truth, flipped, strict=True)]


@pytest.mark.parametrize("kind", ["all", *KINDS])
def test_marks_are_scikit_learns(result: BenchmarkResult, kind: str) -> None:
    found = result.yes_no("negatives")
    own = found[(found.method == "Swap") & (found.negatives == kind)].set_index("measure")
    (truth, before), (_, after) = said(False, kind), said(True, kind)
    marks = {
        "accuracy": accuracy_score, "precision": precision_score, "recall": recall_score, "f1": f1_score
    }  # fmt: skip
    for name, mark in marks.items():
        assert own.loc[name, "value"] == pytest.approx(mark(truth, after))
        assert own.loc[name, "before"] == pytest.approx(mark(truth, before))
        assert own.loc[name, "difference"] == pytest.approx(mark(truth, after) - mark(truth, before))
    assert own.loc["yes_ratio", "value"] == pytest.approx(sum(after) / len(after))
    assert own.loc["f1", "n"] == len(truth)
    assert own.loc["f1", "low"] < own.loc["f1", "value"] < own.loc["f1", "high"]
    assert own.loc["f1", "difference_low"] < own.loc["f1", "difference"] < own.loc["f1", "difference_high"]
    assert own.loc["f1", "n_groups"] == len(truth) // 2
    plain = found[(found.method == "Plain") & (found.negatives == kind)]
    assert (plain[["difference", "difference_low", "difference_high"]] == 0).all(axis=None)


def test_a_lower_level_gives_narrower_intervals_of_marks(result: BenchmarkResult) -> None:
    wide, half = result.yes_no("negatives"), result.yes_no("negatives", level=0.5)
    own = (wide.method == "Swap") & (wide.measure == "accuracy")
    assert own.sum() == 3
    for low, high in (("low", "high"), ("difference_low", "difference_high")):
        assert ((half[high] - half[low]) < (wide[high] - wide[low]))[own].all()


def test_the_studys_seed_decides_the_intervals_of_marks(result: BenchmarkResult) -> None:
    cells = tuple(replace(cell, study=cell.study.replace(seed=1)) for cell in result.cells)
    one, two = result.yes_no(), BenchmarkResult(result.study, cells, result.folder).yes_no()
    own = (one.method == "Swap") & (one.measure == "f1")
    for name in ("low", "difference_low"):
        assert (one[name] != two[name])[own].all()
    assert one.value.equals(two.value)


def test_the_page_and_the_export_show_them(result: BenchmarkResult, tmp_path: Path) -> None:
    page = html.unescape(result.report(tmp_path / "page.html").read_text("utf-8"))
    truth, after = said(True, "all")
    assert "Yes or no" in page
    assert f"{100 * f1_score(truth, after):.1f} [" in page
    assert re.search(r"<td[^>]*>adversarial</td>", page)
    assert set(result.tables()["yes-no"].negatives) == {"all", *KINDS}


def test_a_value_that_is_called_all_has_its_own_rows(tmp_path: Path) -> None:
    kinds = ("all", "random")
    data = Samples(
        [one.replace(meta={"kind": kinds[i // 2 % 2]}) for i, one in enumerate(asked())], "presence"
    )
    found = benchmark(data=data).run(tmp_path, progress=False).yes_no("kind")
    counts = found[found.measure == "f1"].set_index("kind").n.to_dict()
    assert counts == {"all questions": N, "all": N // 2, "random": N // 2}


@pytest.mark.usefixtures("unchecked")
def test_questions_of_other_answers_have_no_such_marks(tmp_path: Path) -> None:
    found = benchmark().run(tmp_path, progress=False)
    assert "yes-no" not in found.tables()
    assert "Yes or no" not in found.report(tmp_path / "page.html").read_text("utf-8")
    with pytest.raises(StudyError, match=r"need questions with the answer yes or no.*presence_questions"):
        found.yes_no()
    wrong: Any = 3
    with pytest.raises(StudyError, match=r"by is a field of meta, such as \"negatives\"; got 3"):
        found.yes_no(wrong)


def test_questions_that_could_not_be_answered_count_once() -> None:
    def said(*rows: tuple[str, str]) -> str:
        return left_out(pd.DataFrame(rows, columns=["data", "sample"]))

    assert said() == ""
    assert said(("a", "s0")) == "1 question could not be answered and is left out."
    assert said(("a", "s0"), ("b", "s0")) == "2 questions could not be answered and are left out."
    assert said(("a", "s0"), ("a", "s0"), ("a", "s1")) == (
        "2 questions could not be answered in 3 runs and are left out."
    )


def test_a_cell_is_a_text_a_number_or_a_dash() -> None:
    assert [cell_text(one) for one in ("x", 12.34, float("nan"))] == ["x", "12.3", "–"]
    assert cell_text(1234.0, whole=True) == "1,234"


def _cell(**columns: list[Any]) -> Any:
    n = max(map(len, columns.values()))
    metas = [{name: values[i] for name, values in columns.items() if i < len(values)} for i in range(n)]
    return SimpleNamespace(study=SimpleNamespace(data=[SimpleNamespace(meta=one) for one in metas]))


@pytest.mark.usefixtures("unchecked")
def test_a_field_divides_where_it_has_two_to_forty_values() -> None:
    def divide(*cells: Any) -> tuple[str, ...]:
        result: Any = SimpleNamespace(cells=cells)
        return strata(result)

    many = [f"m{i}" for i in range(41)]
    assert divide(_cell(modality=many[:40], subject=many, kind=["one", None, "one"])) == ("modality",)
    assert divide(_cell(modality=["CT"]), _cell(modality=["CT", "MR"])) == (
        "modality",
    )  # in one cell is enough
    assert divide(_cell(modality=["CT"]), _cell(modality=["MR"])) == ()


@pytest.mark.usefixtures("unchecked")
def test_every_cell_has_both_answers_or_it_is_no_yes_or_no() -> None:
    def asks(*answers: list[str | None]) -> bool:
        cells = [
            SimpleNamespace(measured=True, frame=lambda _, own=own: pd.DataFrame({"answer": own}))
            for own in answers
        ]
        result: Any = SimpleNamespace(cells=cells)
        return asks_yes_or_no(result)

    assert asks(["Yes.", "no", None], ["no", "yes"])
    assert not asks(["yes", "no"], ["yes", "yes"])
    assert not asks(["yes", "no", "left"])
    assert not asks()


def test_names_stand_on_the_left_and_numbers_on_the_right() -> None:
    text = rows_text(pd.DataFrame({"model": ["N", "longer"], "x": [1234.0, 5.0]}), "A title")
    assert text.startswith("A title ")
    assert "│ N      │ 1,234 │" in text
    assert "│ longer │   5.0 │" in text
