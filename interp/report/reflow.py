"""A figure of several panels beside one another, laid out again for a narrower column: fewer panels in a row."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import plotly.graph_objects as go

__all__ = ["Space", "n_columns", "reflowed"]

NEAR = 1e-3
BAR = 62
"""Pixels that a flat colour bar takes, with its title and its ticks."""


@dataclass(frozen=True)
class Space:
    """How much room the parts of a reflowed figure take, in pixels.

    Attributes:
        panel: The height of a panel.
        gap: Between two rows of panels: ticks, the axis title and the next panels' titles.
        top: Above the first row.
        bottom: Below the last one: its ticks and title, and the legend.
        between: Between panels beside one another, as a share of the width.
    """

    panel: float = 190
    gap: float = 78
    top: float = 40
    bottom: float = 90
    between: float = 0.08


@dataclass
class _Panel:
    """One panel: its axes and its place in the figure as it was."""

    x: str
    y: str
    row: int
    column: int
    title: str = ""


def n_columns(figure: go.Figure) -> int:
    """The number of panels beside one another."""
    return max((panel.column for panel in _panels(figure)), default=0) + 1


def reflowed(figure: go.Figure, most: int, space: Space | None = None) -> go.Figure:
    """A copy with at most `most` panels in a row; the figure itself where it has no more.

    Each panel keeps its title and its traces; axis titles and tick labels, which only the first column and the last row
    had, are written again where a panel now starts a row or stands alone.

    Args:
        figure: A figure of panels, as `interp.report.figures.panels` makes them.
        most: Panels beside one another.
        space: The room of its parts.
    """
    panels, room = _panels(figure), space or Space()
    if max((one.column for one in panels), default=0) < most:
        return figure
    found = go.Figure(figure)
    rows = _rows(panels, most)
    height = room.panel * len(rows) + room.gap * (len(rows) - 1)
    layout: Any = found.layout
    layout.annotations = [note for note in layout.annotations if not _is_title(note)]
    width = (1 - room.between * (most - 1)) / most
    for number, row in enumerate(rows):
        top = 1 - number * (room.panel + room.gap) / height
        bottom = max(0.0, top - room.panel / height)
        for place, panel in enumerate(row):
            left = place * (width + room.between)
            _place(found, figure, panel, (left, left + width), (bottom, top), first=place == 0)
    below = _bars_below(found, height) if most == 1 else 0
    return found.update_layout(
        height=height + room.top + room.bottom + below,
        margin={"t": room.top, "b": room.bottom + below, "l": 60, "r": 20},
        meta={"min_width": 0},
    )


def _bars_below(figure: go.Figure, height: float) -> int:
    """Lays the colour bars of the figure's colour axes flat below its panels; returns the pixels they take."""
    marks = [getattr(trace, "marker", None) for trace in figure.data]
    used = {getattr(one, "coloraxis", None) for one in (*figure.data, *filter(None, marks))}
    layout: Any = figure.layout
    axes = sorted(name for name in layout.to_plotly_json() if name in used)
    for number, name in enumerate(axes):
        place = {
            "orientation": "h",
            "x": 0.5,
            "xanchor": "center",
            "y": -(56 + BAR * number) / height,
            "yanchor": "top",
        }
        layout[name].colorbar.update(**place, len=1.0, title={"side": "top"})
    return BAR * len(axes)


def _panels(figure: go.Figure) -> list[_Panel]:
    """The panels that hold traces, row by row, with the titles above them."""
    pairs = dict.fromkeys(
        (trace.xaxis or "x", trace.yaxis or "y") for trace in figure.data if hasattr(trace, "xaxis")
    )
    lefts, tops = (
        sorted({round(_domain(figure, pair[side])[side], 4) for pair in pairs}, reverse=bool(side))
        for side in (0, 1)
    )
    found = [
        _Panel(
            x,
            y,
            tops.index(round(_domain(figure, y)[1], 4)),
            lefts.index(round(_domain(figure, x)[0], 4)),
        )
        for x, y in pairs
    ]
    layout: Any = figure.layout
    titles = {
        place: note.text
        for note in layout.annotations
        if _is_title(note)
        for place in _below(figure, found, note)
    }
    for panel in found:
        own = titles.get((panel.row, panel.column))
        panel.title = own if own is not None else titles.get((0, panel.column), "")
    return sorted(found, key=lambda panel: (panel.row, panel.column))


def _rows(panels: list[_Panel], most: int) -> list[list[_Panel]]:
    """The panels of each new row; panels of different old rows do not share one."""
    rows: list[list[_Panel]] = []
    for panel in panels:
        if not rows or rows[-1][0].row != panel.row or len(rows[-1]) == most:
            rows.append([])
        rows[-1].append(panel)
    return rows


def _is_title(note: Any) -> bool:
    """Whether an annotation is the title over a panel."""
    return note.xref == "paper" and note.yref == "paper" and not note.showarrow and note.xanchor == "center"


def _below(figure: go.Figure, panels: list[_Panel], note: Any) -> list[tuple[int, int]]:
    """The places of the panels right below a title."""
    places = []
    for panel in panels:
        left, right = _domain(figure, panel.x)
        top = _domain(figure, panel.y)[1]
        if abs(note.x - (left + right) / 2) < NEAR and abs(note.y - top) < 2e-2:
            places.append((panel.row, panel.column))
    return places


def _place(
    found: go.Figure,
    figure: go.Figure,
    panel: _Panel,
    x: tuple[float, float],
    y: tuple[float, float],
    *,
    first: bool,
) -> None:
    """Moves a panel's axes and its title, and labels the axes."""
    below = _labelled(figure, panel, "x")
    _axis(found, panel.x).update(domain=x, anchor=panel.y, showticklabels=True, title=below.title)
    beside = _labelled(figure, panel, "y")
    _axis(found, panel.y).update(
        domain=y,
        anchor=panel.x,
        showticklabels=True if first else _axis(figure, panel.y).showticklabels,
        title=beside.title if first else {"text": None},
    )
    if panel.title:
        found.add_annotation(
            text=panel.title,
            x=(x[0] + x[1]) / 2,
            y=y[1],
            xref="paper",
            yref="paper",
            xanchor="center",
            yanchor="bottom",
            showarrow=False,
        )


def _labelled(figure: go.Figure, panel: _Panel, letter: str) -> Any:
    """The axis in the panel's column (x) or row (y) that has a title, else its own."""
    own = _axis(figure, panel.x if letter == "x" else panel.y)
    same = [
        _axis(figure, other.x if letter == "x" else other.y)
        for other in _panels(figure)
        if (other.column == panel.column if letter == "x" else other.row == panel.row)
    ]
    return next((axis for axis in [own, *same] if axis.title.text), own)


def _axis(figure: go.Figure, reference: str) -> Any:
    """The axis that traces call "x2"."""
    return figure.layout[f"{reference[0]}axis{reference[1:]}"]


def _domain(figure: go.Figure, reference: str) -> tuple[float, float]:
    found = _axis(figure, reference).domain
    return (0.0, 1.0) if found is None else (float(found[0]), float(found[1]))
