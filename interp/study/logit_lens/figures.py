"""Lines by layer of a logit-lens sweep: one panel per cell and word."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import pandas as pd
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from interp.report.html import safe
from interp.stats import MIN_GROUPS
from interp.study.dataframes import rows_of, where
from interp.study.layer_sweep.figures import FONT, GREY, PALETTE
from interp.study.logit_lens.task import OTHERS, OWN

if TYPE_CHECKING:
    from interp.study.result import GridResult

__all__ = ["lens_figures"]

LINES = {
    "gap": (("gap", OWN, PALETTE[0], "solid"), ("gap", OTHERS, GREY, "dash")),
    "first": (
        ("first inside", OWN, PALETTE[1], "solid"),
        ("first outside", OWN, GREY, "dot"),
        ("first inside", OTHERS, GREY, "dash"),
    ),
}
"""Figure → its lines: measure, whose word, colour, dash."""
TITLES = {"gap": "log p inside − outside, nats", "first": "tokens that say it first, share"}


def lens_figures(result: GridResult) -> dict[str, go.Figure]:
    """ "gap" and "first": means by layer with bands of 95 % over groups, or a line per group where those are few."""
    return {name: _figure(result, name) for name in LINES}


def _figure(result: GridResult, name: str) -> go.Figure:
    words = list(dict.fromkeys(result.scores.word))
    cells = [cell for cell in result.cells if cell.measured]
    titles = [safe(cell.labels["data"]) for cell in cells]
    options: dict[str, Any] = {"shared_xaxes": True, "shared_yaxes": True, "vertical_spacing": 0.08}
    figure = make_subplots(
        rows=len(words), cols=len(cells), subplot_titles=titles, horizontal_spacing=0.02, **options
    )
    known: set[str] = set()
    for column, cell in enumerate(cells, start=1):
        for row, word in enumerate(words, start=1):
            for trace in _traces(result, dict(cell.labels), word, LINES[name], known):
                figure.add_trace(trace, row=row, col=column)
            figure.add_hline(y=0, line={"color": GREY, "width": 1}, row=row, col=column)  # pyright: ignore[reportArgumentType]
    figure.update_layout(
        template="plotly_white",
        height=150 + 190 * len(words),
        margin={"l": 70, "r": 12, "t": 40, "b": 80},
        paper_bgcolor="rgba(0,0,0,0)",
        plot_bgcolor="rgba(0,0,0,0)",
        font={"family": FONT, "size": 12},
        legend={"orientation": "h", "y": -0.14, "x": 0, "yanchor": "top"},
    )
    figure.update_annotations(font={"size": 12})
    layers = sorted(result.scores.layer.unique().tolist())
    figure.update_xaxes(showgrid=False, zeroline=False, ticks="outside", dtick=max(1, len(layers) // 7))
    figure.update_xaxes(title={"text": "layer (−1: input)", "standoff": 6}, row=len(words))
    for row, word in enumerate(words, start=1):
        figure.update_yaxes(title={"text": f"{word}<br>{TITLES[name]}", "font": {"size": 11}}, row=row, col=1)
    return figure


def _traces(
    result: GridResult, labels: dict[str, str], word: str, lines: Any, known: set[str]
) -> Iterator[go.Scatter]:
    summary, scores = (rows_of(frame, labels) for frame in (result.summary(), result.scores))
    for measure, of, colour, dash in lines:
        own = where(summary, (summary.word == word) & (summary.measure == measure) & (summary.of == of))
        if own.empty:
            continue
        name = f"{measure}, {of}"
        if int(own.n_groups.max()) >= MIN_GROUPS:
            yield _band(own, colour)
        elif dash == "solid":
            kept = (scores.word == word) & (scores.measure == measure) & (scores.of == of)
            yield from _group_lines(where(scores, kept), colour)
        yield go.Scatter(
            x=own.layer,
            y=own["mean"],
            customdata=own[["low", "high", "n", "n_groups"]].to_numpy(),
            mode="lines",
            name=safe(name),
            legendgroup=name,
            showlegend=name not in known,
            line={"color": colour, "width": 2.5 if dash == "solid" else 1.6, "dash": dash},
            hovertemplate="%{y:.3f} [%{customdata[0]:.3f}, %{customdata[1]:.3f}] · %{customdata[2]} samples, "
            "%{customdata[3]} groups",
        )
        known.add(name)


def _band(own: pd.DataFrame, colour: str) -> go.Scatter:
    return go.Scatter(
        x=pd.concat([own.layer, own.layer[::-1]]),
        y=pd.concat([own.high, own.low[::-1]]),
        fill="toself",
        fillcolor=colour,
        opacity=0.18,
        line={"width": 0},
        mode="lines",
        showlegend=False,
        hoverinfo="skip",
    )


def _group_lines(scores: pd.DataFrame, colour: str) -> Iterator[go.Scatter]:
    for _, part in scores.groupby(["group", "layer"]).value.mean().reset_index().groupby("group"):
        yield go.Scatter(
            x=part.layer,
            y=part.value,
            mode="lines",
            line={"color": colour, "width": 1},
            opacity=0.4,
            showlegend=False,
            hoverinfo="skip",
        )
