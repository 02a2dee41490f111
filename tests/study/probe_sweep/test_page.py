"""What the page of a probe sweep says of classes that no probe has seen, and how its figure is laid out."""

from __future__ import annotations

import html
import re
from types import SimpleNamespace
from typing import Any

import pandas as pd
import pytest

from interp.study.probe_sweep.page import _limits, _origin, _tables, figures

pytestmark = pytest.mark.usefixtures("unchecked")


def text(markup: object) -> str:
    return " ".join(html.unescape(re.sub(r"<[^>]+>", " ", str(markup))).split())


def cell(model: str, measured: bool = True) -> Any:
    labels = {"model": model, "data": "d"}
    return SimpleNamespace(labels=labels, key=tuple(labels.values()), measured=measured)


def unseen(**counts: dict[str, int]) -> pd.DataFrame:
    """Of 20 samples in each run, how many of each class lie in one fold alone."""
    rows = [
        {"model": model, "data": "d", "target": target, "n": n, "share": n / 20}
        for model, own in counts.items()
        for target, n in own.items()
    ]
    return pd.DataFrame(rows, columns=["model", "data", "target", "n", "share"])


def limits(*cells: Any, found: pd.DataFrame) -> list[str]:
    result: Any = SimpleNamespace(cells=cells, unseen=found)
    return [text(part) for part in _limits(result)]


def test_what_limits_accuracy_is_told_by_run() -> None:
    found = unseen(b={"mauve": 1, "puce": 3})
    assert limits(cell("a"), found=found) == []
    (alone,) = limits(cell("b"), found=found)
    assert alone == (
        "There are classes that lie in one fold alone: puce ×3, mauve ×1. The probe that scores their 4 samples "
        "has not seen the class, so each counts as wrong at every layer: accuracy is at most 0.80."
    )
    (among,) = limits(cell("a"), cell("b"), cell("c", measured=False), found=found)
    assert among.startswith("b · d: classes that lie in one fold alone")


def test_five_classes_are_named_and_more_are_hinted_at() -> None:
    for n, more in ((5, ""), (6, ", …")):
        (said,) = limits(cell("a"), found=unseen(a={f"c{i}": 1 for i in range(n)}))
        assert f"c3 ×1, c4 ×1{more}. The probe" in said
        assert f"their {n} samples" in said


MEASURES = {"accuracy": 0.75, "control": 0.5, "selectivity": 0.25, "majority": 0.125}


def result(*models: str) -> Any:
    """Each model's means rise by 0.01 with the layer; the question's are 0.1 lower."""
    rows = [
        {
            "model": model, "data": "d", "position": position, "layer": layer, "measure": measure,
            "mean": mean + layer / 100 - (position == "question") / 10, "low": 0.0, "high": 1.0, "n": 40,
            "n_groups": 30, "n_undefined": 0, "note": "",
        }
        for model in models for position in ("last", "question") for layer in (0, 1)
        for measure, mean in MEASURES.items()
    ]  # fmt: skip
    summary = pd.DataFrame(rows)
    scores = summary.assign(value=summary["mean"], group="g", sample="s")
    cells = [*map(cell, models), cell("nothing", measured=False)]
    return SimpleNamespace(cells=cells, summary=lambda: summary, scores=scores)


def test_each_line_of_the_table_is_of_one_position_and_layer() -> None:
    head, one, *_ = map(text, _tables(result("a", "b")))
    assert head == "a · d"
    assert (
        "last token 1 0.76 [0.00, 1.00] 0.51 [0.00, 1.00] 0.26 [0.00, 1.00] 0.14 [0.00, 1.00] 40 in 30 groups"
        in one
    )
    assert "question 0 0.65 [0.00, 1.00] 0.40 [0.00, 1.00] 0.15 [0.00, 1.00]" in one
    assert len(re.findall("40 in 30 groups", one)) == 4


def test_a_row_of_panels_is_a_run_and_a_column_a_position() -> None:
    figure = figures(result("a", "b"))["accuracy"]
    assert [note.text for note in figure.layout.annotations][:4] == ["d: last token", "d: question"] * 2
    lines = [one for one in figure.data if one.name == "probe" and len(one.x) == 2]
    assert [round(float(one.y[1]), 2) for one in lines] == [0.76, 0.66] * 2
    assert [one.showlegend for one in figure.data if one.showlegend].count(True) == 3
    assert list(figure.layout.yaxis.range) == [0, 1.05]
    assert [getattr(figure.layout, f"xaxis{i}").title.text for i in (2, 3, 4)] == [None, "layer", "layer"]
    assert {shape.y0 for shape in figure.layout.shapes} == {1}
    names = {"probe": "solid", "control task": "dash", "most frequent class": "dot"}
    assert {one.name: one.line.dash for one in figure.data if one.showlegend} == names


def test_the_origin_lists_the_settings_in_their_order(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("interp.study.probe_sweep.page.origin", lambda _, lines: dict(lines))
    monkeypatch.setattr("interp.study.probe_sweep.page.as_json", str)
    study = SimpleNamespace(prompt="p", folds=4, penalty=0.5, seed=7, batch=9)
    own: Any = SimpleNamespace(study=study, folder=None)
    assert _origin(own) == {"prompt": "p", "folds, penalty, seed, batch": "4, 0.5, 7, 9"}
