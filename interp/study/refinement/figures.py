"""Figures of what methods change: the accuracy difference of each, and over two parameters a heat map."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from interp.report.html import safe
from interp.stats import MIN_GROUPS
from interp.study.dataframes import records, rows_of, where
from interp.study.layer_sweep.figures import FONT, GREY, PALETTE
from interp.study.refinement.result import numeric_pair

if TYPE_CHECKING:
    from interp.study.refinement.result import RefinementResult

__all__ = ["panels", "refinement_figures"]

NAMES = {"k": "k, heads in triage", "percentile": "p, percentile below which tokens are hidden"}
PLACE = ("model", "data")


def refinement_figures(result: RefinementResult) -> dict[str, go.Figure]:
    """ "difference": each cell's accuracy change, where there are several; "heat": over two parameters, where there
    are two and nothing else differs."""
    summary = result.summary()
    if "correct" not in result.measures or len(result.cells) < 2:
        return {}
    own = where(summary, summary.measure == "correct")
    pair = numeric_pair(result.parameters, result.axes)
    if pair is not None:
        return {"heat": _heat_maps(result, own, pair)}
    return {"difference": _differences(result, own)}


def panels(result: RefinementResult) -> list[dict[str, str]]:
    """The models and data of a result, one panel each, in order."""
    found = dict.fromkeys(tuple(cell.labels[axis] for axis in PLACE) for cell in result.cells)
    return [dict(zip(PLACE, key, strict=True)) for key in found]


def panel_name(result: RefinementResult, panel: dict[str, str]) -> str:
    """What tells a panel from the others: its data, with its model where there are several."""
    several = len({cell.labels["model"] for cell in result.cells}) > 1
    return " · ".join(panel.values()) if several else panel["data"]


def _differences(result: RefinementResult, own: pd.DataFrame) -> go.Figure:
    """Points with intervals, in points of accuracy, one panel per model and data; groups alone where they are few."""
    places = panels(result)
    titles = [safe(panel_name(result, place)) for place in places]
    figure = make_subplots(rows=1, cols=len(places), shared_yaxes=True, subplot_titles=titles)
    for column, place in enumerate(places, start=1):
        rows = rows_of(own, place)
        names = [safe(_name(result, row)) for row in records(rows)]
        few = rows.n_groups.to_numpy() < MIN_GROUPS
        figure.add_traces(_points(rows, names, few), rows=1, cols=column)
        if few.any():
            figure.add_trace(_group_points(result, place), row=1, col=column)
    figure.add_vline(x=0, line={"color": GREY, "width": 1})
    figure.update_layout(**_look(130 + 34 * _most(own, places)), showlegend=False)
    figure.update_yaxes(autorange="reversed", showgrid=False)
    title = {"text": "accuracy, after − before, points", "standoff": 6}
    figure.update_xaxes(title=title, zeroline=False, matches="x")
    return figure


def _points(rows: pd.DataFrame, names: list[str], few: np.ndarray) -> list[go.Scatter]:
    value, low, high = (100 * rows[name].to_numpy(float) for name in ("difference", "low", "high"))
    low, high = (np.where(few, value, ends) for ends in (low, high))
    hover = [_hover(row) for row in records(rows)]
    return [
        go.Scatter(
            x=value,
            y=names,
            mode="markers",
            marker={"size": 10, "color": PALETTE[0]},
            error_x={"array": high - value, "arrayminus": value - low, "thickness": 2, "width": 5},
            text=hover,
            hovertemplate="%{y}: %{text}<extra></extra>",
        )
    ]


def _group_points(result: RefinementResult, place: dict[str, str]) -> go.Scatter:
    groups = rows_of(result.per_group(), place)
    return go.Scatter(
        x=100 * groups.difference,
        y=[safe(_name(result, row)) for row in records(groups)],
        mode="markers",
        marker={"size": 6, "color": GREY, "symbol": "circle-open"},
        text=[f"group {safe(row['group'])}, {row['n']} samples" for row in records(groups)],
        hovertemplate="%{y}, %{text}: %{x:+.1f}<extra></extra>",
    )


def _heat_maps(result: RefinementResult, own: pd.DataFrame, pair: tuple[str, str]) -> go.Figure:
    """Accuracy change over two parameters, one panel per model and data, on one scale that is even around 0."""
    places, (across, up) = panels(result), sorted(pair, key=lambda name: name == "k")
    titles = [safe(panel_name(result, place)) for place in places]
    figure = make_subplots(rows=1, cols=len(places), subplot_titles=titles, horizontal_spacing=0.1)
    table = own.merge(result.parameters, on=list(result.axes))
    top = max(float(100 * table.difference.abs().max()), 0.1)
    for column, place in enumerate(places, start=1):
        rows = rows_of(table, place)
        figure.add_trace(_heat(rows, across, up), row=1, col=column)
    bar = {"title": {"text": "accuracy change, points", "side": "right"}, "thickness": 12, "outlinewidth": 0}
    scale: dict[str, Any] = {"colorscale": "RdBu", "cmin": -top, "cmax": top, "colorbar": bar}
    n = len(set(table[up]))
    figure.update_layout(**_look(150 + 44 * n), coloraxis=scale)
    figure.update_xaxes(
        type="category", title={"text": NAMES.get(across, across), "standoff": 6}, ticks="outside"
    )
    figure.update_yaxes(type="category", ticks="outside")
    figure.update_yaxes(title_text=NAMES.get(up, up), col=1)
    return figure


def _heat(rows: pd.DataFrame, across: str, up: str) -> go.Heatmap:
    x, y = sorted(set(rows[across])), sorted(set(rows[up]))
    grid, hover = np.full((len(y), len(x)), np.nan), np.full((len(y), len(x)), "", dtype=object)
    for row in records(rows):
        spot = y.index(row[up]), x.index(row[across])
        grid[spot], hover[spot] = 100 * row["difference"], _hover(row)
    words = [
        ["" if np.isnan(value) else f"{round(value, 1) + 0.0:+.1f}".replace("-", "−") for value in line]
        for line in grid
    ]
    return go.Heatmap(
        x=[f"{value:g}" for value in x],
        y=[f"{value:g}" for value in y],
        z=grid,
        text=words,
        texttemplate="%{text}",
        customdata=hover,
        coloraxis="coloraxis",
        xgap=2,
        ygap=2,
        hoverongaps=False,
        hovertemplate=f"{safe(up)} = %{{y}}, {safe(across)} = %{{x}}<br>%{{customdata}}<extra></extra>",
    )


def _hover(row: dict[str, Any]) -> str:
    """“+2.5 points [−1.0, 6.2] · 80 samples, 40 groups”."""
    few = row["n_groups"] < MIN_GROUPS
    ends = "" if few else f" [{100 * row['low']:+.1f}, {100 * row['high']:+.1f}]"
    counts = f"{row['n']} samples, {row['n_groups']} groups"
    return (
        f"{100 * row['difference']:+.1f} points{ends} · {counts}{', too few for an interval' if few else ''}"
    )


def _name(result: RefinementResult, row: dict[str, Any]) -> str:
    """A cell's labels besides model and data."""
    rest = [axis for axis in result.axes if axis not in PLACE]
    shown = [axis for axis in rest if len({cell.labels[axis] for cell in result.cells}) > 1] or ["method"]
    return " · ".join(str(row[axis]) for axis in shown)


def _most(own: pd.DataFrame, places: list[dict[str, str]]) -> int:
    return max((len(rows_of(own, place)) for place in places), default=1)


def _look(height: int) -> dict[str, Any]:
    return {
        "template": "plotly_white",
        "height": height,
        "margin": {"l": 56, "r": 16, "t": 40, "b": 60},
        "paper_bgcolor": "rgba(0,0,0,0)",
        "plot_bgcolor": "rgba(0,0,0,0)",
        "font": {"family": FONT, "size": 13},
    }
