"""Figures of knockout sweeps: information flow over the layers, and a heat map per flow when heads were blocked."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from interp.report.html import safe
from interp.stats import MIN_GROUPS
from interp.study.dataframes import rows_of, where
from interp.study.knockout_sweep.flows import Flow, control_of
from interp.study.layer_sweep.figures import FONT, GREY, PALETTE

if TYPE_CHECKING:
    from interp.study.knockout_sweep.result import KnockoutResult
    from interp.study.runs import GridCell

__all__ = ["flow_figure", "head_map", "knockout_figures"]

PANELS = {"relative": "probability, change in %", "accuracy": "accuracy, points"}
HOVER = "%{y:.1f} [%{customdata[0]:.1f}, %{customdata[1]:.1f}] · %{customdata[2]} samples, %{customdata[3]} groups"


def knockout_figures(result: KnockoutResult) -> dict[str, go.Figure]:
    """ "flow": the lines of every cell, side by side; by="head" instead "heads", "heads-2", …: one per cell."""
    if not result.by_head:
        return {"flow": flow_figure(result)}
    cells = [cell for cell in result.cells if result.flows(cell)]
    return {
        "heads" if place == 1 else f"heads-{place}": head_map(result, cell)
        for place, cell in enumerate(cells, start=1)
    }


def flow_figure(result: KnockoutResult) -> go.Figure:
    """Above the mean relative change of the answer's probability, below that of accuracy, by the window's centre.

    One colour per flow; its control, as many image tokens elsewhere, is dashed in the same colour. A band is the
    95 % bootstrap interval over groups; with fewer than 20 groups there is a thin line per group instead.
    """
    cells = [cell for cell in result.cells if result.flows(cell)]
    rows = [name for name in PANELS if (result.scores.measure == name).any()]
    titles = [safe(" · ".join(cell.key)) for cell in cells] if len(cells) > 1 else None
    options: dict[str, Any] = {"shared_xaxes": True, "shared_yaxes": True, "vertical_spacing": 0.06}
    figure = make_subplots(
        rows=len(rows), cols=len(cells), subplot_titles=titles, horizontal_spacing=0.04, **options
    )
    known: set[str] = set()
    for column, cell in enumerate(cells, start=1):
        for row, measure in enumerate(rows, start=1):
            for trace in _traces(result, cell, measure, known):
                figure.add_trace(trace, row=row, col=column)
            figure.add_hline(y=0, line={"color": GREY, "width": 1}, row=row, col=column)  # pyright: ignore[reportArgumentType]
    _lay_out(figure, rows, len(cells), sorted(result.passes.layer.unique().tolist()))
    return figure


def _traces(result: KnockoutResult, cell: GridCell, measure: str, known: set[str]) -> Iterator[go.Scatter]:
    """The flows' bands, then their lines; a flow's legend stands once."""
    flows, colours = result.flows(cell), _colours(result)
    summary, scores = (rows_of(frame, cell.labels) for frame in (result.summary(), result.scores))
    lines = []
    for name in flows:
        own = where(summary, (summary.flow == name) & (summary.measure == measure)).sort_values("layer")
        if own.empty:
            continue
        dashed = flows[name].is_control
        if int(own.n_groups.max()) >= MIN_GROUPS:
            yield _band(own, name, colours[name])
        elif not dashed:
            values = where(scores, (scores.flow == name) & (scores.measure == measure))
            yield from _group_lines(values, name, colours[name])
        lines.append(_line(own, name, colours[name], dashed=dashed, legend=name not in known))
        known.add(name)
    yield from lines


def _colours(result: KnockoutResult) -> dict[str, str]:
    """One colour per flow of any cell; a control has that of the flow it is set against."""
    flows: dict[str, Flow] = {}
    for cell in result.cells:
        flows |= result.flows(cell)
    owners = {control_of(name, flows): name for name in flows}
    leading = [name for name in flows if name not in owners]
    return {name: PALETTE[leading.index(owners.get(name, name)) % len(PALETTE)] for name in flows}


def _line(own: pd.DataFrame, name: str, colour: str, *, dashed: bool, legend: bool) -> go.Scatter:
    return go.Scatter(
        x=own.layer,
        y=own["mean"],
        customdata=own[["low", "high", "n", "n_groups"]].to_numpy(),
        mode="lines" if dashed else "lines+markers",
        name=safe(name),
        legendgroup=name,
        showlegend=legend,
        line={"color": colour, "width": 1.8 if dashed else 2.5, "dash": "dash" if dashed else "solid"},
        marker={"size": 6, "color": colour},
        hovertemplate=HOVER,
    )


def _band(own: pd.DataFrame, name: str, colour: str) -> go.Scatter:
    outline = pd.concat([own, own[::-1]])
    return go.Scatter(
        x=outline.layer,
        y=pd.concat([own.high, own.low[::-1]]),
        fill="toself",
        fillcolor=_clear(colour, 0.15),
        line={"width": 0},
        mode="lines",
        name=safe(f"{name} 95 %"),
        legendgroup=name,
        showlegend=False,
        hoverinfo="skip",
    )


def _group_lines(values: pd.DataFrame, name: str, colour: str) -> Iterator[go.Scatter]:
    means = values.groupby(["group", "layer"]).value.mean().reset_index()
    for group, part in means.groupby("group"):
        yield go.Scatter(
            x=part.layer,
            y=part.value,
            mode="lines",
            line={"color": _clear(colour, 0.25), "width": 1},
            name=safe(f"{name} · group {group}"),
            legendgroup=name,
            showlegend=False,
            hoverinfo="skip",
        )


def head_map(result: KnockoutResult, cell: GridCell) -> go.Figure:
    """Mean relative change of the answer's probability with one head blocked, layers × heads, a panel per flow.

    One colour scale for all panels, symmetric around no change; red: the answer becomes less likely.
    """
    flows = list(result.flows(cell))
    n_columns = min(3, len(flows))
    n_rows = -(-len(flows) // n_columns)
    summary = rows_of(result.summary(), cell.labels)
    summary = where(summary, summary.measure == "relative")
    figure = make_subplots(
        rows=n_rows,
        cols=n_columns,
        subplot_titles=[safe(name) for name in flows],
        horizontal_spacing=0.06,
        vertical_spacing=0.24 / n_rows,
    )
    for place, name in enumerate(flows):
        at: dict[str, Any] = {"row": place // n_columns + 1, "col": place % n_columns + 1}
        figure.add_trace(_heat(where(summary, summary.flow == name)), **at)
        if at["col"] == 1:
            figure.update_yaxes(title_text="head", **at)
        if place + n_columns >= len(flows):
            figure.update_xaxes(title_text="layer", **at)
    end = float(np.nanmax(np.abs(summary["mean"].to_numpy(float)), initial=0.0)) or 1.0
    bar = {"title": {"text": "probability, change in %", "side": "right"}, "thickness": 12, "outlinewidth": 0}
    figure.update_layout(
        **_look(140 + 250 * n_rows),
        coloraxis={"colorscale": "RdBu", "cmin": -end, "cmax": end, "colorbar": bar},
    )
    figure.update_xaxes(showgrid=False, zeroline=False, ticks="outside", dtick=_tick(summary, "layer"))
    figure.update_yaxes(showgrid=False, zeroline=False, ticks="outside", dtick=_tick(summary, "head"))
    return figure


def _heat(own: pd.DataFrame) -> go.Heatmap:
    grids = {
        name: own.pivot(index="head", columns="layer", values=name) for name in ("mean", "low", "high", "n")
    }
    return go.Heatmap(
        x=[int(layer) for layer in grids["mean"].columns],
        y=[int(head) for head in grids["mean"].index],
        z=grids["mean"].to_numpy(float),
        customdata=np.stack([grids[name].to_numpy(float) for name in ("low", "high", "n")], axis=-1),
        coloraxis="coloraxis",
        xgap=1,
        ygap=1,
        hoverongaps=False,
        hovertemplate="layer %{x}, head %{y}: %{z:.2f} % [%{customdata[0]:.2f}, %{customdata[1]:.2f}], "
        "%{customdata[2]} samples<extra></extra>",
    )


def _lay_out(figure: go.Figure, rows: list[str], n_cells: int, layers: list[int]) -> None:
    figure.update_layout(
        **_look(160 + 270 * len(rows)),
        hovermode="x unified",
        legend={"orientation": "h", "y": -0.13, "x": 0, "font": {"size": 12}},
    )
    figure.update_xaxes(
        showgrid=False, zeroline=False, ticks="outside", dtick=max(1, (max(layers, default=0) + 1) // 12)
    )
    for column in range(1, n_cells + 1):
        title = {"text": "layer in the middle of the blocked window", "standoff": 6}
        figure.update_xaxes(title=title, row=len(rows), col=column)
    figure.update_yaxes(zeroline=False)
    for row, measure in enumerate(rows, start=1):
        figure.update_yaxes(title_text=PANELS[measure], row=row, col=1)


def _tick(frame: pd.DataFrame, name: str) -> int:
    return max(1, (int(frame[name].to_numpy().max()) + 1) // 8)


def _clear(colour: str, share: float) -> str:
    """A colour made see-through."""
    red, green, blue = (int(colour[place : place + 2], 16) for place in (1, 3, 5))
    return f"rgba({red},{green},{blue},{share})"


def _look(height: int) -> dict[str, Any]:
    return {
        "template": "plotly_white",
        "height": height,
        "margin": {"l": 64, "r": 16, "t": 40, "b": 90},
        "paper_bgcolor": "rgba(0,0,0,0)",
        "plot_bgcolor": "rgba(0,0,0,0)",
        "font": {"family": FONT, "size": 13},
    }
