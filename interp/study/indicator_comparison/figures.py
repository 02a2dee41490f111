"""Figures of a comparison of indicators: points with intervals, curves, costs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from plotly.colors import qualitative
from plotly.subplots import make_subplots

from interp.metrics import METRICS
from interp.report.html import safe
from interp.stats import MIN_GROUPS
from interp.study.dataframes import records, rows_of, where
from interp.study.indicator_comparison.costs import PLAIN
from interp.study.indicator_comparison.paired_tests import baselines, better
from interp.study.indicator_comparison.removal_curves import CURVES
from interp.study.indicator_comparison.task import QUESTION, WEIGHTS
from interp.study.layer_sweep.figures import FONT, GREY, PALETTE

if TYPE_CHECKING:
    from interp.study.indicator_comparison.result import IndicatorCell, IndicatorResult

__all__ = ["agreement_figure", "cell_name", "colours", "indicator_figures", "matrix_figure", "measured_cells"]

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


MANY = (*PALETTE, *qualitative.Dark24)
SYMBOLS = ("circle", "diamond-open", "square-open", "x")
ACROSS = 2
TICKS = [10.0**power * step for power in range(-3, 6) for step in (1, 3)]


def indicator_figures(result: IndicatorResult) -> dict[str, go.Figure]:
    """ "localisation", "pareto", "sanity" over all cells; "agreement-1", "curves-1", "matrix-1" … one per cell."""
    figures = {"localisation": localisation_figure(result), "pareto": pareto_figure(result)}
    if result.scores.measure.isin([WEIGHTS, QUESTION]).any():
        figures["sanity"] = sanity_figure(result)
    for place, cell in enumerate(measured_cells(result), start=1):
        if cell.study.agreement:
            figures[f"agreement-{place}"] = agreement_figure(result, cell)
        if len(rows_of(result.curves, cell.labels)):
            figures[f"curves-{place}"] = curves_figure(result, cell)
            figures[f"matrix-{place}"] = matrix_figure(result, cell)
    return figures


def measured_cells(result: IndicatorResult) -> list[IndicatorCell]:
    """The cells in which something could be measured."""
    return [cell for cell in result.cells if cell.measured]


def cell_name(result: IndicatorResult, cell: IndicatorCell) -> str:
    """A cell's labels on the axes that vary; its model and data when it is alone."""
    shown = [axis for axis in result.axes if len({other.labels[axis] for other in result.cells}) > 1]
    return " · ".join(cell.labels[axis] for axis in shown or ("model", "data"))


def colours(result: IndicatorResult) -> dict[str, str]:
    """One colour per indicator; maps that know nothing are grey."""
    nothing = {label for cell in result.cells for label in baselines(cell.study)}
    rest = [label for label in result.indicators if label not in nothing]
    named = {label: MANY[place % len(MANY)] for place, label in enumerate(rest)}
    return {**named, **dict.fromkeys(sorted(nothing), GREY)}


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
            _line_at(figure, chance, column)
    figure.update_xaxes(title={"text": _axis_title(chosen), "standoff": 6}, zeroline=False, matches="x")
    figure.update_layout(**look(150 + 27 * len(result.indicators)), showlegend=False)
    return figure


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
            trace = _points(
                result, rows, name, place, legend=column == 1, colour=PALETTE[place % len(PALETTE)]
            )
            figure.add_trace(trace, row=1, col=column)
        _line_at(figure, 0.0, column)
    figure.update_xaxes(
        title={"text": "rank correlation with the map", "standoff": 6}, zeroline=False, matches="x"
    )
    figure.update_layout(**look(180 + 27 * len(result.indicators)))
    return figure


def pareto_figure(result: IndicatorResult, metric: str | None = None) -> go.Figure:
    """The first metric against the time of a map, in plain forwards; the line joins what nothing beats on both."""
    chosen = metric or result.metrics[0]
    cells, summary, costs = measured_cells(result), result.summary(), result.costs()
    n_rows, n_columns = -(-len(cells) // ACROSS), min(ACROSS, len(cells))
    titles = [safe(cell_name(result, cell)) for cell in cells] if len(cells) > 1 else None
    figure = make_subplots(
        rows=n_rows,
        cols=n_columns,
        subplot_titles=titles,
        horizontal_spacing=0.08,
        vertical_spacing=0.3 / (n_rows + 1),
    )
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
    figure.update_xaxes(
        type="log",
        title={"text": "seconds, in plain forwards", "standoff": 4},
        tickvals=TICKS,
        ticktext=[f"{tick:g}" for tick in TICKS],
        ticks="outside",
    )
    figure.update_yaxes(title_text=_axis_title(chosen))
    figure.update_layout(**look(160 + 380 * n_rows))
    figure.update_layout(margin={"b": 130})
    return figure


def _front(result: IndicatorResult, table: pd.DataFrame, higher: bool, *, legend: bool) -> list[go.Scatter]:
    """The line, and a point per indicator; those on the line are named, the others by the legend."""
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
    points = [
        _point(result, where(ordered, ordered.indicator == label), side=_side(label, kept), legend=legend)
        for label in result.indicators
        if (ordered.indicator == label).any()
    ]
    return [line, *points]


def _side(label: str, kept: list[str]) -> str:
    """Where a point's name stands, so that those of neighbours differ; empty for one that is not on the line."""
    sides = ("bottom right", "top left")
    return sides[kept.index(label) % 2] if label in kept else ""


def _point(result: IndicatorResult, row: pd.DataFrame, *, side: str, legend: bool) -> go.Scatter:
    (label,) = row.indicator
    return go.Scatter(
        x=row.seconds_ratio,
        y=row["mean"],
        mode="markers+text" if side else "markers",
        text=[safe(label)],
        name=safe(label),
        legendgroup=safe(label),
        showlegend=legend,
        textposition=side or "top center",
        textfont={"size": 11},
        cliponaxis=False,
        marker={"size": 9, "color": colours(result)[label]},
        error_y=_bars(row, colour=GREY, thickness=1),
        customdata=row[["forwards", "backwards", "tokens"]].to_numpy(float),
        hovertemplate="%{text}: %{y:.3f} at %{x:.2f} plain forwards in time; per sample %{customdata[0]:.2f} forwards, "
        "%{customdata[1]:.2f} backwards, %{customdata[2]:.0f} token positions<extra></extra>",
    )


def curves_figure(result: IndicatorResult, cell: IndicatorCell) -> go.Figure:
    """Mean height of the target over the share of tokens, a line per indicator: deletion above, insertion below."""
    frame = rows_of(result.curves, cell.labels)
    removals = list(dict.fromkeys(frame.removal))
    means = (
        frame.groupby(["indicator", "removal", "curve", "fraction"], sort=False).height.mean().reset_index()
    )
    figure = make_subplots(
        rows=len(CURVES),
        cols=len(removals),
        shared_yaxes=True,
        shared_xaxes=True,
        column_titles=[safe(f"taken away by: {name}") for name in removals],
        vertical_spacing=0.08,
        horizontal_spacing=0.03,
    )
    colour, nothing = colours(result), baselines(cell.study)
    for row, curve in enumerate(CURVES, start=1):
        for column, removal in enumerate(removals, start=1):
            here = where(means, (means.removal == removal) & (means.curve == curve))
            for label in (one for one in cell.study.indicators if (here.indicator == one).any()):
                own = where(here, here.indicator == label)
                dash = ("dash", "dot")[nothing.index(label) % 2] if label in nothing else "solid"
                figure.add_trace(
                    go.Scatter(
                        x=100 * own.fraction,
                        y=own.height,
                        mode="lines",
                        name=safe(label),
                        legendgroup=safe(label),
                        showlegend=row == column == 1,
                        line={"color": colour[label], "width": 1.8, "dash": dash},
                        hovertemplate=f"{safe(label)}: %{{y:.2f}} at %{{x:.0f}} %<extra></extra>",
                    ),
                    row=row,
                    col=column,
                )
    for row, words in enumerate(("deletion: of the target left", "insertion: of the target back"), start=1):
        figure.update_yaxes(title_text=words, row=row, col=1)
    for column in range(1, len(removals) + 1):
        figure.update_xaxes(
            title={"text": "% taken away (above), kept (below)", "standoff": 4}, row=2, col=column
        )
    figure.update_layout(**look(620), hovermode="closest")
    figure.update_layout(margin={"b": 110})
    return figure


def _panels(
    result: IndicatorResult, cells: list[IndicatorCell], more: Mapping[tuple[str, ...], str] | None = None
) -> go.Figure:
    """A panel per cell; `more` is a second line of its title."""
    below = more or {}
    lines = "<br>" if len(cells) > ACROSS else " · "
    titles = [safe(cell_name(result, cell)).replace(" · ", lines) + below.get(cell.key, "") for cell in cells]
    titles = titles if len(cells) > 1 or below else None
    figure = make_subplots(
        rows=1, cols=len(cells), shared_yaxes=True, subplot_titles=titles, horizontal_spacing=0.02
    )
    figure.update_annotations(font_size=13)
    figure.update_yaxes(
        autorange="reversed",
        categoryorder="array",
        categoryarray=[safe(label) for label in result.indicators],
        showgrid=True,
    )
    return figure


def _truths(cell: IndicatorCell) -> str:
    """The symbols of a panel with several truths."""
    signs = "●◇□×"
    named = (f"{signs[place % len(signs)]} {safe(truth)}" for place, truth in enumerate(cell.study.truth))
    return f"<br><span style='font-size:11px'>{'  '.join(named)}</span>"


def _points(
    result: IndicatorResult, rows: pd.DataFrame, name: str, place: int, *, legend: bool, colour: str = ""
) -> go.Scatter:
    """Means with intervals, a row per indicator; the first kind filled, others open."""
    order = {label: number for number, label in enumerate(result.indicators)}
    rows = rows.sort_values("indicator", key=lambda labels: labels.map(order))
    own = colours(result)
    paint: Any = colour or [own[label] for label in rows.indicator]
    return go.Scatter(
        x=rows["mean"],
        y=[safe(label) for label in rows.indicator],
        mode="markers",
        name=safe(name),
        legendgroup=safe(name),
        showlegend=legend,
        marker={"size": 9, "color": paint, "symbol": SYMBOLS[place % len(SYMBOLS)]},
        error_x=_bars(rows, colour=colour or GREY, thickness=1.5),
        customdata=np.stack(
            [rows[part].to_numpy(float) for part in ("low", "high", "n", "n_groups")], axis=-1
        ),
        hovertemplate=f"%{{y}}, {safe(name)}: %{{x:.3f}} [%{{customdata[0]:.3f}}, %{{customdata[1]:.3f}}] · "
        "%{customdata[2]} samples, %{customdata[3]} groups<extra></extra>",
    )


def _bars(rows: pd.DataFrame, *, colour: str, thickness: float) -> dict[str, Any]:
    """Intervals; none where the groups are too few for one."""
    value, low, high = (rows[part].to_numpy(float) for part in ("mean", "low", "high"))
    few = rows.n_groups.to_numpy() < MIN_GROUPS
    low, high = (np.where(few, value, ends) for ends in (low, high))
    return {
        "array": high - value,
        "arrayminus": value - low,
        "thickness": thickness,
        "width": 3,
        "color": colour,
    }


def _line_at(figure: go.Figure, x: float, column: int) -> None:
    place: dict[str, Any] = {"row": 1, "col": column}
    figure.add_vline(x=x, line={"color": GREY, "width": 1, "dash": "dot"}, **place)


def _axis_title(metric: str) -> str:
    arrow = "↑" if METRICS[metric].better == "higher" else "↓"
    return f"{METRICS[metric].label} {arrow}"


def look(height: int) -> dict[str, Any]:
    """The layout that all of these figures share."""
    return {
        "template": "plotly_white",
        "height": height,
        "margin": {"l": 56, "r": 24, "t": 64, "b": 80},
        "paper_bgcolor": "rgba(0,0,0,0)",
        "plot_bgcolor": "rgba(0,0,0,0)",
        "font": {"family": FONT, "size": 13},
        "legend": {
            "orientation": "h",
            "yref": "container",
            "y": 0,
            "yanchor": "bottom",
            "x": 0,
            "font": {"size": 12},
        },
    }
