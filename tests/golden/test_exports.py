"""Every study's figures and tables for a paper: the numbers of its summary, and the figures of its page."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from interp.report import export
from interp.report.export import printable
from interp.report.tables import read_csv
from tests.browser import CHROMIUM
from tests.golden.parsed import Page

STUDIES = ("sweep", "rankings", "attribution", "lens", "knockout", "knockout_heads", "methods", "comparison")
TABLES = {
    "rankings": {"heads"},
    "knockout": {"summary", "tests"},
    "comparison": {"summary", "found", "faithfulness", "costs"},
    "methods": {"summary", "groups"},
}


@pytest.fixture(params=STUDIES)
def result(request: pytest.FixtureRequest) -> Any:
    found = request.getfixturevalue(request.param)
    return found["natural"] if request.param == "rankings" else found


def test_tables_hold_what_the_result_says(
    result: Any, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    written = result.export(tmp_path, formats=())
    names = {path.stem for path in written}
    assert names == TABLES.get(request.node.callspec.params["result"], {"summary"})
    assert {path.suffix for path in written} == {".csv", ".tex"}
    for name, frame in result.tables().items():
        stored = read_csv(tmp_path / f"{name}.csv")
        assert len(stored) == len(frame)
        number = next(column for column in ("mean", "difference", "seconds") if column in frame)
        assert stored[number].to_list() == pytest.approx(frame[number].to_list(), nan_ok=True)
        text = (tmp_path / f"{name}.tex").read_text()
        assert text.count(r"\\") >= len(frame) + 1
        assert not [sign for sign in "−→×≥–" if sign in text]


@pytest.mark.by_default(result=["sweep", "attribution", "knockout", "methods"])
def test_the_page_draws_the_same_figures_and_a_paper_has_room(result: Any, tmp_path: Path) -> None:
    page, figures = Page(result.report(tmp_path / "page.html")), result.figures()
    assert {f"figure-{name}" for name in figures} == set(page.figures)
    for figure in figures.values():
        for columns, inches in ((1, 3.25), (2, 6.75)):
            assert printable(figure, columns).layout.width == inches * 96
        bare = [
            axis
            for axis in [*figure.select_xaxes(), *figure.select_yaxes()]
            if axis.title.text and not axis.title.text.strip()
        ]
        assert bare == []


def test_a_result_shows_itself_in_a_few_lines(result: Any) -> None:
    lines = repr(result).splitlines()
    assert lines[0].startswith(f"{result.study.title}: result of {len(result.cells)} run")
    assert len(repr(result)) < 800
    assert [line.split()[0] for line in lines[1:]] == [*result.axes, "measured", "folder", "read"]
    assert f"{result.n_samples} samples in {len(result.groups)} groups" in repr(result)
    shown = result._repr_html_()
    assert shown.count("<tr") < 30
    assert result.study.title in shown


@pytest.mark.slow
@pytest.mark.skipif(not CHROMIUM or find_spec("kaleido") is None, reason="kaleido or a browser is missing")
def test_every_figure_is_drawn_for_a_paper(result: Any, tmp_path: Path) -> None:
    written = export.export_figures(result.figures(), tmp_path)
    assert len(written) == 4 * len(result.figures())
    assert all(path.stat().st_size > 1000 for path in written)
