"""Tables that LaTeX reads, figures of a paper's width with type that can be read."""

from __future__ import annotations

import re
import shutil
import xml.etree.ElementTree as ElementTree
from importlib.util import find_spec
from io import BytesIO
from pathlib import Path
from typing import Any

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


def test_every_sign_and_every_command_of_latex_is_printed() -> None:
    cells = ["−→←↑↓", "×≥≤·ρ", "–…“x”", "&%$#_{}", "\\^~"]
    lines = latex(pd.DataFrame({"↑ is better": cells})).splitlines()
    assert lines[2] == r"$\uparrow$ is better \\"
    assert lines[4] == r"$-$$\rightarrow$$\leftarrow$$\uparrow$$\downarrow$ \\"
    assert lines[5] == r"$\times$$\geq$$\leq$$\cdot$$\rho$ \\"
    assert lines[6] == r"--\ldots{}``x'' \\"
    assert lines[7] == r"\&\%\$\#\_\{\} \\"
    long = latex(pd.DataFrame({"a": range(41)}), caption=r"&%$#_{} − x")
    assert r"\caption{\&\%\$\#\_\{\} $-$ x}" in long
    assert "caption" not in latex(pd.DataFrame({"a": range(41)}))


def test_numbers_of_a_latex_table_have_the_digits_asked_for() -> None:
    assert latex(pd.DataFrame({"a": [0.12345], "n": [7]}), digits=1).splitlines()[4] == r"0.1 & 7 \\"


def test_a_file_for_each_figure_width_and_format(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(export, "find_spec", lambda name: True)
    monkeypatch.setattr(
        export, "_rendered", lambda jobs: [f"{figure.layout.width} {kind}".encode() for figure, kind in jobs]
    )
    figures = {"by layer/all": go.Figure(), "//": go.Figure()}
    written = export_figures(figures, tmp_path / "new", columns=[2, 1, 2], formats=["png", "png", "svg"])
    names = [f"{name}-{width}col.{kind}" for name in ("by-layer-all", "figure") for width in (2, 1)
             for kind in ("png", "svg")]  # fmt: skip
    assert [path.name for path in written] == names
    held = [path.read_text() for path in written]
    assert held == ["648 png", "648 svg", "312 png", "312 svg"] * 2  # 6.75 and 3.25 inches of 96 pixels


@pytest.mark.parametrize(
    ("traces", "layout", "rows"),
    [
        ([{"name": "x" * 10}] * 2, {}, 1),  # 48 + 5.5 · 10 pixels each, of 242
        ([{"name": "x" * 10}] * 3, {}, 2),
        ([{"name": "x" * 10}] * 3, {"showlegend": False}, 0),
        ([{"name": "x" * 10, "showlegend": False}, {"name": "x" * 10}, {}], {}, 1),
        ([{"name": "x" * 90}, {"name": "y"}], {}, 2),  # one that is too long has a line of its own
        ([{}], {}, 0),
        ([{"name": "x" * 13}, {"name": "y" * 13}], {}, 1),  # 2 · 119.5 pixels
        ([{"name": "x" * 13}, {"name": "y" * 14}], {}, 2),  # 119.5 + 125
    ],
)
def test_a_legend_takes_the_lines_that_its_names_need(traces: list[Any], layout: Any, rows: int) -> None:
    figure = go.Figure([go.Scatter(x=[0], y=[0], **one) for one in traces]).update_layout(**layout)
    assert export._legend_rows(figure, 1) == rows


@pytest.mark.parametrize(
    ("columns", "names", "height", "bottom"),
    [
        (1, [None], 0.7 * 400, None),
        (2, [None], 0.85 * 400, None),
        (2, ["a", "b"], 0.85 * 400, None),
        (
            1,
            ["a", "b"],
            0.7 * 400 + 82 - 0.7 * 62,
            82,
        ),  # below the curves: 62 for the ticks, 20 for the legend
    ],
)
def test_a_printed_figure_is_lower(columns: int, names: list[Any], height: float, bottom: Any) -> None:
    found = printable(go.Figure([go.Scatter(x=[0], y=[0], name=name) for name in names]), columns)
    assert (found.layout.height, found.layout.margin.b) == (round(height), bottom)


def test_panels_of_a_printed_figure_lie_below_one_another() -> None:
    figure = panels(["one", "two", "three"])
    for column in (1, 2, 3):
        figure.add_trace(go.Scatter(x=[0], y=[0], name=f"{column}", showlegend=column < 3), row=1, col=column)
    found = printable(
        laid_out(figure, 400, columns=3), 1
    )  # 3 panels, 2 gaps, the top, ticks and the legend's line
    assert found.layout.height == 3 * 150 + 2 * 64 + 30 + 56 + 20
    assert (found.layout.margin.t, found.layout.margin.b) == (30, 76)
    beside = printable(laid_out(figure, 400, columns=3), 2)
    assert beside.layout.height == 0.85 * 400


def test_bars_and_words_in_a_figure_have_its_type() -> None:
    marker = {"color": [1], "colorbar": {"title": {"text": "own"}}}
    figure = go.Figure([go.Scatter(x=[0], y=[0], marker=marker, textfont={"size": 30}),
                        go.Heatmap(z=[[1]], colorbar={"title": {"text": "z"}})])  # fmt: skip
    figure.update_layout(coloraxis2={"colorbar": {"title": {"text": "shared"}}})
    found = printable(figure, 2)
    bars = [found.data[0].marker.colorbar, found.data[1].colorbar, found.layout.coloraxis2.colorbar]
    for bar in bars:
        assert (bar.thickness, bar.title.font.size, bar.tickfont.size) == (
            9,
            10,
            10,
        )  # 7.5 points of 4/3 pixels
    assert found.data[0].textfont.size == 10
    assert found.layout.xaxis.tickfont.size == found.layout.yaxis.title.font.size == 10
    assert found.layout.title.font.size == 11


def test_a_long_table_may_break_over_pages() -> None:
    long = pd.concat([FRAME] * 30, ignore_index=True)
    text = latex(long, caption=r"heads_all\x^2~1")
    assert text.startswith(r"\begin{longtable}")
    assert r"\caption{heads\_all\textbackslash{}x\textasciicircum{}2\textasciitilde{}1}" in text
    assert latex(long[:40]).startswith(r"\begin{tabular}")
    assert latex(long[:41]).startswith(r"\begin{longtable}")


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
        ({"formats": ["svg", "pdf"]}, r"formats is a list of 'svg', 'png'; got \['svg', 'pdf'\]"),
        ({"columns": 1}, r"columns is a list of 1, 2; got 1"),
        ({"columns": [True]}, r"columns is a list of 1, 2; got \[True\]"),
    ],
)
def test_wrong_formats_and_widths_teach(
    tmp_path: Path, unchecked: None, changes: dict[str, object], words: str
) -> None:
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
