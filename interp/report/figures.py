"""Figures from frames, and how they look: one Plotly template, one set of colours for colour-blind readers."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from html import escape
from textwrap import wrap
from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from jaxtyping import Float
from plotly.colors import hex_to_rgb, qualitative
from plotly.subplots import make_subplots

from interp.metrics import METRICS
from interp.stats import MIN_GROUPS

__all__ = [
    "DIVERGING",
    "GREY",
    "HIGHLIGHT",
    "INTERVAL",
    "ONE_GROUP",
    "SEQUENTIAL",
    "SERIES",
    "SHADES",
    "TEMPLATE",
    "Figures",
    "band",
    "clear",
    "colour_bar",
    "curves",
    "cut_ticks",
    "every",
    "group_lines",
    "heat",
    "interval_arms",
    "laid_out",
    "level_line",
    "line",
    "metric_axis",
    "mixed",
    "panels",
    "plain",
    "points",
    "reference_line",
    "series_colour",
    "series_colours",
    "ticks_at",
    "wide",
]


Figures = dict[str, go.Figure]


def panels(titles: Sequence[str], *, rows: int = 1, columns: int | None = None, **options: Any) -> go.Figure:
    """An empty figure of panels, each with its title.

    Args:
        titles: One per panel, row by row, or one per column; "" or none for no title.
        rows: Panels above one another.
        columns: Panels beside one another; as many as there are titles when left out.
        **options: As for `plotly.subplots.make_subplots`.
    """
    named: dict[str, Any] = {"subplot_titles": [plain(title) for title in titles]} if any(titles) else {}
    figure = make_subplots(rows=rows, cols=columns or max(1, len(titles)), **named, **options)
    axes: tuple[Any, ...] = (*figure.select_xaxes(), *figure.select_yaxes())
    for axis in axes:
        if axis.showticklabels is False:  # of a shared axis: ticks without labels say nothing
            axis.ticks = ""
    return figure


def curves(
    summary: pd.DataFrame,
    scores: pd.DataFrame,
    name: str,
    colour: str,
    *,
    dash: str = "solid",
    legend: bool = True,
    digits: int = 3,
) -> list[go.Scatter]:
    """A line of means over the layers with its 95 % band, or with a thin line per group where groups are few.

    Args:
        summary: Columns layer, mean, low, high, n, n_groups.
        scores: Columns group, layer, value: the same measure by sample.
        name: The name in the legend.
        colour: The colour of the line, the band and the groups' lines.
        dash: The dash of the line; any but "solid" marks a baseline, which is thinner and has no groups' lines.
        legend: Whether the legend shows the name.
        digits: Digits after the point that hovering shows.
    """
    if summary.empty:
        return []
    spread: list[go.Scatter] = []
    if int(summary.n_groups.max()) >= MIN_GROUPS:
        spread = [band(summary, name, colour)]
    elif dash == "solid":
        spread = group_lines(scores, name, colour)
    return [*spread, line(summary, name, colour, dash=dash, legend=legend, digits=digits)]


def line(
    summary: pd.DataFrame,
    name: str,
    colour: str,
    *,
    dash: str = "solid",
    legend: bool = True,
    digits: int = 3,
) -> go.Scatter:
    """Means over the layers; hovering shows the interval and the counts."""
    solid, ends = dash == "solid", ("low", "high", "n", "n_groups")
    return go.Scatter(
        x=summary.layer,
        y=summary["mean"],
        customdata=summary[list(ends)].to_numpy(),
        mode="lines+markers" if solid else "lines",
        name=plain(name),
        legendgroup=name,
        showlegend=legend,
        line={"color": colour, "width": 2.5 if solid else 1.6, "dash": dash},
        marker={"size": 6, "color": colour},
        hovertemplate=f"%{{y:.{digits}f}} [%{{customdata[0]:.{digits}f}}, %{{customdata[1]:.{digits}f}}] · "
        "samples: %{customdata[2]}, groups: %{customdata[3]}",
    )


def band(summary: pd.DataFrame, name: str, colour: str) -> go.Scatter:
    """The intervals from layer to layer as an area."""
    return go.Scatter(
        x=pd.concat([summary.layer, summary.layer[::-1]]),
        y=pd.concat([summary.high, summary.low[::-1]]),
        fill="toself",
        fillcolor=clear(colour, 0.18),
        line={"width": 0},
        mode="lines",
        name=plain(f"{name} 95 %"),
        meta=INTERVAL,
        legendgroup=name,
        showlegend=False,
        hoverinfo="skip",
    )


def group_lines(scores: pd.DataFrame, name: str, colour: str) -> list[go.Scatter]:
    """A thin line of means for each group."""
    means = scores.groupby(["group", "layer"], observed=True).value.mean().reset_index()
    return [
        go.Scatter(
            x=part.layer,
            y=part.value,
            mode="lines",
            line={"color": clear(colour, 0.35), "width": 1},
            name=plain(f"{name} · group {group}"),
            meta=ONE_GROUP,
            legendgroup=name,
            showlegend=False,
            hoverinfo="skip",
        )
        for group, part in means.groupby("group", observed=True)
    ]


def heat(
    frame: pd.DataFrame,
    value: str,
    *,
    more: Sequence[str],
    hover: str,
    axis: str = "coloraxis",
    along: tuple[str, str] = ("layer", "head"),
) -> go.Heatmap:
    """A cell per layer (left to right) and head (bottom to top); blank where there is no value.

    Args:
        frame: One row per cell.
        value: The column that is drawn.
        more: Columns that hovering shows as `%{customdata[0]}`, `%{customdata[1]}`, ….
        hover: What hovering shows after “layer 3, head 5”.
        axis: The figure's colour axis to use.
        along: The columns of x and y.
    """
    x, y = along
    grids = {name: wide(frame, name, along) for name in (value, *more)}
    return go.Heatmap(
        x=sorted(int(one) for one in frame[x].unique()),
        y=sorted(int(one) for one in frame[y].unique()),
        z=grids[value],
        customdata=np.stack([grids[name] for name in more], axis=-1),
        coloraxis=axis,
        xgap=1,
        ygap=1,
        hoverongaps=False,
        hovertemplate=f"{x} %{{x}}, {y} %{{y}}{hover}<extra></extra>",
    )


def wide(
    frame: pd.DataFrame, value: str, along: tuple[str, str] = ("layer", "head")
) -> Float[np.ndarray, "y x"]:
    """A column as a table of y × x, both in ascending order; NaN where there is no row."""
    return (
        frame.pivot(index=along[1], columns=along[0], values=value)
        .sort_index(axis=0)
        .sort_index(axis=1)
        .to_numpy(float)
    )


def points(
    rows: pd.DataFrame,
    names: Sequence[str],
    *,
    of: tuple[str, str, str] = ("mean", "low", "high"),
    scale: float = 1.0,
    marker: dict[str, Any],
    arms: dict[str, Any],
    **options: Any,
) -> go.Scatter:
    """Estimates as points, one line of the figure each, with their intervals as arms.

    Args:
        rows: Has `n_groups` and the columns named by `of`.
        names: The label at the left of each.
        of: The columns of the value and of its interval's ends.
        scale: The factor of the numbers.
        marker: The marker, as for `go.Scatter`.
        arms: Colour and thickness of the arms, as for `error_x`.
        **options: Further options of `go.Scatter`.
    """
    return go.Scatter(
        x=scale * rows[of[0]].to_numpy(float),
        y=[plain(name) for name in names],
        mode="markers",
        marker=marker,
        error_x={**interval_arms(rows, of=of, scale=scale), **arms},
        **options,
    )


def interval_arms(
    rows: pd.DataFrame, *, of: tuple[str, str, str] = ("mean", "low", "high"), scale: float = 1.0
) -> dict[str, Any]:
    """The arms from a value to its interval's ends; without length where groups are too few for an interval."""
    value, low, high = (scale * rows[name].to_numpy(float) for name in of)
    few = rows.n_groups.to_numpy() < MIN_GROUPS
    low, high = (np.where(few, value, ends) for ends in (low, high))
    return {"type": "data", "array": high - value, "arrayminus": value - low}


def reference_line(
    figure: go.Figure,
    *,
    x: float | None = None,
    y: float | None = None,
    text: str = "",
    at: str = "top",
    **place: Any,
) -> None:
    """A thin grey line at a value, with a word beside it.

    Args:
        figure: The figure; it is changed.
        x: Where to draw a vertical line.
        y: Where to draw a horizontal line.
        text: A word beside the line.
        at: Where to write the word, as Plotly's `annotation_position`.
        **place: `row` and `col`; all panels when left out.
    """
    line = {"color": GREY, "width": 1, "dash": "dot"}
    note: dict[str, Any] = {"text": text, "font": {"size": 11, "color": GREY}}
    more: dict[str, Any] = {"annotation": note, "annotation_position": at} if text else {}
    if x is not None:
        figure.add_vline(x=x, line=line, **more, **place)
    if y is not None:
        figure.add_hline(y=y, line={"color": GREY, "width": 1}, **more, **place)


def level_line(figure: go.Figure, y: float, name: str, **place: Any) -> None:
    """A grey line of dashes and dots at a value of the y axis, which the legend names.

    A word beside it would lie over the curves.

    Args:
        figure: The figure; it is changed.
        y: The value at which the line is drawn.
        name: The name in the legend.
        **place: `row` and `col`; all panels when left out.
    """
    line: dict[str, Any] = {"color": GREY, "width": 1.5, "dash": "dashdot"}
    figure.add_hline(y=y, line=line, **place)
    figure.add_trace(go.Scatter(x=[None], y=[None], mode="lines", name=name, line=line, hoverinfo="skip"))


def metric_axis(metric: str, separator: str = ",<br>") -> str:
    """An axis title: the metric's name and unit, and the direction that is better; a long name takes two lines."""
    described = METRICS[metric]
    arrow = "↑" if described.better == "higher" else "↓"
    label = "<br>".join(wrap(described.label, 22)) if "<br>" in separator else described.label
    return f"{label} {arrow}{separator}{described.better} is better"


def every(values: Iterable[int], n: int = 12) -> int:
    """The step between the labels of an axis that starts at 0 and should have about this many of them."""
    return max(1, (max(values, default=0) + 1) // n)


def ticks_at(values: Iterable[int], n: int = 12) -> dict[str, Any]:
    """Ticks of an axis at the measured layers or heads alone, about `n` of them where there are more.

    >>> ticks_at([0, 2, 4, 2]), ticks_at(range(40), 4)
    ({'tickvals': [0, 2, 4]}, {'tickvals': [0, 10, 20, 30]})
    """
    found = sorted({int(value) for value in values})
    return {"tickvals": found[:: max(1, len(found) // n)]}


def cut_ticks(low: float, high: float, *, cut_high: bool) -> dict[str, Any]:
    """Five ticks of a colour bar; the one at the end where the scale is cut says so."""
    values = np.linspace(low, high, 5)
    texts = [f"{value:.2f}" for value in values]
    place, sign = (-1, "≥") if cut_high else (0, "≤")
    texts[place] = f"{sign} {texts[place]}"
    return {"tickvals": values.tolist(), "ticktext": texts}


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
    """The figure with the layout that all figures have.

    Args:
        figure: The figure; it is changed and returned.
        height: Pixels.
        columns: Panels beside one another.
        **layout: Further settings of this figure, as for `go.Figure.update_layout`.
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


def series_colours(names: Iterable[str]) -> dict[str, str]:
    """The colour of each series by its name; names are in the order of their places."""
    return {name: series_colour(place) for place, name in enumerate(names)}


def colour_bar(title: str, **more: Any) -> dict[str, Any]:
    """A thin colour bar with its title along it."""
    return {
        "title": {"text": title, "side": "right", "font": {"size": 13}},
        "thickness": 12,
        "outlinewidth": 0,
        **more,
    }


def clear(colour: str, share: float) -> str:
    """A colour with an opacity from 0 to 1."""
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
