"""Figures of what methods change: the accuracy difference of each, and over two parameters a heat map."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from interp.report.figures import (
    DIVERGING,
    GREY,
    SERIES,
    Figures,
    colour_bar,
    laid_out,
    panels,
    plain,
    points,
)
from interp.report.tables import estimate, signed, varying
from interp.stats import MIN_GROUPS
from interp.study.dataframes import records, rows_of, where
from interp.study.refinement.result import numeric_pair

if TYPE_CHECKING:
    from interp.study.refinement.paired_result import PairedResult
    from interp.study.refinement.result import RefinementResult

__all__ = ["DIFFERENCE", "figures", "panel_name", "places"]

NAMES = {"k": "k, heads in triage", "percentile": "p, percentile below which tokens are hidden"}
PLACE = ("model", "data")
DIFFERENCE = ("difference", "low", "high")


def figures(result: RefinementResult) -> Figures:
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


def places(result: PairedResult) -> list[dict[str, str]]:
    """The models and data of a result, one panel each, in order."""
    found = dict.fromkeys(tuple(cell.labels[axis] for axis in PLACE) for cell in result.cells)
    return [dict(zip(PLACE, key, strict=True)) for key in found]


def panel_name(result: PairedResult, place: dict[str, str]) -> str:
    """What tells a panel from the others: its data, with its model where there are several."""
    return " · ".join(place.values()) if "model" in varying(result.cells) else place["data"]


def _differences(result: RefinementResult, own: pd.DataFrame) -> go.Figure:
    """Points with intervals, in points of accuracy, one panel per model and data; groups alone where they are few."""
    shown = places(result)
    figure = panels([panel_name(result, place) for place in shown], shared_yaxes=True)
    for column, place in enumerate(shown, start=1):
        rows = rows_of(own, place)
        figure.add_trace(_points(result, rows), row=1, col=column)
        if (rows.n_groups < MIN_GROUPS).any():
            figure.add_trace(_group_points(result, place), row=1, col=column)
    figure.add_vline(x=0, line={"color": GREY, "width": 1})
    most = max((len(rows_of(own, place)) for place in shown), default=1)
    figure.update_yaxes(autorange="reversed", showgrid=False)
    figure.update_xaxes(title_text="accuracy, after − before, points (higher is better →)", matches="x")
    layout: Any = figure.layout
    layout.xaxis.matches = None  # the first one leads; an axis that matches itself is an error
    return laid_out(figure, 140 + 34 * most, columns=len(shown), showlegend=False)


def _points(result: RefinementResult, rows: pd.DataFrame) -> go.Scatter:
    return points(
        rows,
        [_name(result, row) for row in records(rows)],
        of=DIFFERENCE,
        scale=100,
        marker={"size": 10, "color": SERIES[0]},
        arms={"thickness": 2, "width": 5},
        text=[_hover(row) for row in records(rows)],
        hovertemplate="%{y}: %{text}<extra></extra>",
    )


def _group_points(result: RefinementResult, place: dict[str, str]) -> go.Scatter:
    groups = rows_of(result.per_group(), place)
    return go.Scatter(
        x=100 * groups.difference,
        y=[plain(_name(result, row)) for row in records(groups)],
        mode="markers",
        marker={"size": 6, "color": GREY, "symbol": "circle-open"},
        text=[plain(f"group {row['group']}, {row['n']} samples") for row in records(groups)],
        hovertemplate="%{y}, %{text}: %{x:+.1f}<extra></extra>",
    )


def _heat_maps(result: RefinementResult, own: pd.DataFrame, pair: tuple[str, str]) -> go.Figure:
    """Accuracy change over two parameters, one panel per model and data, on one scale that is symmetric around 0."""
    shown, (across, up) = places(result), sorted(pair, key=lambda name: name == "k")
    figure = panels([panel_name(result, place) for place in shown], horizontal_spacing=0.1)
    table = own.merge(result.parameters, on=list(result.axes))
    top = max(float(100 * table.difference.abs().max()), 0.1)
    for column, place in enumerate(shown, start=1):
        figure.add_trace(_heat(rows_of(table, place), across, up), row=1, col=column)
    bar = colour_bar("accuracy change,<br>points")
    scale: dict[str, Any] = {"colorscale": DIVERGING, "cmin": -top, "cmax": top, "colorbar": bar}
    figure.update_xaxes(type="category", title_text=NAMES.get(across, across))
    figure.update_yaxes(type="category", showgrid=False)
    figure.update_yaxes(title_text=NAMES.get(up, up), col=1)
    return laid_out(figure, 190 + 44 * len(set(table[up])), columns=len(shown), coloraxis=scale)


def _heat(rows: pd.DataFrame, across: str, up: str) -> go.Heatmap:
    x, y = sorted(set(rows[across])), sorted(set(rows[up]))
    grid, hover = np.full((len(y), len(x)), np.nan), np.full((len(y), len(x)), "", dtype=object)
    for row in records(rows):
        spot = y.index(row[up]), x.index(row[across])
        grid[spot], hover[spot] = 100 * row["difference"], _hover(row)
    return go.Heatmap(
        x=[f"{value:g}" for value in x],
        y=[f"{value:g}" for value in y],
        z=grid,
        text=[["" if np.isnan(value) else signed(value, 1) for value in line] for line in grid],
        texttemplate="%{text}",
        customdata=hover,
        coloraxis="coloraxis",
        xgap=2,
        ygap=2,
        hoverongaps=False,
        hovertemplate=f"{plain(up)} = %{{y}}, {plain(across)} = %{{x}}<br>%{{customdata}}<extra></extra>",
    )


def _hover(row: dict[str, Any]) -> str:
    """“+2.5 points [−1.0, 6.2] · 80 samples, 40 groups”."""
    value, _, ends = estimate(row, of=DIFFERENCE, scale=100, digits=1, sign=True).partition(" ")
    few = ", too few for an interval" if row["n_groups"] < MIN_GROUPS else ""
    return f"{value} points {ends}".rstrip() + f" · {row['n']} samples, {row['n_groups']} groups{few}"


def _name(result: RefinementResult, row: dict[str, Any]) -> str:
    """A cell's labels besides model and data."""
    shown = [axis for axis in varying(result.cells) if axis not in PLACE] or ["method"]
    return " · ".join(str(row[axis]) for axis in shown)
