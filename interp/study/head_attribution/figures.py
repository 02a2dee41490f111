"""Figures of a head attribution: direct effect, total effect and attention by head, and one against another."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from interp.report.html import safe
from interp.stats import MIN_GROUPS
from interp.study.dataframes import where
from interp.study.layer_sweep.figures import FONT, GREY, PALETTE

__all__ = ["COLUMNS", "head_maps", "head_scatter", "part_bars"]

COLUMNS = {"direct": "direct effect, logits", "total": "total effect, logits", "ar": "attention ratio"}
"""Column of the table of heads → its caption."""
PARTS = {"attention": PALETTE[0], "mlp": PALETTE[1], "embedding": PALETTE[2]}


def head_maps(heads: pd.DataFrame) -> go.Figure:
    """A row per data set: direct effect, total effect (one scale around 0), attention ratio.

    Args:
        heads: columns data, layer, head, and of each of `COLUMNS` its mean, `_low` and `_high`.
    """
    sets = list(dict.fromkeys(heads.data))
    columns = _measured(heads)
    titles = [safe(f"{data}: {COLUMNS[name]}") for data in sets for name in columns]
    figure = make_subplots(
        rows=len(sets),
        cols=len(columns),
        subplot_titles=titles,
        horizontal_spacing=0.05,
        vertical_spacing=0.14,
    )
    most = float(heads[["direct", "total"]].abs().to_numpy().max())
    for row, data in enumerate(sets, start=1):
        for column, name in enumerate(columns, start=1):
            figure.add_trace(_heat(where(heads, heads.data == data), name), row=row, col=column)
    bar: dict[str, Any] = {"thickness": 10, "outlinewidth": 0, "len": 0.9}
    figure.update_layout(
        **_look(110 + 260 * len(sets)),
        coloraxis={
            "colorscale": "RdBu",
            "cmin": -most,
            "cmax": most,
            "colorbar": {**bar, "x": 1.02, "title": "logits"},
        },
        coloraxis2={"colorscale": "Viridis", "colorbar": {**bar, "x": 1.1, "title": "AR"}},
    )
    figure.update_layout(margin={"r": 130})
    figure.update_xaxes(title={"text": "layer", "standoff": 4}, showgrid=False, zeroline=False)
    figure.update_yaxes(showgrid=False, zeroline=False)
    figure.update_yaxes(title_text="head", col=1)
    figure.update_annotations(font={"size": 12})
    return figure


def _measured(heads: pd.DataFrame) -> list[str]:
    """Which of the columns hold anything."""
    return [name for name in COLUMNS if name in heads and not np.isnan(heads[name].to_numpy(float)).all()]


def _heat(heads: pd.DataFrame, name: str) -> go.Heatmap:
    def grid(column: str) -> np.ndarray:
        return heads.pivot(index="head", columns="layer", values=column).to_numpy()

    return go.Heatmap(
        x=sorted(heads.layer.unique().tolist()),
        y=sorted(heads["head"].unique().tolist()),
        z=grid(name),
        customdata=np.stack([grid(f"{name}_low"), grid(f"{name}_high")], axis=-1),
        coloraxis="coloraxis2" if name == "ar" else "coloraxis",
        xgap=1,
        ygap=1,
        hovertemplate="layer %{x}, head %{y}: %{z:.3f} [%{customdata[0]:.3f}, %{customdata[1]:.3f}]<extra></extra>",
    )


def head_scatter(heads: pd.DataFrame) -> go.Figure:
    """Each head's total effect, and its attention ratio, against its direct effect; coloured by layer."""
    sets = list(dict.fromkeys(heads.data))
    rows = [name for name in _measured(heads) if name != "direct"]
    figure = make_subplots(
        rows=len(rows),
        cols=len(sets),
        subplot_titles=[safe(one) for one in sets],
        shared_xaxes=True,
        vertical_spacing=0.06,
    )
    for column, data in enumerate(sets, start=1):
        own = where(heads, heads.data == data)
        for row, name in enumerate(rows, start=1):
            figure.add_trace(_points(own, name), row=row, col=column)
        ends = [float(own.direct.min()), float(own.direct.max())]
        line = go.Scatter(
            x=ends, y=ends, mode="lines", line={"color": GREY, "dash": "dot", "width": 1}, showlegend=False
        )
        figure.add_trace(line, row=1, col=column)
        figure.update_xaxes(title_text="direct effect, logits", row=len(rows), col=column)
    for row, name in enumerate(rows, start=1):
        figure.update_yaxes(title_text=COLUMNS[name], row=row, col=1)
    bar = {"title": "layer", "thickness": 10, "outlinewidth": 0}
    figure.update_layout(**_look(90 + 270 * len(rows)), coloraxis={"colorscale": "Viridis", "colorbar": bar})
    return figure


def _points(heads: pd.DataFrame, name: str) -> go.Scatter:
    return go.Scatter(
        x=heads.direct,
        y=heads[name],
        customdata=heads[["layer", "head"]],
        mode="markers",
        marker={
            "size": 9,
            "color": heads.layer,
            "coloraxis": "coloraxis",
            "line": {"width": 0.5, "color": GREY},
        },
        showlegend=False,
        hovertemplate="layer %{customdata[0]}, head %{customdata[1]}<br>%{x:.3f}, %{y:.3f}<extra></extra>",
    )


def part_bars(parts: pd.DataFrame) -> go.Figure:
    """Share of the logit by layer: all heads of a layer, its MLP, and the embedding (layer −1), with intervals.

    Args:
        parts: columns data, part, layer, mean, low, high, n_groups; too few groups have no interval.
    """
    sets = list(dict.fromkeys(parts.data))
    figure = make_subplots(
        rows=1, cols=len(sets), subplot_titles=[safe(one) for one in sets], shared_yaxes=True
    )
    for column, data in enumerate(sets, start=1):
        for part, colour in PARTS.items():
            own = where(parts, (parts.data == data) & (parts.part == part))
            few = own.n_groups < MIN_GROUPS  # no interval there
            high, low = (own.high - own["mean"]).mask(few, 0), (own["mean"] - own.low).mask(few, 0)
            arms = {"type": "data", "array": high, "arrayminus": low, "thickness": 1}
            bar = go.Bar(
                x=own.layer,
                y=own["mean"],
                name=part,
                legendgroup=part,
                showlegend=column == 1,
                error_y=arms,
                marker_color=colour,
            )
            figure.add_trace(bar, row=1, col=column)
    figure.update_layout(**_look(340), barmode="group", legend={"orientation": "h", "y": -0.2, "x": 0})
    figure.update_xaxes(
        title={"text": "layer (−1: input)", "standoff": 4}, dtick=1 if parts.layer.max() < 16 else 4
    )
    figure.update_yaxes(title_text="logits above the mean", col=1)
    return figure


def _look(height: int) -> dict[str, Any]:
    return {
        "template": "plotly_white",
        "height": height,
        "margin": {"l": 60, "r": 20, "t": 44, "b": 60},
        "paper_bgcolor": "rgba(0,0,0,0)",
        "plot_bgcolor": "rgba(0,0,0,0)",
        "font": {"family": FONT, "size": 12},
    }
