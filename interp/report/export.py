"""Figures as SVG and PNG at a paper's column width, tables as CSV and LaTeX."""

from __future__ import annotations

import asyncio
import math
import os
import re
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pandas as pd
import plotly.graph_objects as go

from interp.errors import StudyError
from interp.inputs.files import as_path, write_atomically
from interp.report.reflow import Space, broken_titles, n_columns, reflowed
from interp.report.tables import write_csv

__all__ = ["FORMATS", "WIDTHS", "check_export", "export_figures", "export_tables", "latex", "printable"]

FORMATS = ("svg", "png")
WIDTHS = {1: 3.25, 2: 6.75}
"""Columns of the paper that a figure takes → inches."""
POINTS = 7.5
"""The smallest type of an exported figure, in points of 1/72 inch."""
PIXELS = 96
"""Of an inch, in SVG and CSS."""
DPI = 300
EDGE = 8
"""Pixels between a title and the left edge of the paper."""
SECONDS = 180
"""How long one figure may take, with the start of the browser."""
MOST = {1: 1, 2: 4}
"""Columns of the paper → panels beside one another."""
SHRUNK = {1: 0.7, 2: 0.85}
"""Columns of the paper → how much lower a figure is than on a page."""
LEGEND_ROW, MARK, LETTER, BESIDE_LEGEND = 20, 48, 5.5, 70
"""Pixels of a line of the legend, of an entry's mark, of a letter, and of what is left free beside it."""
TICKS, LETTERS = 62, 40
"""Pixels of the ticks and the title below a panel, and letters of a line of that title."""
LONG = 40
"""A table of more rows may break over pages."""
SIGNS = {"−": "$-$", "→": r"$\rightarrow$", "←": r"$\leftarrow$", "↑": r"$\uparrow$", "↓": r"$\downarrow$",
         "×": r"$\times$", "≥": r"$\geq$", "≤": r"$\leq$", "·": r"$\cdot$", "ρ": r"$\rho$", "–": "--", "…": r"\ldots{}",
         "“": "``", "”": "''"}  # fmt: skip
"""What LaTeX does not print as it stands."""
SPECIAL = {**{letter: rf"\{letter}" for letter in "&%$#_{}"}, "\\": r"\textbackslash{}", "^": r"\textasciicircum{}",
           "~": r"\textasciitilde{}"}  # fmt: skip
"""What LaTeX takes for commands → how it prints."""


def export_figures(
    figures: Mapping[str, go.Figure],
    folder: str | os.PathLike[str],
    *,
    formats: Sequence[str] = FORMATS,
    columns: Sequence[int] = (1, 2),
) -> list[Path]:
    """Writes each figure in each format and width, and returns the paths.

    Type has at least 7.5 points, whatever the width. A PNG has 300 dots per inch. Files are named
    "<figure>-<columns>col.<format>".

    Args:
        figures: Name → figure.
        folder: Where to write; it is made.
        formats: "svg", "png" or both.
        columns: 1 for 3.25 inches, 2 for 6.75.

    Raises:
        StudyError: An unknown format or width; kaleido or a browser is missing.
        RunError: A file cannot be written.
    """
    check_export(formats, columns)
    target = as_path("folder", folder)
    jobs = {
        target / f"{_file_name(name)}-{width}col.{kind}": (printable(figure, width), kind)
        for name, figure in figures.items()
        for width in dict.fromkeys(columns)
        for kind in dict.fromkeys(formats)
    }
    for path, drawn in zip(jobs, _rendered(list(jobs.values())), strict=True):
        write_atomically(path, drawn)
    return list(jobs)


def export_tables(tables: Mapping[str, pd.DataFrame], folder: str | os.PathLike[str]) -> list[Path]:
    """Writes each frame as CSV, whole, and as a LaTeX table, and returns the paths.

    Raises:
        RunError: A file cannot be written.
    """
    target, written = as_path("folder", folder), []
    for name, frame in tables.items():
        written.append(write_csv(frame, target / f"{_file_name(name)}.csv"))
        path = target / f"{_file_name(name)}.tex"
        write_atomically(path, latex(frame, caption=name).encode(errors="backslashreplace"))
        written.append(path)
    return written


def latex(frame: pd.DataFrame, *, caption: str = "", digits: int = 3) -> str:
    r"""A frame as a LaTeX table with booktabs' rules; every text is escaped.

    It needs `\usepackage{booktabs}`, and `\usepackage{longtable}` where it has more than 40 rows. A number has
    `digits` digits after the point; what is undefined is a dash.

    >>> print(latex(pd.DataFrame({"layer": [3], "mean_%": [0.25]})))
    \begin{tabular}{rr}
    \toprule
    layer & mean\_\% \\
    \midrule
    3 & 0.250 \\
    \bottomrule
    \end{tabular}
    """
    style = (
        frame.reset_index(drop=True)
        .style.hide(axis="index")
        .format(precision=digits, escape="latex", na_rep="–")
    )
    options: dict[str, Any] = {"hrules": True, "column_format": "".join(map(_side, frame.dtypes))}
    if len(frame) > LONG:
        options |= {"environment": "longtable", "caption": _escaped(caption) or None}
    styled: Any = style.format_index(escape="latex", axis=1)
    text = styled.to_latex(**options)
    return re.sub("|".join(SIGNS), lambda found: SIGNS[found[0]], text).rstrip()


def printable(figure: go.Figure, columns: int) -> go.Figure:
    """A copy of a figure for print: white paper, black type of at least 7.5 points, the width of so many columns.

    Args:
        figure: The figure; it stays as it is.
        columns: 1 or 2. Panels that do not fit beside one another go below one another.
    """
    size = POINTS * PIXELS / 72
    wide, rows = n_columns(figure) > MOST[columns], _legend_rows(figure, columns)
    room = Space(panel=150, gap=64, top=30, bottom=56 + LEGEND_ROW * rows)
    found = reflowed(figure, MOST[columns], room) if wide else go.Figure(figure)
    layout: Any = found.layout
    height = layout.height or 400
    if not wide:
        height *= SHRUNK[columns]
    if not wide and columns == 1 and rows:
        broken_titles(found, LETTERS)
        below = TICKS + LEGEND_ROW * rows
        height += below - SHRUNK[1] * (layout.margin.b or TICKS)
        found.update_layout(margin={"b": below})
    found.update_layout(
        width=round(WIDTHS[columns] * PIXELS),
        height=round(height),
        paper_bgcolor="white",
        plot_bgcolor="white",
        font={"size": size, "color": "black", "family": "Helvetica, Arial, sans-serif"},
        legend={"font": {"size": size}, "itemwidth": 30},
        title={"font": {"size": size + 1}, "pad": {"l": EDGE}},
    )
    _set_type(found, size)
    return found


def _set_type(found: go.Figure, size: float) -> None:
    """Sets the type of axes, annotations, colour bars and marked points to a size in pixels."""
    axes: dict[str, Any] = {"title_font_size": size, "tickfont_size": size}
    found.update_xaxes(**axes, linecolor="black", showline=True)
    found.update_yaxes(**axes, linecolor="black", showline=True)
    found.update_annotations(font_size=size)
    bars: dict[str, Any] = {**axes, "thickness": 9}
    layout: Any = found.layout
    for axis in [name for name in layout if name.startswith("coloraxis")]:
        layout[axis].colorbar.update(**bars)
    traces: tuple[Any, ...] = found.data
    for trace in traces:
        if getattr(trace, "textfont", None) is not None:
            trace.update(textfont_size=size)
        parts: tuple[Any, ...] = (trace, getattr(trace, "marker", None))
        for part in parts:
            if getattr(part, "colorbar", None) is not None:
                part.colorbar.update(**bars)


def check_export(formats: Sequence[str], columns: Sequence[int]) -> None:
    """Raises an error for what `export_figures` cannot do, before anything is computed.

    Raises:
        StudyError: An unknown format or width; any format without kaleido installed.
    """
    for name, given, known in (("formats", formats, FORMATS), ("columns", columns, tuple(WIDTHS))):
        listed = isinstance(given, list | tuple)
        if not listed or any(isinstance(one, bool) or one not in known for one in given):
            raise StudyError(f"{name} is a list of {', '.join(map(repr, known))}; got {given!r:.200}.")
    if formats and find_spec("kaleido") is None:
        raise StudyError(
            "figures as SVG and PNG need kaleido, which is not installed. Install interp[images], or write tables "
            "alone: export(folder, formats=())."
        )


def _legend_rows(figure: go.Figure, columns: int) -> int:
    """About how many lines the legend takes."""
    layout: Any = figure.layout
    if layout.showlegend is False:
        return 0
    named = [trace for trace in figure.data if trace.name and trace.showlegend is not False]
    room, rows, used = WIDTHS[columns] * PIXELS - BESIDE_LEGEND, 0, math.inf
    for trace in named:
        width = MARK + LETTER * len(trace.name)
        if used + width > room:
            rows, used = rows + 1, 0
        used += width
    return rows


def _rendered(jobs: Sequence[tuple[go.Figure, str]]) -> list[bytes]:
    """Each figure as a file of its format, drawn by one browser without the network."""
    if not jobs:
        return []
    with ThreadPoolExecutor(1) as pool:  # a notebook's own thread has a running event loop
        try:
            return pool.submit(lambda: asyncio.run(_drawn(jobs))).result()
        except Exception as error:
            raise StudyError(
                f"kaleido could not draw the figures ({type(error).__name__}: {error}). It needs Chrome or Chromium: "
                "install one with the system's packages, name it in the environment variable BROWSER_PATH, or write "
                "tables alone: export(folder, formats=())."
            ) from error


async def _drawn(jobs: Sequence[tuple[go.Figure, str]]) -> list[bytes]:
    import kaleido

    found = []
    async with kaleido.Kaleido(n=1, mathjax=False, timeout=SECONDS) as browser:
        for figure, kind in jobs:
            layout: Any = figure.layout
            size = {"width": layout.width, "height": layout.height}
            options: Any = {"format": kind, **size, "scale": DPI / PIXELS if kind == "png" else 1}
            found.append(await browser.calc_fig(figure, opts=options))
    return found


def _file_name(name: str) -> str:
    return re.sub(r"[^\w-]+", "-", name).strip("-") or "figure"


def _side(kind: Any) -> str:
    return "r" if pd.api.types.is_numeric_dtype(kind) and not pd.api.types.is_bool_dtype(kind) else "l"


def _escaped(text: str) -> str:
    return "".join(SPECIAL.get(letter, letter) for letter in text)
