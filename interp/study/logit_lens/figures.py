"""Lines by layer of a lens sweep: one panel per cell and word."""

from __future__ import annotations

from textwrap import wrap
from typing import TYPE_CHECKING, Any

import plotly.graph_objects as go

from interp.report.figures import (
    GREY,
    SERIES,
    Figures,
    curves,
    laid_out,
    panels,
    plain,
    reference_line,
    ticks_at,
)
from interp.study.dataframes import rows_of, where
from interp.study.logit_lens.task import OTHERS, OWN
from interp.study.logit_lens.wording import MIXED, wording_of

if TYPE_CHECKING:
    from interp.study.result import GridResult
    from interp.study.runs import GridCell

__all__ = ["figures"]

LINES = {
    "gap": (("gap", OWN, SERIES[0], "solid"), ("gap", OTHERS, GREY, "dash")),
    "first": (
        ("first inside", OWN, SERIES[1], "solid"),
        ("first outside", OWN, GREY, "dot"),
        ("first inside", OTHERS, GREY, "dash"),
    ),
}
"""Figure → its lines: measure, whose word, colour, dash."""
WIDEST = 16
"""Characters of a line above a panel where lenses are compared."""
TITLES = {
    "gap": "{short} inside − outside,\n{unit}, higher: inside the boxes ↑",
    "first": "tokens with the word first,\nshare, higher: more tokens ↑",
}


def figures(result: GridResult) -> Figures:
    """ "gap" and "first": means by layer with bands of 95 % over groups, or a line per group where those are few."""
    return {name: _figure(result, name) for name in LINES}


def _figure(result: GridResult, name: str) -> go.Figure:
    words = list(dict.fromkeys(result.scores.word))
    cells = [cell for cell in result.cells if cell.measured]
    wording = wording_of(cell.study.lens for cell in result.cells)
    alike = wording is not MIXED
    shared: dict[str, Any] = {"shared_xaxes": True, "shared_yaxes": alike or name == "first"}
    figure = panels(
        [_title(cell, result) for cell in cells],
        rows=len(words),
        columns=len(cells),
        vertical_spacing=0.08,
        horizontal_spacing=0.02 if shared["shared_yaxes"] else 0.4 / len(cells),
        **shared,
    )
    top = 40 if "lens" not in result.axes else 120
    known: set[str] = set()
    for column, cell in enumerate(cells, start=1):
        for row, word in enumerate(words, start=1):
            _add_lines(figure, result, cell, word, name, known, row=row, col=column)
            reference_line(figure, y=0, row=row, col=column)
    figure.update_xaxes(**ticks_at(result.scores.layer, 8))
    figure.update_xaxes(title_text="layer (−1: input)", row=len(words))
    for row, word in enumerate(words, start=1):
        title = {
            "text": plain(f"{word}\n{TITLES[name].format(short=wording.short, unit=wording.unit)}"),
            "font": {"size": 11},
        }
        figure.update_yaxes(title=title, row=row, col=1)
    height = 130 + 200 * len(words) + top
    return laid_out(figure, height, columns=len(cells), margin={"l": 84, "t": top, "b": 96})


def _title(cell: GridCell, result: GridResult) -> str:
    """A panel's title: the data, and where lenses are compared the lens and its score, in lines of their own."""
    if "lens" not in result.axes:
        return cell.labels["data"]
    parts = (cell.labels["data"], cell.labels["lens"], wording_of([cell.study.lens]).short)
    return "\n".join(line for part in parts for line in wrap(part, WIDEST))


def _add_lines(
    figure: go.Figure, result: GridResult, cell: GridCell, word: str, name: str, known: set[str], **place: int
) -> None:
    """The lines of one panel; the legend names each kind of line once."""
    labels = {**cell.labels, "word": word}
    summary, scores = (rows_of(frame, labels) for frame in (result.summary(), result.scores))
    for measure, of, colour, dash in LINES[name]:
        own, of_samples = (
            where(frame, (frame.measure == measure) & (frame.of == of)) for frame in (summary, scores)
        )
        label = f"{measure}, {of}"
        traces = curves(own, of_samples, label, colour, dash=dash, legend=label not in known)
        for trace in traces:
            figure.add_trace(trace, row=place["row"], col=place["col"])
        known |= {label} if traces else set()
