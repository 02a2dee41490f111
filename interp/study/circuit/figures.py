"""Figures of a circuit: the graph from the image to the answer, and how much of the answer it keeps."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from interp.report.figures import (
    GREY,
    SERIES,
    Figures,
    clear,
    interval_arms,
    laid_out,
    panels,
    reference_line,
)
from interp.study.dataframes import records, rows_of, where

if TYPE_CHECKING:
    from interp.study.circuit.result import CircuitResult

__all__ = ["N_DRAWN", "figures"]

N_DRAWN = 40
"""Edges that are drawn."""
NODE = 44
"""Pixels that a node needs beside the next one: a narrow screen scrolls the graph."""
WIDEST = 7.0
FOR, AGAINST = SERIES[0], SERIES[1]


def figures(result: CircuitResult) -> Figures:
    """ "graph", "graph-2", …: the strongest edges, a figure per run; "faithfulness": the share kept by their number."""
    found: Figures = {}
    for number, cell in enumerate((cell for cell in result.cells if cell.measured), start=1):
        own = rows_of(result.edges, cell.labels)
        found["graph" if number == 1 else f"graph-{number}"] = _graph(own.head(N_DRAWN))
    shares = where(result.summary(), result.summary().measure == "share")
    if len(shares):
        found["faithfulness"] = _faithfulness(result, shares)
    return found


def _places(names: list[str]) -> Mapping[str, tuple[float, float]]:
    """Where nodes stand: the layer from left to right, heads from the bottom up, MLPs above, half a layer on."""
    inner = [name for name in names if name.startswith("L")]
    layers = [int(name[1 : name.index("MLP" if "MLP" in name else "H")]) for name in inner]
    heads = [int(name.partition("H")[2]) for name in inner if "MLP" not in name]
    top = max(heads, default=0) + 1.5
    found = {
        name: (layer + 0.5, top) if "MLP" in name else (float(layer), float(name.partition("H")[2]))
        for name, layer in zip(inner, layers, strict=True)
    }
    last, middle = max(layers, default=0) + 1.0, top / 2
    ends = {"image": (-1.0, middle), "text": (-1.0, 0.0), "answer": (last, middle)}
    return {**found, **{name: place for name, place in ends.items() if name in names}}


def _graph(edges: pd.DataFrame) -> go.Figure:
    names = list(dict.fromkeys([*edges.source.astype(str), *edges.receiver.astype(str)]))
    places = _places(names)
    most = float(edges.effect.abs().max()) or 1.0
    figure = go.Figure()
    for row in reversed(edges.to_dict("records")):
        (x0, y0), (x1, y1) = places[str(row["source"])], places[str(row["receiver"])]
        share = abs(row["effect"]) / most
        line = {
            "width": 0.5 + WIDEST * share,
            "color": clear(FOR if row["effect"] > 0 else AGAINST, 0.25 + 0.6 * share),
        }
        along = np.linspace(0, 1, 9)
        text = f"{row['source']} → {row['receiver']}: {row['effect']:+.3f} nats"
        figure.add_scatter(
            x=x0 + (x1 - x0) * along, y=y0 + (y1 - y0) * along, mode="lines", line=line, text=[text] * len(along),
            hovertemplate="%{text}<extra></extra>", showlegend=False,
        )  # fmt: skip
    marker = {"size": 34, "color": "white", "line": {"width": 1.5, "color": GREY}}
    figure.add_scatter(
        x=[places[name][0] for name in names], y=[places[name][1] for name in names], mode="markers+text",
        text=names, textfont={"size": 9}, marker=marker, hoverinfo="skip", showlegend=False,
    )  # fmt: skip
    for name, colour in (("for the answer", FOR), ("against it", AGAINST)):
        figure.add_scatter(x=[None], y=[None], mode="lines", line={"width": 4, "color": colour}, name=name)
    inner = [name for name in names if "H" in name]
    layers = sorted({int(name[1 : name.index("H")]) for name in inner})
    heads = sorted({int(name.partition("H")[2]) for name in inner})
    figure.update_xaxes(title_text="layer →", tickvals=layers, showgrid=False)
    figure.update_yaxes(title_text="head", tickvals=heads, showgrid=False, zeroline=False)
    wide = 160 + NODE * len({round(x, 3) for x, _ in places.values()})
    return laid_out(figure, 560, meta={"min_width": wide})


def _faithfulness(result: CircuitResult, shares: pd.DataFrame) -> go.Figure:
    cells = [cell for cell in result.cells if cell.measured]
    figure = panels([" · ".join(cell.key) for cell in cells], columns=len(cells), shared_yaxes=True)
    for column, cell in enumerate(cells, start=1):
        own: Any = rows_of(shares, cell.labels).sort_values("n_edges")
        hover = [f"{row['n']} samples in {row['n_groups']} groups" for row in records(own)]
        dots = go.Scatter(
            x=own.n_edges, y=own["mean"], error_y=interval_arms(own), mode="lines+markers", line={"color": SERIES[0]},
            text=hover, showlegend=False, hovertemplate="%{x} edges: %{y:.3f}, %{text}<extra></extra>",
        )  # fmt: skip
        figure.add_trace(dots, row=1, col=column)
        reference_line(figure, y=1, row=1, col=column)
        reference_line(figure, y=0, row=1, col=column)
    sizes = sorted({int(size) for size in shares.n_edges})
    figure.update_xaxes(
        title_text="edges kept", type="log", tickvals=sizes, ticktext=[str(size) for size in sizes]
    )
    figure.update_yaxes(title_text="share of the difference kept", col=1)
    return laid_out(figure, 380, columns=len(cells))
