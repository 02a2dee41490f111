"""A figure of several panels beside one another, laid out again for a narrower column: fewer panels in a row."""

from __future__ import annotations

from dataclasses import dataclass, replace
from textwrap import wrap
from typing import Any

import plotly.graph_objects as go

__all__ = ["Space", "broken_titles", "n_columns", "narrowed", "reflowed"]

NEAR = 1e-3
OUTSIDE = "outside"
"""Where the ticks of a labelled axis are."""
ABOVE_BARS, BAR = 56, 70
"""Pixels between the last panel and a flat colour bar below it, and those of the bar with its title and its ticks."""
TITLE, LINE, BOTTOM = 26, 17, 60
"""Pixels of the title over a figure, of a line of an axis title, and below the panels where a figure says nothing."""
LETTERS = 34
"""Letters of a line of an axis title on a narrow screen."""
SLANTED, MOST_SLANTED = 5, 80
"""Pixels that a letter of a slanted label takes downwards, and those of the longest label."""


@dataclass(frozen=True)
class Space:
    """How much room the parts of a reflowed figure take, in pixels.

    Attributes:
        panel: The height of a panel.
        gap: The room between two rows of panels: ticks, the axis title and the next panels' titles.
        top: The room above the first row.
        bottom: The room below the last row: its ticks and title, and the legend.
        between: The room between panels beside one another, as a share of the width.
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
        most: The largest number of panels in a row.
        space: The room of the figure's parts.
    """
    panels, room = _panels(figure), space or Space()
    if max((one.column for one in panels), default=0) < most:
        return figure
    found = go.Figure(figure)
    layout: Any = found.layout
    if most == 1:
        figure = broken_titles(go.Figure(figure), LETTERS)
    more = LINE * (_n_lines(figure) - 1)
    top = room.top + (TITLE if layout.title.text else 0)
    room = replace(room, top=top, gap=room.gap + more + _slant(found, most), bottom=room.bottom + more)
    rows = _rows(panels, most)
    height = room.panel * len(rows) + room.gap * (len(rows) - 1)
    layout.annotations = [note for note in layout.annotations if not _is_title(note)]
    width = (1 - room.between * (most - 1)) / most
    for number, row in enumerate(rows):
        top = 1 - number * (room.panel + room.gap) / height
        bottom = max(0.0, top - room.panel / height)
        for place, panel in enumerate(row):
            left = place * (width + room.between)
            _place(found, figure, panel, (left, left + width), (bottom, top), first=place == 0)
    below = _place_bars(found, height, ABOVE_BARS + more) if most == 1 else 0
    return found.update_layout(
        height=height + room.top + room.bottom + below,
        margin={"t": room.top, "b": room.bottom + below, "l": 60, "r": 20},
        meta={"min_width": 0},
    )


def narrowed(figure: go.Figure) -> go.Figure:
    """A copy for a narrow screen: one panel in a row, long axis titles on several lines; else the figure itself."""
    found = reflowed(figure, 1)
    more = _n_lines(figure, LETTERS) - _n_lines(figure)
    if found is not figure or not more:
        return found
    layout: Any = figure.layout
    below = LINE * more
    margin = BOTTOM if layout.margin.b is None else layout.margin.b
    return broken_titles(go.Figure(figure), LETTERS).update_layout(
        height=(layout.height or 400) + below, margin={"b": margin + below}
    )


def broken_titles(figure: go.Figure, letters: int) -> go.Figure:
    """The figure, with titles of its x axes on lines of at most so many letters; it is changed."""
    axes: tuple[Any, ...] = tuple(figure.select_xaxes())
    for axis in axes:
        if axis.title.text:
            axis.title.text = _broken(axis.title.text, letters)
    return figure


def _n_lines(figure: go.Figure, letters: int = 1000) -> int:
    """How many lines the longest title of an x axis takes."""
    axes: tuple[Any, ...] = tuple(figure.select_xaxes())
    texts = [axis.title.text for axis in axes if axis.title.text]
    return max((_broken(text, letters).count("<br>") + 1 for text in texts), default=1)


def _broken(text: str, letters: int) -> str:
    """A title on lines of at most so many letters; one with other markup stays."""
    lines = text.split("<br>")
    if any("<" in line for line in lines):
        return text
    return "<br>".join(part for line in lines for part in wrap(line, letters, break_long_words=False) or [""])


def _slant(figure: go.Figure, most: int) -> int:
    """Slants long names along the x axes of panels that become narrow; returns the pixels that they take."""
    named = [
        (trace.xaxis or "x", [one for one in trace.x if isinstance(one, str)])
        for trace in figure.data
        if getattr(trace, "x", None) is not None
    ]
    deepest = 0
    for axis, names in named:
        letters = max(map(len, names), default=0)
        if letters * len(set(names)) > LETTERS and most == 1:
            _axis(figure, axis).tickangle = -45
            deepest = max(deepest, min(letters * SLANTED, MOST_SLANTED) - LINE)
    return max(deepest, 0)


def _place_bars(figure: go.Figure, height: float, above: float) -> int:
    """Places the colour bars of the figure's colour axes; returns the pixels that they take below its panels.

    A bar without a title that belongs to one of several panels stands at that panel's right side; others lie flat
    below all panels.

    Args:
        figure: The figure; it is changed.
        height: The height of all panels together, in pixels.
        above: Pixels between the last panel and the first flat bar.
    """
    layout: Any = figure.layout
    owners: dict[str, set[str]] = {}
    for trace in figure.data:
        for one in (trace, getattr(trace, "marker", None)):
            axis = getattr(one, "coloraxis", None)
            if axis:
                owners.setdefault(axis, set()).add(getattr(trace, "yaxis", None) or "y")
    alone = {axis: next(iter(own)) for axis, own in owners.items()
             if len(own) == 1 and len(owners) > 1 and not layout[axis].colorbar.title.text}  # fmt: skip
    for axis, panel in alone.items():
        low, high = _domain(figure, panel)
        beside = {
            "orientation": "v",
            "x": 1.01,
            "xanchor": "left",
            "y": (low + high) / 2,
            "yanchor": "middle",
        }
        layout[axis].colorbar.update(**beside, len=high - low)
    below = sorted(owners.keys() - alone.keys())
    taken = 0
    for axis in below:
        bar, lines = layout[axis].colorbar, 1
        if bar.title.text:
            bar.title.text = _broken(bar.title.text, LETTERS)
            lines = bar.title.text.count("<br>") + 1
        place = {
            "orientation": "h",
            "x": 0.5,
            "xanchor": "center",
            "y": -(above + taken) / height,
            "yanchor": "top",
        }
        bar.update(**place, len=1.0, title={"side": "top"})
        taken += BAR + LINE * (lines - 1)
    return taken


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
    _axis(found, panel.x).update(
        domain=x, anchor=panel.y, showticklabels=True, ticks=OUTSIDE, title=below.title
    )
    beside = _labelled(figure, panel, "y")
    _axis(found, panel.y).update(
        domain=y,
        anchor=panel.x,
        showticklabels=True if first else _axis(figure, panel.y).showticklabels,
        ticks=OUTSIDE if first else _axis(figure, panel.y).ticks,
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
