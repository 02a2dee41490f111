"""Figures of knockout sweeps: information flow over the layers, and a heat map per flow when heads were blocked."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import plotly.graph_objects as go

from interp.report.figures import (
    DIVERGING,
    Figures,
    colour_bar,
    curves,
    heat,
    laid_out,
    panels,
    plain,
    reference_line,
    series_colour,
    ticks_at,
)
from interp.study.dataframes import rows_of, where
from interp.study.knockout_sweep.flows import Flow, control_of

if TYPE_CHECKING:
    from interp.study.knockout_sweep.result import KnockoutResult
    from interp.study.runs import GridCell

__all__ = ["figures", "flow_figure", "head_map"]

PANELS = {
    "relative": "probability of the answer,\nchange in %,\nlower: it matters more ↓",
    "accuracy": "accuracy,\nchange in points,\nlower: it matters more ↓",
}
BAR_TITLE = "probability of the answer,<br>change in %, lower: it matters more"


def figures(result: KnockoutResult) -> Figures:
    """ "flow": the lines of every cell, side by side; by="head" instead "heads", "heads-2", …: one per cell."""
    if not result.by_head:
        return {"flow": flow_figure(result)}
    cells = [cell for cell in result.cells if result.flows(cell)]
    names = ["heads" if place == 1 else f"heads-{place}" for place in range(1, len(cells) + 1)]
    return {name: head_map(result, cell) for name, cell in zip(names, cells, strict=True)}


def flow_figure(result: KnockoutResult) -> go.Figure:
    """Above the mean relative change of the answer's probability, below that of accuracy, by the window's centre.

    One colour per flow; its control, as many image tokens elsewhere, is dashed in the same colour. A band is the
    95 % bootstrap interval over groups; with fewer than 20 groups there is a thin line per group instead.
    """
    cells = [cell for cell in result.cells if result.flows(cell)]
    rows = [name for name in PANELS if (result.scores.measure == name).any()]
    titles = [" · ".join(cell.key) for cell in cells] if len(cells) > 1 else [""]
    shared: dict[str, Any] = {"shared_xaxes": True, "shared_yaxes": True, "vertical_spacing": 0.06}
    figure = panels(titles, rows=len(rows), columns=len(cells), horizontal_spacing=0.04, **shared)
    known: set[str] = set()
    for column, cell in enumerate(cells, start=1):
        for row, measure in enumerate(rows, start=1):
            for trace in _traces(result, cell, measure, known):
                figure.add_trace(trace, row=row, col=column)
            reference_line(figure, y=0, row=row, col=column)
    figure.update_xaxes(**ticks_at(result.passes.layer))
    figure.update_xaxes(title_text="layer at the centre of the blocked window", row=len(rows))
    for row, measure in enumerate(rows, start=1):
        figure.update_yaxes(title_text=plain(PANELS[measure]), title_font_size=12, row=row, col=1)
    return laid_out(
        figure, 180 + 270 * len(rows), columns=len(cells), hovermode="x unified", margin={"l": 84, "b": 110}
    )


def _traces(result: KnockoutResult, cell: GridCell, measure: str, known: set[str]) -> list[go.Scatter]:
    """The bands of the flows, then their lines; the legend names each flow once."""
    flows, colours = result.flows(cell), _colours(result)
    summary, scores = (rows_of(frame, cell.labels) for frame in (result.summary(), result.scores))
    spread, lines = [], []
    for name in flows:
        own, of_samples = (
            where(frame, (frame.flow == name) & (frame.measure == measure)) for frame in (summary, scores)
        )
        dash, legend = "dash" if flows[name].is_control else "solid", name not in known
        found = curves(
            own.sort_values("layer"), of_samples, name, colours[name], dash=dash, legend=legend, digits=1
        )
        spread += found[:-1]
        lines += found[-1:]
        known |= {name} if found else set()
    return [*spread, *lines]


def _colours(result: KnockoutResult) -> dict[str, str]:
    """One colour per flow of any cell; a control has that of the flow it is set against."""
    flows: dict[str, Flow] = {}
    for cell in result.cells:
        flows |= result.flows(cell)
    owners = {control_of(name, flows): name for name in flows}
    leading = [name for name in flows if name not in owners]
    return {name: series_colour(leading.index(owners.get(name, name))) for name in flows}


def head_map(result: KnockoutResult, cell: GridCell) -> go.Figure:
    """Mean relative change of the answer's probability with one head blocked, layers × heads, a panel per flow.

    One colour scale for all panels, symmetric around no change; red: the answer becomes less likely.
    """
    flows = list(result.flows(cell))
    n_columns = min(3, len(flows))
    n_rows = -(-len(flows) // n_columns)
    summary = rows_of(result.summary(), cell.labels)
    summary = where(summary, summary.measure == "relative")
    spacing = {"horizontal_spacing": 0.06, "vertical_spacing": 0.24 / n_rows}
    figure = panels(flows, rows=n_rows, columns=n_columns, **spacing)
    hover = ": %{z:.2f} % [%{customdata[0]:.2f}, %{customdata[1]:.2f}], %{customdata[2]} samples"
    for place, name in enumerate(flows):
        at: dict[str, Any] = {"row": place // n_columns + 1, "col": place % n_columns + 1}
        own = where(summary, summary.flow == name)
        figure.add_trace(heat(own, "mean", more=("low", "high", "n"), hover=hover), **at)
        if at["col"] == 1:
            figure.update_yaxes(title_text="head", **at)
        if place + n_columns >= len(flows):
            figure.update_xaxes(title_text="layer", **at)
    end = float(np.nanmax(np.abs(summary["mean"].to_numpy(float)), initial=0.0)) or 1.0
    figure.update_xaxes(**ticks_at(summary.layer, 8))
    figure.update_yaxes(showgrid=False, **ticks_at(summary["head"], 8))
    scale = {"colorscale": DIVERGING, "cmin": -end, "cmax": end, "colorbar": colour_bar(BAR_TITLE)}
    return laid_out(figure, 140 + 250 * n_rows, columns=n_columns, coloraxis=scale)
