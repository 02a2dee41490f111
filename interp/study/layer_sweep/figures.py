"""Figures of a layer sweep: each metric over the layers, with its baselines."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pandas as pd
import plotly.graph_objects as go

from interp.metrics import METRICS
from interp.report.figures import (
    GREY,
    Figures,
    curves,
    laid_out,
    level_line,
    metric_axis,
    mixed,
    panels,
    plain,
    reference_line,
    ticks_at,
)
from interp.report.html import capital
from interp.report.html import key as colour_key
from interp.study.dataframes import rows_of

if TYPE_CHECKING:
    from markupsafe import Markup

    from interp.study.layer_choice import LayerChoice
    from interp.study.layer_sweep.result import Cell, Result

__all__ = ["figures", "key"]

MOST_IN_A_ROW, COLUMNS = 4, 3
"""Up to so many models stand side by side; more are in rows of so many."""
BASELINES = {"shuffled_boxes": ("shuffled boxes", "dash"), "centre_prior": ("centre prior", "dot")}


def figures(result: Result, choice: LayerChoice | None = None) -> Figures:
    """One figure per metric: mean over samples per layer, one panel per model, three in a row where they are many.

    A band is the 95 % bootstrap interval over groups; with fewer than 20 groups there is a thin line per
    group instead. Dashed and dotted grey lines are the two baselines, tinted like the data they belong to.
    """
    return {metric: _figure(result, metric, choice) for metric in result.metrics}


def key(result: Result, cell: Cell) -> Markup:
    """The square of a cell's colour."""
    return colour_key(result.series[result.cells.index(cell)][1])


def _figure(result: Result, metric: str, choice: LayerChoice | None) -> go.Figure:
    models = list(dict.fromkeys(cell.labels["model"] for cell in result.cells))
    columns = len(models) if len(models) <= MOST_IN_A_ROW else COLUMNS
    n_rows = -(-len(models) // columns)
    places = {model: {"row": i // columns + 1, "col": i % columns + 1} for i, model in enumerate(models)}
    gap = {"vertical_spacing": 0.3 / n_rows} if n_rows > 1 else {}
    titles = models if len(models) > 1 else [""]
    figure = panels(titles, rows=n_rows, columns=columns, shared_yaxes="all" if n_rows > 1 else True, **gap)
    for cell, (name, colour) in zip(result.cells, result.series, strict=True):
        place = places[cell.labels["model"]]
        traces = _cell_traces(result, cell, metric, name, colour, legend=place == {"row": 1, "col": 1})
        figure.add_traces(traces, rows=place["row"], cols=place["col"])
    for label, dash in BASELINES.values():
        line = {"color": GREY, "width": 1.5, "dash": dash}
        figure.add_trace(go.Scatter(x=[None], y=[None], mode="lines", name=label, line=line))
    chance = METRICS[metric].chance_value
    if chance is not None:
        level_line(figure, chance, "uniform map")
    for model, place in places.items():
        if choice is not None and model in choice.layers:
            layer = choice.layers[model]
            beside = "top right" if len(models) > 1 else "top"  # above it stands the model's name
            reference_line(figure, x=layer, text=f"layer {layer}", at=beside, **place)
    title = {"text": plain(capital(METRICS[metric].label)), "x": 0, "xanchor": "left", "font": {"size": 16}}
    figure.update_xaxes(title_text="layer", **ticks_at(result.scores.layer))
    figure.update_yaxes(title_text=metric_axis(metric), title_font_size=12, col=1)
    return laid_out(
        figure,
        100 + 300 * n_rows,
        columns=columns,
        title=title,
        hovermode="x unified",
        margin={"t": 62, "b": 110},
    )


def _cell_traces(
    result: Result, cell: Cell, metric: str, name: str, colour: str, *, legend: bool
) -> list[go.Scatter]:
    summary, scores = (_by_control(frame, cell, metric) for frame in (result.summary(), result.scores))
    if "boxes" not in summary:  # every sample failed
        return []
    drawn = curves(summary["boxes"], scores["boxes"], name, colour, legend=legend)
    baselines = [
        _baseline(summary[control], f"{name} · {label}", dash, colour)
        for control, (label, dash) in BASELINES.items()
        if control in summary
    ]
    return [*drawn[:-1], *baselines, *drawn[-1:]]


def _baseline(part: pd.DataFrame, name: str, dash: str, colour: str) -> go.Scatter:
    return go.Scatter(
        x=part.layer,
        y=part["mean"],
        mode="lines",
        name=plain(name),
        showlegend=False,
        line={"color": mixed(GREY, colour, 0.7), "width": 1.5, "dash": dash},
        hovertemplate="%{y:.3f}",
    )


def _by_control(frame: pd.DataFrame, cell: Cell, metric: str) -> dict[str, pd.DataFrame]:
    """The rows of one cell and metric, by control."""
    own = rows_of(frame, {**cell.labels, "metric": metric})
    return {str(control): part for control, part in own.groupby("control", sort=False)}
