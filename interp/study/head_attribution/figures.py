"""Figures of a head attribution: direct effect, total effect and attention by head, and one against another."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from interp.report.figures import (
    DIVERGING,
    GREY,
    SEQUENTIAL,
    SERIES,
    colour_bar,
    heat,
    interval_arms,
    laid_out,
    panels,
    ticks_at,
)
from interp.study.dataframes import where

__all__ = ["COLUMNS", "head_maps", "head_scatter", "part_bars"]

COLUMNS = {"direct": "direct effect, logits", "total": "total effect, logits", "ar": "attention ratio"}
"""Column of the table of heads → its caption."""
DIRECTIONS = {
    "direct": "higher: for the answer →",
    "total": "higher: for the answer ↑",
    "ar": "higher: inside the boxes ↑",
}
"""Column → which way its axis points."""
PARTS = {"attention": SERIES[0], "mlp": SERIES[1], "embedding": SERIES[2]}


def head_maps(heads: pd.DataFrame) -> go.Figure:
    """A row per data set: direct effect, total effect (one scale around 0), attention ratio.

    Args:
        heads: columns data, layer, head, and of each of `COLUMNS` its mean, `_low` and `_high`.
    """
    sets, columns = list(dict.fromkeys(heads.data)), _measured(heads)
    titles = [f"{data}: {COLUMNS[name]}" for data in sets for name in columns]
    spacing = {"horizontal_spacing": 0.05, "vertical_spacing": 0.5 / (len(sets) + 1)}
    figure = panels(titles, rows=len(sets), columns=len(columns), **spacing)
    hover = ": %{z:.3f} [%{customdata[0]:.3f}, %{customdata[1]:.3f}]"
    for row, data in enumerate(sets, start=1):
        own = where(heads, heads.data == data)
        for column, name in enumerate(columns, start=1):
            axis, more = "coloraxis2" if name == "ar" else "coloraxis", (f"{name}_low", f"{name}_high")
            cells = heat(own, name, more=more, hover=hover, axis=axis)
            figure.add_trace(cells, row=row, col=column)
    most = float(heads[["direct", "total"]].abs().to_numpy().max())
    effects = colour_bar("effect, logits,<br>above 0: for the answer", x=1.02, y=0.75, len=0.5)
    ratio = colour_bar("attention ratio (AR),<br>higher is better", x=1.02, y=0.25, len=0.5)
    figure.update_xaxes(title_text="layer", **ticks_at(heads.layer, 8))
    figure.update_yaxes(showgrid=False, **ticks_at(heads["head"], 8))
    figure.update_yaxes(title_text="head", col=1)
    return laid_out(
        figure,
        130 + 280 * len(sets),
        columns=len(columns),
        coloraxis={"colorscale": DIVERGING, "cmin": -most, "cmax": most, "colorbar": effects},
        coloraxis2={"colorscale": SEQUENTIAL, "colorbar": ratio},
        margin={"r": 120},
    )


def _measured(heads: pd.DataFrame) -> list[str]:
    """The columns that hold anything."""
    return [name for name in COLUMNS if name in heads and not np.isnan(heads[name].to_numpy(float)).all()]


def head_scatter(heads: pd.DataFrame) -> go.Figure:
    """Each head's total effect, and its attention ratio, against its direct effect; coloured by layer."""
    sets = list(dict.fromkeys(heads.data))
    rows = [name for name in _measured(heads) if name != "direct"]
    figure = panels(sets, rows=len(rows), columns=len(sets), shared_xaxes=True, vertical_spacing=0.06)
    for column, data in enumerate(sets, start=1):
        own = where(heads, heads.data == data)
        for row, name in enumerate(rows, start=1):
            figure.add_trace(_dots(own, name), row=row, col=column)
        ends = [float(own.direct.min()), float(own.direct.max())]
        line = {"color": GREY, "dash": "dot", "width": 1}
        figure.add_trace(
            go.Scatter(x=ends, y=ends, mode="lines", line=line, showlegend=False), row=1, col=column
        )
        figure.update_xaxes(
            title_text=f"{COLUMNS['direct']},<br>{DIRECTIONS['direct']}", row=len(rows), col=column
        )
    for row, name in enumerate(rows, start=1):
        figure.update_yaxes(
            title_text=f"{COLUMNS[name]},<br>{DIRECTIONS[name]}", title_font_size=12, row=row, col=1
        )
    scale = {"colorscale": SEQUENTIAL, "colorbar": colour_bar("layer", **ticks_at(heads.layer, 8))}
    return laid_out(figure, 90 + 270 * len(rows), columns=len(sets), coloraxis=scale)


def _dots(heads: pd.DataFrame, name: str) -> go.Scatter:
    edge = {"width": 0.5, "color": GREY}
    return go.Scatter(
        x=heads.direct,
        y=heads[name],
        customdata=heads[["layer", "head"]],
        mode="markers",
        marker={"size": 9, "color": heads.layer, "coloraxis": "coloraxis", "line": edge},
        showlegend=False,
        hovertemplate="layer %{customdata[0]}, head %{customdata[1]}<br>%{x:.3f}, %{y:.3f}<extra></extra>",
    )


def part_bars(parts: pd.DataFrame) -> go.Figure:
    """Share of the logit by layer: all heads of a layer, its MLP, and the embedding (layer −1), with intervals.

    Args:
        parts: columns data, part, layer, mean, low, high, n_groups; too few groups have no interval.
    """
    sets = list(dict.fromkeys(parts.data))
    figure = panels(sets, shared_yaxes=True)
    for column, data in enumerate(sets, start=1):
        for part, colour in PARTS.items():
            own = where(parts, (parts.data == data) & (parts.part == part))
            bars: dict[str, Any] = {"error_y": {**interval_arms(own), "thickness": 1}, "marker_color": colour}
            named: dict[str, Any] = {
                "name": "MLP" if part == "mlp" else part,
                "legendgroup": part,
                "showlegend": column == 1,
            }
            figure.add_trace(go.Bar(x=own.layer, y=own["mean"], **bars, **named), row=1, col=column)
    figure.update_xaxes(title_text="layer (−1: input)", **ticks_at(parts.layer, 10))
    figure.update_yaxes(title_text="part of the answer, logits,<br>above 0: for the answer ↑", col=1)
    return laid_out(figure, 360, columns=len(sets), barmode="group", margin={"b": 90})
