"""What several studies' pages share, on results whose rows are written by hand."""

from __future__ import annotations

import html
from types import SimpleNamespace
from typing import Any

import pandas as pd
import pytest
from markupsafe import Markup

from interp.report.provenance import ORGANISM
from interp.study import ModelSpec
from interp.study.page_parts import failure_line, failures_by_sample, lead, origins

REAL, TINY = ModelSpec("org/real"), ModelSpec("organism")


def result(*models: ModelSpec) -> Any:
    cells = [
        SimpleNamespace(labels={"model": model.id, "data": "four"}, study=SimpleNamespace(model=model))
        for model in models
    ]
    return SimpleNamespace(cells=cells, n_samples=4)


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(
    ("models", "warned"), [((REAL,), False), ((REAL, TINY), True), ((TINY, REAL), True), ((TINY,), True)]
)
def test_one_organism_among_the_models_warns(models: tuple[ModelSpec, ...], warned: bool) -> None:
    said = lead(
        result(*models), Markup("{models} on {data}, {samples}, {more}."), note="A note.", more="more"
    )
    assert "on four, 4 samples, more.</p>" in said
    assert all(model.id in said for model in models)
    assert (f"{ORGANISM} A note." in html.unescape(said)) == warned


@pytest.mark.usefixtures("unchecked")
def test_the_five_most_frequent_reasons_are_named() -> None:
    reasons = [f"reason {i}" for i in range(1, 7) for _ in range(i)]
    found: Any = SimpleNamespace(failures=pd.DataFrame({"reason": reasons}))
    said = failure_line(found)
    assert said.startswith("21 left out: reason 6 ×6, ")
    assert "reason 2 ×2" in said
    assert "reason 1" not in said


@pytest.mark.usefixtures("unchecked")
def test_samples_that_are_left_out_have_their_reason() -> None:
    rows = [("m", "four", "s1", "MapError", "too dark."), ("n", "five", "s2", "ImageError", "no file.")]
    frame = pd.DataFrame(rows, columns=["model", "data", "sample", "error", "reason"])
    found: Any = SimpleNamespace(failures=frame)
    said = html.unescape(str(failures_by_sample(found)))
    assert [name in said for name in ("m", "four", "s1", "too dark.", "n", "five", "s2", "no file.")] == [
        True
    ] * 8
    none: Any = SimpleNamespace(failures=frame[:0])
    assert "None: every sample was measured." in failures_by_sample(none)
    assert failure_line(none) == "None: every sample was measured."
    assert failure_line(found) == "2 left out: too dark. ×1, no file. ×1"


@pytest.mark.usefixtures("unchecked")
def test_every_run_says_where_it_comes_from() -> None:
    cells = [SimpleNamespace(key=("m", name)) for name in ("one", "two")]
    found: Any = SimpleNamespace(cells=cells)
    said = str(origins(found, lambda cell: Markup("from {}").format(cell.key[1])))
    assert said.index("m · one") < said.index("from one") < said.index("m · two") < said.index("from two")
