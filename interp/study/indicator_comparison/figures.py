"""Figures of a comparison of indicators: points with intervals, curves, costs, agreement, faithfulness."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from interp.metrics import METRICS
from interp.report.figures import (
    DIVERGING,
    GREY,
    SHADES,
    Figures,
    colour_bar,
    interval_arms,
    laid_out,
    metric_axis,
    panels,
    plain,
    points,
    reference_line,
    series_colour,
)
from interp.report.tables import cell_name, count, interval, number
from interp.study.dataframes import records, rows_of, where
from interp.study.indicator_comparison.indicator_maps import PLAIN
from interp.study.indicator_comparison.paired_tests import baselines, better
from interp.study.indicator_comparison.removal_curves import CURVES
from interp.study.indicator_comparison.task import QUESTION, WEIGHTS

if TYPE_CHECKING:
    from interp.study.indicator_comparison.result import IndicatorCell, IndicatorResult

__all__ = ["colours", "figures", "measured_cells", "name_of"]

SYMBOLS = ("circle", "diamond-open", "square-open", "x")
SIGNS = "●◇□×"
"""The symbols as text."""
ACROSS = 2
TICKS = [10.0**power * step for power in range(-3, 6) for step in (1, 3)]
AREAS = {"deletion": "deletion area ↓", "insertion": "insertion area ↑"}
FRAME = "#111827"


def figures(result: IndicatorResult) -> Figures:
    """ "localisation", "pareto" and "sanity" over all cells; "agreement-1", "curves-1", "matrix-1", … one per cell."""
    found = {"localisation": localisation_figure(result), "pareto": pareto_figure(result)}
    if result.scores.measure.isin([WEIGHTS, QUESTION]).any():
        found["sanity"] = sanity_figure(result)
    for place, cell in enumerate(measured_cells(result), start=1):
        if cell.study.agreement:
            found[f"agreement-{place}"] = agreement_figure(result, cell)
        if len(rows_of(result.curves, cell.labels)):
            found[f"curves-{place}"] = curves_figure(result, cell)
            found[f"matrix-{place}"] = matrix_figure(result, cell)
    return found


def measured_cells(result: IndicatorResult) -> list[IndicatorCell]:
    """The cells in which something could be measured."""
    return [cell for cell in result.cells if cell.measured]


def name_of(result: IndicatorResult, cell: IndicatorCell) -> str:
    """A cell's labels on the axes that vary; its model and data if it is the only cell."""
    return cell_name(result.cells, cell, ("model", "data"))


def colours(result: IndicatorResult) -> dict[str, str]:
    """One colour per indicator; baselines that do not use the model are grey."""
    grey = {label for cell in result.cells for label in baselines(cell.study)}
    rest = [label for label in result.indicators if label not in grey]
    return {label: series_colour(rest.index(label)) if label in rest else GREY for label in result.indicators}


def localisation_figure(result: IndicatorResult, metric: str | None = None) -> go.Figure:
    """The first metric (or another) of every indicator against each truth, with intervals; a panel per cell."""
    chosen = metric or result.metrics[0]
    cells, summary = measured_cells(result), result.summary()
    figure = _panels(result, cells, {cell.key: _truths(cell) for cell in cells if len(cell.study.truth) > 1})
    for column, cell in enumerate(cells, start=1):
        own = rows_of(summary, cell.labels)
        for place, truth in enumerate(cell.study.truth):
            rows = where(own, (own.measure == chosen) & (own.against == truth))
            figure.add_trace(_points(result, rows, truth, place, legend=column == 1), row=1, col=column)
        chance = METRICS[chosen].chance_value
        if chance is not None:
            reference_line(figure, x=chance, row=1, col=column)
    figure.update_xaxes(title_text=metric_axis(chosen), matches="x")
    layout: Any = figure.layout
    layout.xaxis.matches = None  # the other axes match the first; an axis that matches itself is an error
    height = 150 + 27 * len(result.indicators)
    return laid_out(figure, height, columns=len(cells), showlegend=False, margin={"t": 72})


def sanity_figure(result: IndicatorResult) -> go.Figure:
    """Rank correlation of each indicator's map with its map after a change that should matter; a panel per cell."""
    cells, summary = measured_cells(result), result.summary()
    figure = _panels(result, cells)
    stages = where(summary, (summary.measure == WEIGHTS) | (summary.against == "spearman"))
    stages = where(stages, stages.measure.isin([WEIGHTS, QUESTION]))
    names = list(dict.fromkeys(zip(stages.measure, stages.against, strict=True)))
    for column, cell in enumerate(cells, start=1):
        own = rows_of(stages, cell.labels)
        for place, (measure, against) in enumerate(names):
            rows = where(own, (own.measure == measure) & (own.against == against))
            name = "another question" if measure == QUESTION else f"shuffled: {against}"
            paint = series_colour(place)
            trace = _points(result, rows, name, place, legend=column == 1, colour=paint)
            figure.add_trace(trace, row=1, col=column)
        reference_line(figure, x=0.0, row=1, col=column)
    title = "rank correlation with the unchanged map,<br>nearer 0 depends more on the change"
    figure.update_xaxes(
        title_text=title if len(cells) == 1 else "rank correlation with the unchanged map", matches="x"
    )
    layout: Any = figure.layout
    layout.xaxis.matches = None
    return laid_out(figure, 200 + 27 * len(result.indicators), columns=len(cells), margin={"t": 64, "b": 100})


def pareto_figure(result: IndicatorResult, metric: str | None = None) -> go.Figure:
    """The first metric against a map's time in plain forwards; the line joins indicators that none beats in both."""
    chosen = metric or result.metrics[0]
    cells, summary, costs = measured_cells(result), result.summary(), result.costs()
    n_rows, n_columns = -(-len(cells) // ACROSS), min(ACROSS, len(cells))
    titles = [name_of(result, cell) for cell in cells] if len(cells) > 1 else [""]
    spacing = {"horizontal_spacing": 0.08, "vertical_spacing": 0.42 / (n_rows + 1)}
    figure = panels(titles, rows=n_rows, columns=n_columns, **spacing)
    for place, cell in enumerate(cells):
        at: dict[str, Any] = {"row": place // n_columns + 1, "col": place % n_columns + 1}
        own = rows_of(summary, cell.labels)
        own = where(own, (own.measure == chosen) & (own.against == cell.study.truth[0]))
        paid = rows_of(costs, cell.labels) if len(costs) else costs
        if len(paid):
            table = own.merge(where(paid, paid.indicator != PLAIN), on="indicator")
            table = where(table, table.seconds_ratio.notna() & table["mean"].notna())
            for trace in _front(result, table, better(chosen) == "higher", legend=place == 0):
                figure.add_trace(trace, **at)
    ticks: dict[str, Any] = {"type": "log", "tickvals": TICKS, "ticktext": [f"{tick:g}" for tick in TICKS]}
    figure.update_xaxes(title_text="seconds, in plain forwards<br>(lower is better ←)", **ticks)
    figure.update_yaxes(title_text=metric_axis(chosen), col=1)
    return laid_out(figure, 180 + 380 * n_rows, columns=n_columns, margin={"b": 140})


def _front(result: IndicatorResult, table: pd.DataFrame, higher: bool, *, legend: bool) -> list[go.Scatter]:
    """The line and one point per indicator; labels name the points on the line, the legend names all."""
    ordered = table.sort_values(["seconds_ratio", "mean"], ascending=[True, not higher])
    best, kept = -np.inf, []
    for row in records(ordered):
        value = row["mean"] if higher else -row["mean"]
        if value > best:
            best = value
            kept.append(row["indicator"])
    on_line = where(ordered, ordered.indicator.isin(kept))
    line = go.Scatter(
        x=on_line.seconds_ratio,
        y=on_line["mean"],
        mode="lines",
        line={"color": GREY, "width": 1.5, "dash": "dot", "shape": "hv"},
        hoverinfo="skip",
        showlegend=False,
    )
    dots = [
        _dot(result, where(ordered, ordered.indicator == label), side=_side(label, kept), legend=legend)
        for label in result.indicators
        if (ordered.indicator == label).any()
    ]
    return [line, *dots]


def _side(label: str, kept: list[str]) -> str:
    """Where to write a point's name, alternating between neighbours; empty for a point that is off the line."""
    sides = ("bottom right", "top left")
    return sides[kept.index(label) % 2] if label in kept else ""


def _dot(result: IndicatorResult, row: pd.DataFrame, *, side: str, legend: bool) -> go.Scatter:
    (label,) = row.indicator
    place = result.indicators.index(label)
    return go.Scatter(
        x=row.seconds_ratio,
        y=row["mean"],
        mode="markers+text" if side else "markers",
        text=[plain(label)],
        name=plain(label),
        legendgroup=plain(label),
        showlegend=legend,
        textposition=side or "top center",
        textfont={"size": 11},
        cliponaxis=False,
        marker={
            "size": 9,
            "color": colours(result)[label],
            "symbol": ("circle", "square", "diamond")[place % 3],
        },
        error_y={**interval_arms(row), "thickness": 1, "width": 3, "color": GREY},
        customdata=row[["forwards", "backwards", "tokens"]].to_numpy(float),
        hovertemplate="%{text}: %{y:.3f} at %{x:.2f} plain forwards in time; per sample %{customdata[0]:.2f} forwards, "
        "%{customdata[1]:.2f} backwards, %{customdata[2]:.0f} token positions<extra></extra>",
    )


def curves_figure(result: IndicatorResult, cell: IndicatorCell) -> go.Figure:
    """Mean height of the target by the share of tokens, one line per indicator: deletion above, insertion below."""
    frame = rows_of(result.curves, cell.labels)
    removals = list(dict.fromkeys(frame.removal))
    keys = ["indicator", "removal", "curve", "fraction"]
    means = frame.groupby(keys, sort=False).height.mean().reset_index()
    titles: dict[str, Any] = {"column_titles": [plain(f"removed by: {name}") for name in removals]}
    shared: dict[str, Any] = {"shared_yaxes": True, "shared_xaxes": True, "vertical_spacing": 0.08}
    figure = panels((), rows=len(CURVES), columns=len(removals), horizontal_spacing=0.03, **titles, **shared)
    for row, curve in enumerate(CURVES, start=1):
        for column, removal in enumerate(removals, start=1):
            here = where(means, (means.removal == removal) & (means.curve == curve))
            for label in (one for one in cell.study.indicators if (here.indicator == one).any()):
                own = where(here, here.indicator == label)
                trace = _height(result, cell, own, label, legend=row == column == 1)
                figure.add_trace(trace, row=row, col=column)
    labels = (
        "deletion: target left,<br>lower is better ↓",
        "insertion: target back,<br>higher is better ↑",
    )
    for row, words in enumerate(labels, start=1):
        figure.update_yaxes(title_text=words, row=row, col=1)
    figure.update_xaxes(title_text="tokens removed (above)<br>or kept (below), %", row=2)
    return laid_out(figure, 640, columns=len(removals), margin={"l": 84, "b": 120})


def _height(
    result: IndicatorResult, cell: IndicatorCell, own: pd.DataFrame, label: str, *, legend: bool
) -> go.Scatter:
    """One indicator's curve; baselines are dashed or dotted."""
    grey = baselines(cell.study)
    dash = ("dash", "dot")[grey.index(label) % 2] if label in grey else "solid"
    return go.Scatter(
        x=100 * own.fraction,
        y=own.height,
        mode="lines",
        name=plain(label),
        legendgroup=plain(label),
        showlegend=legend,
        line={"color": colours(result)[label], "width": 1.8, "dash": dash},
        hovertemplate=f"{plain(label)}: %{{y:.2f}} at %{{x:.0f}} %<extra></extra>",
    )


def agreement_figure(result: IndicatorResult, cell: IndicatorCell) -> go.Figure:
    """Mean rank correlation of each pair of indicators' maps of the same sample."""
    measure = cell.study.agreement[0]
    rows = rows_of(result.agreement(measure), cell.labels)
    labels = [one for one in cell.study.indicators if one in {*rows.indicator, *rows.against}]
    grid = np.full((len(labels), len(labels)), np.nan)
    np.fill_diagonal(grid, 1.0)
    hover = np.full(grid.shape, "", dtype=object)
    for row in records(rows):
        i, j = labels.index(row["indicator"]), labels.index(row["against"])
        grid[i, j] = grid[j, i] = row["mean"]
        hover[i, j] = hover[j, i] = f"{interval(row['low'], row['high'])}, {count(row['n'], 'sample')}"
    cells = _matrix(grid, hover, labels, labels, "%{y} with %{x}: %{z:.2f} %{customdata}")
    scale: dict[str, Any] = {
        "colorscale": DIVERGING,
        "zmin": -1,
        "zmax": 1,
        "colorbar": colour_bar(f"{measure}, mean"),
    }
    figure = go.Figure(cells.update(**scale, xgap=1, ygap=1, textfont={"size": 10}))
    figure.update_yaxes(autorange="reversed", showgrid=False)
    figure.update_xaxes(tickangle=-40)
    return laid_out(figure, 190 + 27 * len(labels), meta={"min_width": 120 + 34 * len(labels)})


def matrix_figure(result: IndicatorResult, cell: IndicatorCell) -> go.Figure:
    """Areas of deletion and insertion curves, indicators × removals; framed on an indicator's own removal."""
    rows = rows_of(result.faithfulness(), cell.labels)
    removals = [removal.name for removal in cell.study.removals]
    labels = [one for one in cell.study.indicators if (rows.indicator == one).any()]
    figure = panels(list(AREAS.values()), shared_yaxes=True, horizontal_spacing=0.04)
    line = {"color": FRAME, "width": 3}
    for column, measure in enumerate(AREAS, start=1):
        own = where(rows, rows.measure == measure)
        figure.add_trace(_areas(own, labels, removals, measure), row=1, col=column)
        for row in (one for one in records(own) if one["own"]):
            x, y = removals.index(row["against"]), labels.index(row["indicator"])
            corners: dict[str, Any] = {"x0": x - 0.48, "x1": x + 0.48, "y0": y - 0.46, "y1": y + 0.46}
            figure.add_shape(type="rect", **corners, line=line, row=1, col=column)
    figure.update_yaxes(autorange="reversed", showgrid=False)
    figure.update_xaxes(title_text="how tokens<br>are removed")
    return laid_out(figure, 186 + 27 * len(labels), columns=2)


def _areas(rows: pd.DataFrame, labels: list[str], removals: list[str], measure: str) -> go.Heatmap:
    grid = np.full((len(labels), len(removals)), np.nan)
    hover = np.full(grid.shape, "", dtype=object)
    for row in records(rows):
        spot = labels.index(row["indicator"]), removals.index(row["against"])
        grid[spot] = row["mean"]
        own = "; the indicator's own kind of removal" if row["own"] else ""
        counts = f"{count(row['n'], 'sample')}, {row['n_undefined']} undefined{own}"
        hover[spot] = f"{interval(row['low'], row['high'])}, {counts}"
    cells = _matrix(grid, hover, removals, labels, "%{y}, %{x}: %{z:.3f} %{customdata}")
    return cells.update(
        colorscale=f"{SHADES}_r" if measure == "deletion" else SHADES, showscale=False, xgap=2, ygap=2
    )


def _matrix(grid: np.ndarray, hover: np.ndarray, x: list[str], y: list[str], template: str) -> go.Heatmap:
    """A heat map with its numbers written in."""
    return go.Heatmap(
        x=[plain(name) for name in x],
        y=[plain(name) for name in y],
        z=grid,
        text=[["" if np.isnan(value) else number(value) for value in line] for line in grid],
        texttemplate="%{text}",
        customdata=hover,
        hoverongaps=False,
        hovertemplate=f"{template}<extra></extra>",
    )


def _panels(
    result: IndicatorResult, cells: list[IndicatorCell], more: Mapping[tuple[str, ...], str] | None = None
) -> go.Figure:
    """A panel per cell; `more` is a second line of its title."""
    below = more or {}
    lines = "\n" if len(cells) > ACROSS else " · "
    titles = [name_of(result, cell).replace(" · ", lines) + below.get(cell.key, "") for cell in cells]
    titles = titles if len(cells) > 1 or below else [""]
    figure = panels(titles, shared_yaxes=True, horizontal_spacing=0.02)
    order = [plain(label) for label in result.indicators]
    figure.update_yaxes(autorange="reversed", categoryorder="array", categoryarray=order)
    return figure


def _truths(cell: IndicatorCell) -> str:
    """The symbols of a panel with several truths."""
    named = (f"{SIGNS[place % len(SIGNS)]} {truth}" for place, truth in enumerate(cell.study.truth))
    return "\n" + "  ".join(named)


def _points(
    result: IndicatorResult, rows: pd.DataFrame, name: str, place: int, *, legend: bool, colour: str = ""
) -> go.Scatter:
    """Means with intervals, one row per indicator; the first truth has filled symbols, others open ones."""
    order = {label: number for number, label in enumerate(result.indicators)}
    rows = rows.sort_values("indicator", key=lambda labels: labels.map(order))
    own = colours(result)
    paint: Any = colour or [own[label] for label in rows.indicator]
    ends = [rows[part].to_numpy(float) for part in ("low", "high", "n", "n_groups")]
    return points(
        rows,
        rows.indicator.tolist(),
        marker={"size": 9, "color": paint, "symbol": SYMBOLS[place % len(SYMBOLS)]},
        arms={"thickness": 1.5, "width": 3, "color": colour or GREY},
        name=plain(name),
        legendgroup=plain(name),
        showlegend=legend,
        customdata=np.stack(ends, axis=-1),
        hovertemplate=f"%{{y}}, {plain(name)}: %{{x:.3f}} [%{{customdata[0]:.3f}}, %{{customdata[1]:.3f}}] · "
        "samples: %{customdata[2]}, groups: %{customdata[3]}<extra></extra>",
    )
