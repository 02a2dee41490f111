"""Figures of head rankings: layers × heads heat maps on one scale, and one ranking against another."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from interp.errors import StudyError
from interp.metrics import METRICS
from interp.report.figures import (
    GREY,
    HIGHLIGHT,
    SEQUENTIAL,
    Figures,
    clear,
    colour_bar,
    cut_ticks,
    heat,
    laid_out,
    panels,
    plain,
    ticks_at,
)
from interp.study.dataframes import where

if TYPE_CHECKING:
    from interp.study.head_ranking.result import HeadResult

__all__ = ["heat_maps", "rank_scatter", "ranking_figures", "result_names"]

MARK = {"symbol": "circle-open", "size": 9, "color": HIGHLIGHT, "line": {"width": 2}}
BELOW = {"orientation": "h", "y": -0.16, "yanchor": "top", "len": 0.8}
"""A colour bar below a square figure, which is narrower than its place."""
WORST = 0.98
"""The colour scale ends at this quantile on the bad side, where a few silent heads lie far off."""


def ranking_figures(results: Sequence[HeadResult], k: int = 20) -> Figures:
    """ "heads": a heat map per result; "ranks", "ranks-2", …: the first result's ranks against each other's.

    Raises:
        StudyError: Results by different metrics.
    """
    found = {"heads": heat_maps(results, k)}
    for place, other in enumerate(results[1:], start=1):
        found["ranks" if place == 1 else f"ranks-{place}"] = rank_scatter(results[0], other, k)
    return found


def result_names(results: Sequence[HeadResult]) -> tuple[str, ...]:
    """What tells the results apart: a name of their own, their data, or model and data where those are alike."""
    names = tuple(result.name or result.study.data.name for result in results)
    return names if len(set(names)) == len(names) else tuple(result.study.label for result in results)


def heat_maps(results: Sequence[HeadResult], k: int = 20) -> go.Figure:
    """Mean score of every head, one panel per result on one colour scale, light = good, top k circled.

    Layers from left to right, heads from bottom to top; a head without a score is left blank. On the bad side
    the scale ends at the 98th percentile of all heads.

    Raises:
        StudyError: Results by different metrics.
    """
    metrics = {result.study.metric for result in results}
    if len(metrics) > 1:
        raise StudyError(f"one colour scale needs one metric; got {', '.join(sorted(metrics))}.")
    figure = panels(result_names(results), horizontal_spacing=0.07)
    hover = ": %{z:.3f} [%{customdata[0]:.3f}, %{customdata[1]:.3f}], rank %{customdata[2]}"
    for column, result in enumerate(results, start=1):
        cells = heat(result.ranked, "mean", more=("low", "high", "rank"), hover=hover)
        figure.add_trace(cells, row=1, col=column)
        figure.add_trace(_marks(result, k, legend=column == 1), row=1, col=column)
    figure.update_xaxes(title_text="layer")
    figure.update_yaxes(showgrid=False)
    figure.update_yaxes(title_text="head", col=1)
    for place, axes in enumerate((figure.select_xaxes(), figure.select_yaxes())):
        found = [pair[place] for result in results for pair in result.means.heads]
        ends = [min(found) - 0.5, max(found) + 0.5]  # given, because marks at an edge would widen the range
        for axis in axes:
            axis.update(**ticks_at(found, 10), range=ends)
    return laid_out(figure, 460, columns=len(results), coloraxis=_scale(results, metrics.pop()))


def _marks(result: HeadResult, k: int, *, legend: bool) -> go.Scatter:
    best = result.best(k)
    return go.Scatter(
        x=best.layer,
        y=best["head"],
        mode="markers",
        marker=MARK,
        name=f"top {k}",
        legendgroup="top",
        showlegend=legend,
        hoverinfo="skip",
    )


def _scale(results: Sequence[HeadResult], metric: str) -> dict[str, Any]:
    """The shared colour axis: from the best head's mean to the 98th percentile towards the bad side."""
    means = np.concatenate([result.ranked["mean"].dropna().to_numpy() for result in results])
    described = METRICS[metric]
    lower = described.better == "lower"
    low = float(means.min() if lower else np.quantile(means, 1 - WORST))
    high = float(np.quantile(means, WORST) if lower else means.max())
    title = f"{plain(described.label)}, {described.better} is better"
    bar = colour_bar(title, **cut_ticks(low, high, cut_high=lower))
    return {"colorscale": SEQUENTIAL, "reversescale": lower, "cmin": low, "cmax": high, "colorbar": bar}


def rank_scatter(a: HeadResult, b: HeadResult, k: int = 20) -> go.Figure:
    """Each head's rank in `a` against its rank in `b`, 1 = best, coloured by layer; the shared top k shaded."""
    names = result_names((a, b))
    ranks = [pd.DataFrame(one.ranked[["layer", "head", "rank"]]) for one in (a, b)]
    both = ranks[0].merge(ranks[1], on=["layer", "head"], suffixes=("_a", "_b"))
    both = where(both, (both.rank_a > 0) & (both.rank_b > 0))
    marker = {
        "size": 9 if len(both) < 200 else 6,
        "color": both.layer,
        "colorscale": SEQUENTIAL,
        "line": {"width": 0.5, "color": GREY},
        "colorbar": colour_bar("layer", **ticks_at(both.layer, 8), **BELOW),
    }
    hover = "layer %{customdata[0]}, head %{customdata[1]}<br>rank %{x} and %{y}<extra></extra>"
    figure = go.Figure(
        go.Scatter(
            x=both.rank_a,
            y=both.rank_b,
            customdata=both[["layer", "head"]],
            mode="markers",
            marker=marker,
            showlegend=False,
            hovertemplate=hover,
        )
    )
    end = len(both) + 0.5
    square: dict[str, Any] = {"x0": 0.5, "y0": 0.5, "x1": k + 0.5, "y1": k + 0.5}
    edge: dict[str, Any] = {"width": 1, "color": HIGHLIGHT}
    figure.add_shape(type="rect", **square, line=edge, fillcolor=clear(HIGHLIGHT, 0.16))
    dotted: dict[str, Any] = {"color": GREY, "width": 1, "dash": "dot"}
    figure.add_shape(type="line", x0=0.5, y0=0.5, x1=end, y1=end, line=dotted)
    axis: dict[str, Any] = {"showgrid": False, "range": [-0.5, end + 1], "constrain": "domain"}
    figure.update_xaxes(title_text=f"rank in {plain(names[0])} (1 = best)", **axis)
    figure.update_yaxes(title_text=f"rank in {plain(names[1])} (1 = best)", scaleanchor="x", **axis)
    return laid_out(figure, 540, margin={"b": 130})
