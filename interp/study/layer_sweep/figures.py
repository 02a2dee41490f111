"""Plotly figures from a result's frames."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pandas as pd
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from interp.metrics import METRICS
from interp.report.html import capital, safe
from interp.stats import MIN_GROUPS
from interp.study.dataframes import rows_of, where

if TYPE_CHECKING:
    from interp.study.layer_choice import LayerChoice
    from interp.study.layer_sweep.result import Cell, Result

__all__ = ["FONT", "GREY", "PALETTE", "cell_name", "key", "layer_figures"]

PALETTE = ("#3b82f6", "#f97316", "#10b981", "#a855f7", "#eab308", "#ec4899")
GREY = "#8a909c"
NULLS = {"shuffled_boxes": ("shuffled boxes", "dash"), "centre_prior": ("centre prior", "dot")}
FONT = "Inter, system-ui, -apple-system, 'Segoe UI', Roboto, sans-serif"


def cell_name(result: Result, cell: Cell, *, without: tuple[str, ...] = ()) -> str:
    """A cell's labels on those axes along which the result varies; its data when it varies along none."""
    shown = [axis for axis in result.axes if len({other.labels[axis] for other in result.cells}) > 1]
    shown = [axis for axis in shown if axis not in without] or ["data"]
    return " · ".join(cell.labels[axis] for axis in shown)


def layer_figures(result: Result, choice: LayerChoice | None = None) -> dict[str, go.Figure]:
    """One figure per metric: mean over samples per layer, one panel per model.

    A band is the 95 % bootstrap interval over groups; with fewer than 20 groups there is a thin line per
    group instead. Dashed and dotted grey lines are the two nulls, tinted like the data they belong to.
    """
    return {metric: _figure(result, metric, choice) for metric in result.metrics}


def _figure(result: Result, metric: str, choice: LayerChoice | None) -> go.Figure:
    models = list(dict.fromkeys(cell.labels["model"] for cell in result.cells))
    titles = [safe(model) for model in models] if len(models) > 1 else None
    figure = make_subplots(rows=1, cols=len(models), shared_yaxes=True, subplot_titles=titles)
    for cell in result.cells:
        column = models.index(cell.labels["model"]) + 1
        name = cell_name(result, cell, without=("model",))
        traces = _cell_traces(result, cell, metric, name, _colour(result, cell), legend=column == 1)
        figure.add_traces(traces, rows=1, cols=column)
    _add_legend_of_nulls(figure)
    _add_references(figure, metric, models, choice)
    _lay_out(figure, metric, sorted(result.scores.layer.unique().tolist()))
    return figure


def _cell_traces(
    result: Result, cell: Cell, metric: str, name: str, colour: str, *, legend: bool
) -> list[go.Scatter]:
    part = _rows(result.summary(), cell, metric)
    own = where(part, part.control == "boxes")
    few = bool(len(own)) and int(own.n_groups.max()) < MIN_GROUPS
    spread = _group_lines(result, cell, metric, name, colour) if few else [_band(own, name, colour)]
    nulls = [
        _null(where(part, part.control == control), f"{name} · {label}", dash, colour)
        for control, (label, dash) in NULLS.items()
        if (part.control == control).any()
    ]
    return [*spread, *nulls, _line(own, name, colour, legend)]


def key(result: Result, cell: Cell) -> str:
    """The square of a cell's colour, as markup."""
    return f'<span class="key" style="background:{_colour(result, cell)}"></span>'


def _colour(result: Result, cell: Cell) -> str:
    """One colour for each combination of labels other than the model's."""
    names = list(dict.fromkeys(cell_name(result, other, without=("model",)) for other in result.cells))
    return PALETTE[names.index(cell_name(result, cell, without=("model",))) % len(PALETTE)]


def _line(own: pd.DataFrame, name: str, colour: str, legend: bool) -> go.Scatter:
    counts = own[["low", "high", "n", "n_groups"]].to_numpy()
    return go.Scatter(
        x=own.layer,
        y=own["mean"],
        customdata=counts,
        mode="lines+markers",
        name=safe(name),
        legendgroup=name,
        showlegend=legend,
        line={"color": colour, "width": 2.5},
        marker={"size": 6, "color": colour},
        hovertemplate="%{y:.3f} [%{customdata[0]:.3f}, %{customdata[1]:.3f}] · %{customdata[2]} samples, "
        "%{customdata[3]} groups",
    )


def _band(own: pd.DataFrame, name: str, colour: str) -> go.Scatter:
    outline = pd.concat([own, own[::-1]])
    edges = pd.concat([own.high, own.low[::-1]])
    return go.Scatter(
        x=outline.layer,
        y=edges,
        fill="toself",
        fillcolor=_mixed(colour, None, 0.18),
        line={"width": 0},
        mode="lines",
        name=safe(f"{name} 95 %"),
        legendgroup=name,
        showlegend=False,
        hoverinfo="skip",
    )


def _group_lines(result: Result, cell: Cell, metric: str, name: str, colour: str) -> list[go.Scatter]:
    scores = _rows(result.scores, cell, metric)
    means = scores[scores.control == "boxes"].groupby(["group", "layer"]).value.mean().reset_index()
    return [
        go.Scatter(
            x=part.layer,
            y=part.value,
            mode="lines",
            line={"color": _mixed(colour, None, 0.35), "width": 1},
            name=safe(f"{name} · group {group}"),
            legendgroup=name,
            showlegend=False,
            hoverinfo="skip",
        )
        for group, part in means.groupby("group")
    ]


def _null(part: pd.DataFrame, name: str, dash: str, colour: str) -> go.Scatter:
    return go.Scatter(
        x=part.layer,
        y=part["mean"],
        mode="lines",
        name=safe(name),
        showlegend=False,
        line={"color": _mixed(GREY, colour, 0.7), "width": 1.5, "dash": dash},
        hovertemplate="%{y:.3f}",
    )


def _add_legend_of_nulls(figure: go.Figure) -> None:
    for label, dash in NULLS.values():
        line = {"color": GREY, "width": 1.5, "dash": dash}
        figure.add_trace(go.Scatter(x=[None], y=[None], mode="lines", name=label, line=line))


def _add_references(figure: go.Figure, metric: str, models: list[str], choice: LayerChoice | None) -> None:
    chance = METRICS[metric].chance_value
    if chance is not None:
        note = {"text": "even attention", "font": {"size": 11, "color": GREY}}
        figure.add_hline(
            y=chance, line={"color": GREY, "width": 1}, annotation=note, annotation_position="bottom right"
        )
    for column, model in enumerate(models, start=1):
        if choice is not None and model in choice.layers:
            line = {"color": GREY, "width": 1, "dash": "dot"}
            note = {"text": f"layer {choice.layers[model]}", "font": {"size": 11, "color": GREY}}
            place: dict[str, Any] = {"row": 1, "col": column, "annotation_position": "top"}
            figure.add_vline(x=choice.layers[model], line=line, annotation=note, **place)


def _lay_out(figure: go.Figure, metric: str, layers: list[int]) -> None:
    described = METRICS[metric]
    arrow = "↑" if described.better == "higher" else "↓"
    figure.update_layout(
        template="plotly_white",
        height=360,
        margin={"l": 60, "r": 16, "t": 58, "b": 96},
        title={
            "text": safe(capital(described.label)),
            "x": 0.0,
            "xanchor": "left",
            "y": 0.97,
            "yanchor": "top",
            "font": {"size": 16},
        },
        paper_bgcolor="rgba(0,0,0,0)",
        plot_bgcolor="rgba(0,0,0,0)",
        font={"family": FONT, "size": 13},
        hovermode="x unified",
        legend={"orientation": "h", "y": -0.3, "x": 0, "font": {"size": 12}},
    )
    figure.update_xaxes(
        title={"text": "layer", "standoff": 6},
        dtick=_tick(layers),
        showgrid=False,
        zeroline=False,
        ticks="outside",
    )
    figure.update_yaxes(zeroline=False)
    figure.update_yaxes(title_text=f"{described.better} is better {arrow}", col=1)


def _rows(frame: pd.DataFrame, cell: Cell, metric: str) -> pd.DataFrame:
    """The rows of one cell and metric."""
    own = rows_of(frame, cell.labels)
    return where(own, own.metric == metric)


def _tick(layers: list[int]) -> int:
    """Label about a dozen layers."""
    return max(1, (max(layers, default=0) + 1) // 12)


def _mixed(colour: str, other: str | None, share: float) -> str:
    """A colour mixed with another, or made see-through when there is no other; `share` is of the first."""
    first = [int(colour[place : place + 2], 16) for place in (1, 3, 5)]
    if other is None:
        return f"rgba({first[0]},{first[1]},{first[2]},{share})"
    second = [int(other[place : place + 2], 16) for place in (1, 3, 5)]
    red, green, blue = (round(share * a + (1 - share) * b) for a, b in zip(first, second, strict=True))
    return f"rgb({red},{green},{blue})"
