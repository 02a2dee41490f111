"""How figures look: one Plotly template, one set of colours, safe for colour-blind readers."""

from __future__ import annotations

from collections.abc import Iterator
from html import escape
from typing import Any

import plotly.graph_objects as go
from plotly.colors import hex_to_rgb, qualitative

__all__ = [
    "DIVERGING", "GREY", "HIGHLIGHT", "INTERVAL", "ONE_GROUP", "SEQUENTIAL", "SERIES", "SHADES", "TEMPLATE", "clear",
    "colour_bar", "laid_out", "mixed", "plain", "series_colour",
]  # fmt: skip

SERIES = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
"""Colours of series, by Okabe and Ito: distinguishable with every common kind of colour blindness."""
MORE_SERIES = (*SERIES, *qualitative.Dark24)
GREY = "#8a909c"
HIGHLIGHT = "#D55E00"
SEQUENTIAL = "Viridis"
"""For what has a good and a bad end."""
DIVERGING = "RdBu"
"""For changes: symmetric around zero, red below, blue above."""
SHADES = "Blues"
"""For shares between 0 and 1."""

FONT = "Inter, system-ui, -apple-system, 'Segoe UI', Roboto, sans-serif"
CLEAR = "rgba(0,0,0,0)"
AXIS = {"showgrid": True, "gridcolor": "#e5e7eb", "zeroline": False, "ticks": "outside", "automargin": True}
TEMPLATE = go.layout.Template(
    layout={
        "font": {"family": FONT, "size": 13},
        "paper_bgcolor": CLEAR,
        "plot_bgcolor": CLEAR,
        "colorway": SERIES,
        "margin": {"l": 60, "r": 20, "t": 48, "b": 60},
        "xaxis": {**AXIS, "showgrid": False, "title": {"standoff": 6, "font": {"size": 13}}},
        "yaxis": {**AXIS, "title": {"standoff": 6, "font": {"size": 13}}},
        "legend": {
            "orientation": "h", "x": 0, "y": 0, "yref": "container", "yanchor": "bottom", "font": {"size": 12}
        },
        "annotationdefaults": {"font": {"size": 12}, "showarrow": False},
        "hoverlabel": {"font": {"family": FONT}},
    }
)  # fmt: skip
ONE_GROUP, INTERVAL = "thin line: one group", "band: 95 % interval"
MARKS: dict[str, dict[str, Any]] = {
    INTERVAL: {
        "mode": "markers",
        "marker": {"symbol": "square", "size": 12, "color": "rgba(138,144,156,0.35)"},
    },
    ONE_GROUP: {"mode": "lines", "line": {"color": "rgba(138,144,156,0.7)", "width": 1}},
}
"""What a trace's `meta` may be → how the legend of its figure draws it, under that name."""
PANEL = 190
"""Pixels that a panel needs: a figure with several scrolls sideways on a narrow screen."""


def laid_out(figure: go.Figure, height: int, *, columns: int = 1, **layout: Any) -> go.Figure:
    """The figure in the one layout of all figures.

    Args:
        figure: The figure; it is changed and returned.
        height: Pixels.
        columns: Panels beside one another.
        **layout: What this figure has of its own, as for `go.Figure.update_layout`.
    """
    width = PANEL * columns + 90 if columns > 1 else 0
    figure.add_traces(list(_explained(figure)))
    figure.update_layout(template=TEMPLATE, height=height, meta={"min_width": width})
    return figure.update_layout(**layout)


def _explained(figure: go.Figure) -> Iterator[go.Scatter]:
    """An entry of the legend for each kind of mark that belongs to no series, such as the thin lines of groups."""
    used = {trace.meta for trace in figure.data if isinstance(trace.meta, str)}
    for name, look in MARKS.items():
        if name in used:
            yield go.Scatter(x=[None], y=[None], name=name, hoverinfo="skip", **look)


def series_colour(place: int) -> str:
    """The colour of a series by its place; the first six are safe for colour-blind readers."""
    return MORE_SERIES[place % len(MORE_SERIES)]


def colour_bar(title: str, **more: Any) -> dict[str, Any]:
    """A thin colour bar with its title along it."""
    return {
        "title": {"text": title, "side": "right", "font": {"size": 13}},
        "thickness": 12,
        "outlinewidth": 0,
        **more,
    }


def clear(colour: str, share: float) -> str:
    """A colour of so much opacity."""
    red, green, blue = hex_to_rgb(colour)
    return f"rgba({red},{green},{blue},{share})"


def mixed(colour: str, other: str, share: float) -> str:
    """A colour mixed with another; `share` is of the first."""
    pairs = zip(hex_to_rgb(colour), hex_to_rgb(other), strict=True)
    red, green, blue = (round(share * a + (1 - share) * b) for a, b in pairs)
    return f"rgb({red},{green},{blue})"


def plain(value: Any) -> str:
    """Text for a figure: Plotly reads some markup, and text from the data must not become any; lines stay lines."""
    return escape(str(value), quote=True).replace("\n", "<br>")
