"""The page of several circuits shows each run's own edges and shares."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pandas as pd
import pytest

from interp.study.circuit.page import _table, figures
from tests.golden.parsed import Page

pytestmark = pytest.mark.usefixtures("unchecked")


@pytest.fixture
def result() -> Any:
    """Two runs that were measured, on data “a” and “b”, and one between them that was not."""
    cells = [SimpleNamespace(labels={"data": n}, key=(n,), measured=n != "none") for n in ("a", "none", "b")]
    edges = [("a", "image", "L00H01", 2.0), ("a", "L00H01", "answer", -1.0), ("b", "image", "answer", 0.5)]
    frame = pd.DataFrame(edges, columns=["data", "source", "receiver", "effect"])
    frame = frame.assign(exact=[0.25, float("nan"), 0.75], n_exact=[1, 0, 2], n=4, positive=[0.75, 0.25, 1.0])
    shares = [
        ("a", 40, "share", 0.75),
        ("a", 5, "share", 0.25),
        ("b", 5, "share", 1.5),
        ("b", 5, "value", 9.0),
    ]
    summary = pd.DataFrame(shares, columns=["data", "n_edges", "measure", "mean"])
    summary = summary.assign(low=0.0, high=2.0, n=24, n_groups=24, note="")
    return SimpleNamespace(cells=cells, edges=frame, summary=lambda: summary)


def test_each_measured_run_has_its_own_graph(result: Any) -> None:
    shown = figures(result)
    assert list(shown) == ["graph", "graph-2", "faithfulness"]
    said = [
        {trace.text[0] for trace in shown[name].data if trace.mode == "lines" and trace.text is not None}
        for name in ("graph", "graph-2")
    ]
    assert said == [
        {"image → L00H01: +2.000 nats", "L00H01 → answer: -1.000 nats"},
        {"image → answer: +0.500 nats"},
    ]
    assert "text" not in {
        name for trace in shown["graph"].data if trace.mode == "markers+text" for name in trace.text
    }


def test_shares_run_from_few_edges_to_many_in_their_panel(result: Any) -> None:
    figure = figures(result)["faithfulness"]
    first, second = (trace for trace in figure.data if trace.mode == "lines+markers")
    assert (list(first.x), list(first.y)) == ([5, 40], [0.25, 0.75])
    assert (list(second.x), list(second.y)) == ([5], [1.5])
    assert list(first.text) == ["24 samples in 24 groups"] * 2
    assert [note.text for note in figure.layout.annotations][:2] == ["a", "b"]


def test_nothing_measured_by_share_has_no_figure_of_it(result: Any) -> None:
    summary = result.summary()
    result.summary = lambda: summary[summary.measure == "value"]
    assert list(figures(result)) == ["graph", "graph-2"]


def test_a_table_of_edges_is_of_its_run(result: Any, tmp_path: Path) -> None:
    path = tmp_path / "page.html"
    path.write_text(f"<main>{_table(result, result.cells[0])}</main>")
    rows = Page(path).table("effect").rows
    assert [row.cells for row in rows] == [
        ["image", "L00H01", "2.000", "75 %", "0.250", "1 of 4"],
        ["L00H01", "answer", "−1.000", "25 %", "–", "0 of 4"],
    ]
