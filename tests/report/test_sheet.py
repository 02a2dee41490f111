from __future__ import annotations

import json
import re
from pathlib import Path

import plotly.graph_objects as go

from interp.report.html import figure_card, stacked, table, write_sheet


def test_a_sheet_is_whole_and_its_text_cannot_become_markup(tmp_path: Path) -> None:
    figure = go.Figure(go.Scatter(x=[1], y=[2], name="</script><b>"))
    path = write_sheet(
        tmp_path / "new" / "page.html",
        title="A <b>title</b>",
        question="Does <i>it</i> hold?",
        lead="<p>lead</p>",
        body=[stacked([figure_card("one")]), table(["a", "b"], [["<u>", "2"]])],
        figures={"one": figure},
    )
    page = path.read_text()
    own = page[page.index("<main>") :]  # after Plotly itself
    assert "$" not in re.sub(r"<script.*?</script>", "", own, flags=re.S)
    assert "<i>it" not in own
    assert "&lt;i&gt;it" in own
    assert "<td>&lt;u&gt;</td>" in own
    assert 'id="figure-one"' in own
    assert not re.search(r"(src|href)=.?https?:", own)
    found = re.search(r'id="figures">(.*?)</script>', own, flags=re.S)
    assert found is not None
    assert json.loads(found.group(1))["figure-one"]["data"][0]["name"] == "</script><b>"


def test_a_sheet_without_figures_still_has_what_its_script_reads(tmp_path: Path) -> None:
    page = write_sheet(tmp_path / "page.html", title="t", question="q", lead="", body=[]).read_text()
    assert '<script type="application/json" id="figures">{}</script>' in page
