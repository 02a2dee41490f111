"""Figures of head rankings: layers × heads heat maps on one scale, and one ranking against another."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from interp.errors import StudyError
from interp.metrics import METRICS, Metric
from interp.report.html import safe
from interp.study.dataframes import where

if TYPE_CHECKING:
    from interp.study.head_ranking.result import HeadResult

__all__ = ["head_figures", "heat_maps", "rank_scatter", "result_names"]

FONT = "Inter, system-ui, -apple-system, 'Segoe UI', Roboto, sans-serif"
GREY = "#8a909c"
RED = "#f43f5e"
MARK = {"symbol": "circle-open", "size": 9, "color": RED, "line": {"width": 2}}
WORST = 0.98  # the colour scale ends at this quantile on the bad side, where a few silent heads lie far off


def head_figures(results: Sequence[HeadResult], k: int = 20) -> dict[str, go.Figure]:
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
    """
    metrics = {result.study.metric for result in results}
    if len(metrics) > 1:
        raise StudyError(f"one colour scale needs one metric; got {', '.join(sorted(metrics))}.")
    metric = METRICS[metrics.pop()]
    names = result_names(results)
    titles = [safe(name) for name in names]
    figure = make_subplots(rows=1, cols=len(results), subplot_titles=titles, horizontal_spacing=0.07)
    for column, result in enumerate(results, start=1):
        figure.add_trace(_heat(result), row=1, col=column)
        figure.add_trace(_marks(result, k, legend=column == 1), row=1, col=column)
    scale = _scale(metric, *_range(results, metric.better))
    figure.update_layout(**_look(460), coloraxis=scale, legend={"orientation": "h", "y": -0.16, "x": 0})
    figure.update_xaxes(
        title={"text": "layer", "standoff": 6}, showgrid=False, zeroline=False, ticks="outside"
    )
    figure.update_yaxes(showgrid=False, zeroline=False, ticks="outside")
    figure.update_yaxes(title_text="head", col=1)
    for place, axes in enumerate((figure.select_xaxes(), figure.select_yaxes())):
        found = [head[place] for result in results for head in result.means.heads]
        first, last = min(found), max(found)
        for axis in axes:  # about ten labels; the range is given because marks at an edge would widen it
            axis.update(tick0=0, dtick=max(1, (last + 1) // 10), range=[first - 0.5, last + 0.5])
    return figure


def rank_scatter(a: HeadResult, b: HeadResult, k: int = 20) -> go.Figure:
    """Each head's rank in `a` against its rank in `b`, 1 = best, coloured by layer; the shared top k shaded."""
    names = result_names((a, b))
    both = _ranks(a).merge(_ranks(b), on=["layer", "head"], suffixes=("_a", "_b"))
    both = where(both, (both.rank_a > 0) & (both.rank_b > 0))
    figure = go.Figure(_points(both))
    square: dict[str, Any] = {"x0": 0.5, "y0": 0.5, "x1": k + 0.5, "y1": k + 0.5}
    look: dict[str, Any] = {"line": {"width": 1, "color": RED}, "fillcolor": "rgba(244,63,94,0.16)"}
    figure.add_shape(type="rect", **square, **look)
    end = len(both) + 0.5
    line: dict[str, Any] = {"color": GREY, "width": 1, "dash": "dot"}
    figure.add_shape(type="line", x0=0.5, y0=0.5, x1=end, y1=end, line=line)
    figure.update_layout(**_look(460))
    axis: dict[str, Any] = {
        "showgrid": False,
        "zeroline": False,
        "ticks": "outside",
        "range": [-0.5, end + 1],
    }
    figure.update_xaxes(
        title={"text": f"rank in {safe(names[0])} (1 = best)", "standoff": 6}, constrain="domain", **axis
    )
    figure.update_yaxes(
        title={"text": f"rank in {safe(names[1])}"}, scaleanchor="x", constrain="domain", **axis
    )
    return figure


def _points(both: pd.DataFrame) -> go.Scatter:
    """One point per head that both results rank."""
    return go.Scatter(
        x=both.rank_a,
        y=both.rank_b,
        customdata=both[["layer", "head"]],
        mode="markers",
        marker={
            "size": 9 if len(both) < 200 else 6,
            "color": both.layer,
            "colorscale": "Viridis",
            "line": {"width": 0.5, "color": GREY},
            "colorbar": {"title": {"text": "layer", "side": "right"}, "thickness": 12, "outlinewidth": 0},
        },
        showlegend=False,
        hovertemplate="layer %{customdata[0]}, head %{customdata[1]}<br>rank %{x} and %{y}<extra></extra>",
    )


def _heat(result: HeadResult) -> go.Heatmap:
    ranked = result.ranked
    layers, heads = sorted(ranked.layer.unique()), sorted(ranked["head"].unique())
    grids = {
        name: ranked.pivot(index="head", columns="layer", values=name).loc[heads, layers].to_numpy()
        for name in ("mean", "low", "high", "rank")
    }
    return go.Heatmap(
        x=[int(layer) for layer in layers],
        y=[int(head) for head in heads],
        z=grids["mean"],
        customdata=np.stack([grids["low"], grids["high"], grids["rank"]], axis=-1),
        coloraxis="coloraxis",
        xgap=1,
        ygap=1,
        hoverongaps=False,
        hovertemplate="layer %{x}, head %{y}: %{z:.3f} [%{customdata[0]:.3f}, %{customdata[1]:.3f}], "
        "rank %{customdata[2]}<extra></extra>",
    )


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


def _ranks(result: HeadResult) -> pd.DataFrame:
    return pd.DataFrame(result.ranked[["layer", "head", "rank"]])


def _range(results: Sequence[HeadResult], better: str) -> tuple[float, float]:
    """Ends of the shared scale: the best head's mean, and the 98th percentile towards the bad side."""
    means = np.concatenate([result.ranked["mean"].dropna().to_numpy() for result in results])
    if better == "lower":
        return float(means.min()), float(np.quantile(means, WORST))
    return float(np.quantile(means, 1 - WORST)), float(means.max())


def _scale(metric: Metric, low: float, high: float) -> dict[str, Any]:
    """The shared colour axis with five ticks; the one where the scale is cut says so."""
    lower = metric.better == "lower"
    values = np.linspace(low, high, 5)
    texts = [f"{value:.2f}" for value in values]
    cut = -1 if lower else 0
    texts[cut] = f"{'≥' if lower else '≤'} {texts[cut]}"
    return {
        "colorscale": "Viridis",
        "reversescale": lower,
        "cmin": low,
        "cmax": high,
        "colorbar": {
            "title": {"text": f"{safe(metric.label)}, {metric.better} is better", "side": "right"},
            "thickness": 12,
            "outlinewidth": 0,
            "tickvals": values.tolist(),
            "ticktext": texts,
        },
    }


def _look(height: int) -> dict[str, Any]:
    return {
        "template": "plotly_white",
        "height": height,
        "margin": {"l": 56, "r": 16, "t": 40, "b": 70},
        "paper_bgcolor": "rgba(0,0,0,0)",
        "plot_bgcolor": "rgba(0,0,0,0)",
        "font": {"family": FONT, "size": 13},
    }
