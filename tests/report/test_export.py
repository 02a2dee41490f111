"""Tables that LaTeX reads, figures of a paper's width with type that can be read."""

from __future__ import annotations

import re
import shutil
import xml.etree.ElementTree as ElementTree
from importlib.util import find_spec
from io import BytesIO
from pathlib import Path

import numpy as np
import pandas as pd
import plotly.graph_objects as go
import pytest
from PIL import Image

from interp.errors import StudyError
from interp.report import export
from interp.report.export import export_figures, export_tables, latex, printable
from interp.report.figures import colour_bar, laid_out, panels
from interp.report.tables import read_csv
from tests.browser import CHROMIUM

needs_kaleido = pytest.mark.skipif(
    not CHROMIUM or find_spec("kaleido") is None, reason="kaleido or a browser is not installed"
)
FRAME = pd.DataFrame(
    {"model & data": ["a_b", "50 % − x"], "layer": [3, 4], "mean": [0.25, np.nan], "own": [True, False]}
)


def test_a_latex_table_escapes_text_and_marks_what_is_undefined() -> None:
    lines = latex(FRAME).splitlines()
    assert lines[0] == r"\begin{tabular}{lrrl}"
    assert lines[2] == r"model \& data & layer & mean & own \\"
    assert lines[4] == r"a\_b & 3 & 0.250 & True \\"
    assert lines[5] == r"50 \% $-$ x & 4 & -- & False \\"


@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="pdflatex is not installed")
def test_pdflatex_reads_the_table(tmp_path: Path) -> None:
    import subprocess

    long = pd.concat([FRAME] * 30, ignore_index=True)
    body = latex(FRAME) + "\n" + latex(long, caption="a_long & table")
    page = (
        "\\documentclass{article}\\usepackage{booktabs,longtable}\\begin{document}" + body + "\\end{document}"
    )
    (tmp_path / "t.tex").write_text(page)
    done = subprocess.run(
        ["pdflatex", "-halt-on-error", "t.tex"], cwd=tmp_path, capture_output=True, check=False
    )
    assert done.returncode == 0, done.stdout[-2000:]


def test_a_long_table_may_break_over_pages() -> None:
    long = pd.concat([FRAME] * 30, ignore_index=True)
    text = latex(long, caption=r"heads_all\x^2~1")
    assert text.startswith(r"\begin{longtable}")
    assert r"\caption{heads\_all\textbackslash{}x\textasciicircum{}2\textasciitilde{}1}" in text


def test_tables_are_written_as_csv_and_latex(tmp_path: Path) -> None:
    written = export_tables({"by layer/all": FRAME}, tmp_path / "new")
    assert [path.name for path in written] == ["by-layer-all.csv", "by-layer-all.tex"]
    pd.testing.assert_frame_equal(read_csv(written[0]), FRAME)
    assert written[1].read_text().strip() == latex(FRAME)


def many_panels() -> go.Figure:
    figure = panels(["one", "two", "three"], shared_yaxes=True)
    for column in (1, 2, 3):
        marker = {"color": [0, 1], "coloraxis": "coloraxis"}
        trace = go.Scatter(x=[0, 1], y=[1, 2], marker=marker, mode="markers+text", text=["p", "q"])
        figure.add_trace(trace.update(textfont_size=3), row=1, col=column)
    figure.update_xaxes(title={"text": "layer", "font": {"size": 5}})
    return laid_out(figure, 400, columns=3, coloraxis={"colorbar": colour_bar("share")}, title="small")


def sizes(value: object) -> list[float]:
    """Every font size in a figure's JSON."""
    if isinstance(value, dict):
        own = [value["size"]] if "size" in value and ("family" in value or len(value) <= 2) else []
        named = [found for name, one in value.items() if "font" in name for found in sizes(one)]
        return own + named + [f for name, one in value.items() if "font" not in name for f in sizes(one)]
    return [found for one in value for found in sizes(one)] if isinstance(value, list) else []


@pytest.mark.parametrize(("columns", "inches"), [(1, 3.25), (2, 6.75)])
def test_a_printed_figure_has_the_width_and_type_of_a_paper(columns: int, inches: float) -> None:
    original = many_panels()
    before = original.to_dict()
    found = printable(original, columns)
    assert original.to_dict() == before
    assert found.layout.title.pad.l == 8
    assert found.layout.width == inches * 96
    assert found.layout.paper_bgcolor == "white"
    fonts = [font for font in sizes(found.to_plotly_json()["layout"]) if font < 30]
    assert min(fonts) >= 7 * 96 / 72
    lefts = {found.layout[name].domain[0] for name in ("xaxis", "xaxis2", "xaxis3")}
    assert len(lefts) == (1 if columns == 1 else 3)  # panels beside one another do not fit into one column


def test_a_long_legend_does_not_take_the_room_of_the_curves() -> None:
    def drawn(n: int) -> tuple[float, float]:
        """Pixels of the curves and of what lies below them."""
        lines = [go.Scatter(x=[0, 1], y=[1, 2], name=f"a rather long name {i}") for i in range(n)]
        found = printable(laid_out(go.Figure(lines), 400, margin={"t": 62, "b": 110}), 1)
        return found.layout.height - found.layout.margin.t - found.layout.margin.b, found.layout.margin.b

    (few, below_few), (many, below_many) = drawn(2), drawn(9)
    assert few == pytest.approx(many, abs=1)
    assert many > 120
    assert below_many - below_few == 7 * 20


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"formats": ["pdf"]}, r"formats is a list of 'svg', 'png'; got \['pdf'\]"),
        ({"formats": "svg"}, "formats is a list of 'svg', 'png'; got 'svg'"),
        ({"columns": [3]}, r"columns is a list of 1, 2; got \[3\]"),
        ({"columns": [True]}, r"columns is a list of 1, 2; got \[True\]"),
    ],
)
def test_wrong_formats_and_widths_teach(tmp_path: Path, changes: dict[str, object], words: str) -> None:
    with pytest.raises(StudyError, match=words):
        export_figures({"one": go.Figure()}, tmp_path, **changes)  # pyright: ignore
    assert list(tmp_path.iterdir()) == []


def test_without_kaleido_the_error_names_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(export, "find_spec", lambda name: None)
    with pytest.raises(
        StudyError, match=r"Install interp\[images\], or write tables alone: export\(folder, formats"
    ):
        export_figures({"one": go.Figure()}, tmp_path)
    assert export_figures({"one": go.Figure()}, tmp_path, formats=()) == []


@needs_kaleido
def test_figures_are_drawn_at_their_width_without_the_network(tmp_path: Path) -> None:
    written = export_figures({"a figure": many_panels()}, tmp_path, columns=[1])
    assert [path.name for path in written] == ["a-figure-1col.svg", "a-figure-1col.png"]
    svg = ElementTree.fromstring(written[0].read_bytes())
    assert float(svg.attrib["width"]) == 312
    drawn = [float(size) for size in re.findall(r"font-size: ([\d.]+)px", written[0].read_text())]
    assert min(drawn) >= 7 * 96 / 72
    assert Image.open(BytesIO(written[1].read_bytes())).width == round(3.25 * 300)
