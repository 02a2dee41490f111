"""What a benchmark's page says in words, and which of its parts are there, on results written by hand."""

from __future__ import annotations

import html
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pandas as pd
import pytest

from interp.data import Samples
from interp.inputs.prompt import PAPER_PROMPT, Prompt
from interp.methods import Plain
from interp.metrics.scorers import OpenRecall, Strict
from interp.study import BenchmarkResult, Grid
from interp.study.benchmark.page import figures, methods_text, percent_range
from interp.study.benchmark.task import about, gives_marks, label
from interp.tracing import Decoding
from tests.golden.parsed import Page
from tests.study.benchmark.planted_benchmark import benchmark, divided
from tests.study.planted import sample
from tests.study.planted_methods import Answering, Swap, named

pytestmark = pytest.mark.usefixtures("unchecked")


def cell(data: str = "rad", method: str = "PAI", **study: Any) -> Any:
    fields = {
        "prompt": PAPER_PROMPT, "decoding": Decoding(), "max_new_tokens": 4, "scorer": (Strict(),), "changes": True,
    }  # fmt: skip
    return SimpleNamespace(
        labels={"model": "M", "data": data, "method": method}, study=SimpleNamespace(**fields | study)
    )


def told(*cells: Any, failures: int = 0, rows: list[tuple[str, int]] | None = None) -> str:
    samples = pd.DataFrame(rows or [("rad", 0), ("rad", 1)], columns=["data", "index"])
    lost = pd.DataFrame({"data": ["rad"] * failures, "sample": [f"s{i}" for i in range(failures)]})
    found: Any = SimpleNamespace(cells=cells, samples=samples, failures=lost, seed=7)
    return methods_text(found)


def test_the_methods_paragraph_says_how_answers_were_made() -> None:
    said = told(cell(), cell(method="Plain", changes=False))
    assert said.startswith(
        "M answered 2 questions of rad, greedily, with at most 4 new tokens, under the prompt “"
    )
    assert f"“{PAPER_PROMPT.template}”, options lettered. Answers were scored by accuracy." in said
    assert "The same questions were answered under PAI. Differences are paired" in said
    assert said.endswith("No question was left out.")
    plain = told(cell(method="Plain", changes=False, scorer=(Strict(), OpenRecall())), failures=1)
    assert "The same questions" not in plain
    assert "scored by accuracy, recall." in plain
    assert plain.endswith("1 question could not be answered and is left out.")


def test_the_methods_paragraph_tells_drawn_tokens_and_letters() -> None:
    drawn = told(
        cell(decoding=Decoding(temperature=0.5), max_new_tokens=8),
        cell("slake", prompt=Prompt(options="none")),
        rows=[("rad", 0), ("slake", 0), ("rad", 0)],  # a question of two methods counts once
    )
    assert "answered 2 questions of rad, slake, at temperature " in drawn
    assert "0.5" in drawn
    assert "with seed 7, with at most 8, 4 new tokens" in drawn
    assert ", options lettered." in drawn
    assert "lettered" not in told(cell(prompt=Prompt(options="none")))


def test_a_share_has_its_interval_where_groups_are_enough() -> None:
    row = {"value": 0.612, "low": 0.55, "high": 0.671, "note": ""}
    assert percent_range(row) == "61.2 [55.0, 67.1]"
    assert percent_range({**row, "note": "Only 3 groups"}) == "61.2"
    assert percent_range({**row, "low": float("nan")}) == "61.2"


def test_scorers_are_named_by_what_their_mean_is() -> None:
    other = Strict()
    object.__setattr__(other, "name", "letters")
    assert [label(one) for one in (Strict(), other, OpenRecall())] == [
        "accuracy",
        "accuracy by letters",
        "recall",
    ]
    assert [gives_marks(one) for one in (Strict(), OpenRecall())] == [True, False]
    assert "`" not in about(Strict())
    assert "  " not in about(Strict())


def run(tmp_path: Path, methods: dict[str, Any], *data: Samples, **changes: Any) -> BenchmarkResult:
    axes: Any = {"method": methods, "data": {one.name: one for one in data}}
    return Grid(benchmark(**changes), **axes).run(tmp_path / "runs", progress=False)


def test_averages_are_shown_where_several_sets_change(tmp_path: Path) -> None:
    one, two, swap = divided(4, "one"), divided(4, "two", start=8), {"Swap": Swap(changes=named(1, 9))}
    for methods, data, there in (
        (swap, (one, two), True), ({"Plain": Plain()}, (one, two), False)
    ):  # fmt: skip
        found = run(tmp_path, methods, *data)
        text = html.unescape(found.report(tmp_path / "page.html").read_text())
        assert ("Averages over the data sets, with intervals" in text) == there
        assert ("Beside the plain model" in text) == ("Swap" in methods)
        assert ("difference" in figures(found)) == ("Swap" in methods)
        question = f"on these questions{', and does it change with Swap?' if methods is swap else '?'}"
        assert f"What is the accuracy {question}" in text


def test_a_flipped_sample_shows_its_options_and_both_texts(tmp_path: Path) -> None:
    rows = [sample(0, options=["left", "right"], group="g0"), sample(1, group="g1"), sample(2, group="g2")]
    study = benchmark(
        data=Samples(rows, "three"), model=Answering(wrong=named(0)), method=Swap(changes=named(0, 1))
    )
    result = study.run(tmp_path, progress=False)
    page = Page(result.report(tmp_path / "page.html"))
    gained, lost = page.cards("s0")[0], page.cards("s1")[0]
    assert "answer left · B → A" in gained.text
    assert "options: left, right" in gained.text
    assert "answer right · right → left" in lost.text
    assert "options:" not in lost.text
    verdicts = [[node.attributes.get("class") for node in one.all("b")][-2:] for one in (gained, lost)]
    assert verdicts == [["wrong", "right"], ["right", "wrong"]]


def test_with_many_runs_flips_are_counted_and_not_drawn(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    methods = {"a": Swap(changes=named(0)), "b": Swap(changes=named(1))}
    result = run(tmp_path, methods, divided(2, "two"))
    drawn = [Page(result.report(tmp_path / "all.html"))]
    monkeypatch.setattr("interp.study.benchmark.page.MANY_CELLS", 1)
    drawn.append(Page(result.report(tmp_path / "few.html")))
    assert [len(page.body.all("img")) for page in drawn] == [2, 0]


def test_a_panel_shows_one_method_and_a_point_per_set(tmp_path: Path) -> None:
    """Of four questions one method turns the first wrong in both sets, the other two in the second set alone."""
    methods = {"Plain": Plain(), "a": Swap(changes=named(0, 8)), "b": Swap(changes=named(8, 9))}
    figure = run(tmp_path, methods, divided(4, "one"), divided(4, "two", start=8)).figures()["difference"]
    assert [note.text for note in figure.layout.annotations] == ["a", "b"]
    points = [dict(zip(trace.y, trace.x, strict=True)) for trace in figure.data]
    assert points == [{"one": -25, "two": -25}, {"one": 0, "two": -50}]
    assert [trace.xaxis for trace in figure.data] == ["x", "x2"]


def test_a_field_has_its_own_figure_and_lines(tmp_path: Path) -> None:
    """Samples 0, 1, 3, 4 are CT, 2 and 5 MR: one of four and one of two become wrong."""
    result = run(tmp_path, {"Swap": Swap(changes=named(1, 5))}, divided(6, "six"))
    (trace,) = result.figures()["by-modality"].data
    assert dict(zip(trace.y, trace.x, strict=True)) == {"CT": -25, "MR": -50}
    table = Page(result.report(tmp_path / "page.html")).table("modality", "groups")
    assert [row.cells[table.place("modality")] for row in table.rows] == ["CT", "MR"]
    assert [row.cells[table.place("^ *N$")] for row in table.rows] == ["4", "2"]
