"""Heat maps of a comparison of indicators: who agrees with whom, and who is borne out under which removal."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from interp.report.figures import FONT
from interp.report.words import safe
from interp.study.frames import records, rows_of, where

if TYPE_CHECKING:
    from interp.study.indicator_result import IndicatorCell, IndicatorResult

__all__ = ["agreement_figure", "matrix_figure"]

AREAS = {"deletion": "deletion area ↓", "insertion": "insertion area ↑"}


def agreement_figure(result: IndicatorResult, cell: IndicatorCell) -> go.Figure:
    """Mean rank correlation of every two indicators' maps of the same sample."""
    measure = cell.study.agreement[0]
    rows = rows_of(result.agreement(measure), cell.labels)
    labels = [one for one in cell.study.indicators if one in {*rows.indicator, *rows.against}]
    grid = np.full((len(labels), len(labels)), np.nan)
    np.fill_diagonal(grid, 1.0)
    hover = np.full(grid.shape, "", dtype=object)
    for row in records(rows):
        i, j = labels.index(row["indicator"]), labels.index(row["against"])
        grid[i, j] = grid[j, i] = row["mean"]
        hover[i, j] = hover[j, i] = f"[{row['low']:.2f}, {row['high']:.2f}], {row['n']} samples"
    named = [safe(label) for label in labels]
    figure = go.Figure(
        go.Heatmap(
            x=named,
            y=named,
            z=grid,
            text=_texts(grid),
            texttemplate="%{text}",
            textfont={"size": 10},
            customdata=hover,
            colorscale="RdBu",
            zmin=-1,
            zmax=1,
            xgap=1,
            ygap=1,
            hoverongaps=False,
            colorbar={"title": {"text": f"{measure}, mean", "side": "right"}, "thickness": 12},
            hovertemplate="%{y} with %{x}: %{z:.2f} %{customdata}<extra></extra>",
        )
    )
    figure.update_yaxes(autorange="reversed", ticks="outside")
    figure.update_xaxes(ticks="outside", tickangle=-40)
    figure.update_layout(**_look(190 + 27 * len(labels)))
    return figure


def matrix_figure(result: IndicatorResult, cell: IndicatorCell) -> go.Figure:
    """Areas of deletion and insertion curves, indicators × removals; framed on an indicator's own removal."""
    rows = rows_of(result.faithfulness(), cell.labels)
    removals = [removal.name for removal in cell.study.removals]
    labels = [one for one in cell.study.indicators if (rows.indicator == one).any()]
    figure = make_subplots(
        rows=1,
        cols=len(AREAS),
        shared_yaxes=True,
        subplot_titles=list(AREAS.values()),
        horizontal_spacing=0.04,
    )
    for column, measure in enumerate(AREAS, start=1):
        own = where(rows, rows.measure == measure)
        figure.add_trace(_areas(own, labels, removals, measure), row=1, col=column)
        for row in (one for one in records(own) if one["own"]):
            x, y = removals.index(row["against"]), labels.index(row["indicator"])
            figure.add_shape(
                type="rect",
                x0=x - 0.48,
                x1=x + 0.48,
                y0=y - 0.46,
                y1=y + 0.46,
                line={"color": "#111827", "width": 3},
                row=1,
                col=column,
            )
    figure.update_yaxes(autorange="reversed", showgrid=False)
    figure.update_xaxes(showgrid=False, side="bottom")
    figure.update_layout(**_look(150 + 27 * len(labels)))
    return figure


def _areas(rows: pd.DataFrame, labels: list[str], removals: list[str], measure: str) -> go.Heatmap:
    grid = np.full((len(labels), len(removals)), np.nan)
    hover = np.full(grid.shape, "", dtype=object)
    for row in records(rows):
        spot = labels.index(row["indicator"]), removals.index(row["against"])
        grid[spot] = row["mean"]
        own = "; the indicator's own kind of removal" if row["own"] else ""
        hover[spot] = (
            f"[{row['low']:.2f}, {row['high']:.2f}], {row['n']} samples, {row['n_undefined']} undefined{own}"
        )
    return go.Heatmap(
        x=[safe(name) for name in removals],
        y=[safe(label) for label in labels],
        z=grid,
        text=_texts(grid),
        texttemplate="%{text}",
        customdata=hover,
        colorscale="Blues_r" if measure == "deletion" else "Blues",
        showscale=False,
        xgap=2,
        ygap=2,
        hoverongaps=False,
        hovertemplate="%{y}, %{x}: %{z:.3f} %{customdata}<extra></extra>",
    )


def _texts(grid: np.ndarray) -> list[list[str]]:
    return [
        ["" if np.isnan(value) else f"{round(value, 2) + 0.0:.2f}".replace("-", "−") for value in line]
        for line in grid
    ]


def _look(height: int) -> dict[str, Any]:
    return {
        "template": "plotly_white",
        "height": height,
        "margin": {"l": 56, "r": 16, "t": 40, "b": 60},
        "paper_bgcolor": "rgba(0,0,0,0)",
        "plot_bgcolor": "rgba(0,0,0,0)",
        "font": {"family": FONT, "size": 13},
    }
