"""Figures of a benchmark: marks of each benchmark, and of each value of a field, before and after."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pandas as pd
import plotly.graph_objects as go

from interp.report.figures import GREY, SERIES, Figures, laid_out, panels, points
from interp.report.tables import estimate, varying
from interp.stats import MIN_GROUPS
from interp.study.dataframes import records, where

if TYPE_CHECKING:
    from interp.study.benchmark.result import BenchmarkResult

__all__ = ["DIFFERENCE", "figures", "stratum_figure"]

DIFFERENCE = ("difference", "low", "high")
LINE = 26
"""Pixels a line of a figure takes."""


def figures(result: BenchmarkResult) -> Figures:
    """ "difference": each cell's change, where something changes; "by-…": the same by each field of the samples."""
    if not any(cell.study.changes for cell in result.cells) or result.main not in result.measures:
        return {}
    summary = result.summary()
    found = {"difference": _differences(result, where(summary, summary.measure == result.main), None)}
    return found | {f"by-{key}": stratum_figure(result, key) for key in result.strata()}


def stratum_figure(result: BenchmarkResult, key: str) -> go.Figure:
    """The change of each value of a field, one panel per model and method."""
    return _differences(result, result.by(key), key)


def _differences(result: BenchmarkResult, found: pd.DataFrame, key: str | None) -> go.Figure:
    """Points with intervals in points of the measure; one panel per method, a line per data set or stratum."""
    axes = [axis for axis in varying(result.cells) if axis != "data" or key is not None] or ["method"]
    changed = [cell for cell in result.cells if cell.measured and cell.study.changes]
    titles = list(dict.fromkeys(" · ".join(cell.labels[axis] for axis in axes) for cell in changed))
    figure = panels(titles, shared_yaxes=True)
    named = pd.Series([" · ".join(row[axis] for axis in axes) for row in records(found)], index=found.index)
    most = 1
    for column, title in enumerate(titles, start=1):
        rows = where(found, named == title)
        most = max(most, len(rows))
        figure.add_trace(_points(rows, key or "data"), row=1, col=column)
    figure.add_vline(x=0, line={"color": GREY, "width": 1})
    figure.update_yaxes(autorange="reversed", showgrid=False)
    name = result.measure_names[result.main]
    figure.update_xaxes(title_text=f"{name},<br>after − before, points<br>(higher is better →)", matches="x")
    layout: Any = figure.layout
    layout.xaxis.matches = None  # the first one leads; an axis that matches itself is an error
    return laid_out(figure, 172 + LINE * most, columns=len(titles), showlegend=False)


def _points(rows: pd.DataFrame, key: str) -> go.Scatter:
    return points(
        rows,
        [str(value) for value in rows[key]],
        of=DIFFERENCE,
        scale=100,
        marker={"size": 9, "color": SERIES[0]},
        arms={"thickness": 2, "width": 5},
        text=[_hover(row) for row in records(rows)],
        hovertemplate="%{y}: %{text}<extra></extra>",
    )


def _hover(row: dict[str, object]) -> str:
    few = "" if int(str(row["n_groups"])) >= MIN_GROUPS else ", too few for an interval"
    words = estimate(row, of=DIFFERENCE, scale=100, digits=1, sign=True)
    return f"{words} points · {row['n']} samples, {row['n_groups']} groups{few}"
