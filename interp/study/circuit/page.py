"""The page of a circuit: the graph, its edges, how much of the answer it keeps, and the figures of these."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from markupsafe import Markup

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
from interp.report.html import card, definitions, figure_cards, paragraph, save_page, section, table
from interp.report.provenance import as_json, origin
from interp.report.tables import count, number, percent, rows
from interp.study.dataframes import records, rows_of, where
from interp.study.page_parts import failure_line, lead, origins

if TYPE_CHECKING:
    from interp.study.circuit.result import CircuitResult
    from interp.study.runs import GridCell

__all__ = ["N_DRAWN", "figures", "write_page"]


N_DRAWN = 40
"""The number of edges that are drawn."""
NODE = 44
"""Width of a node in pixels; where the screen is narrower than all nodes, the graph scrolls."""
WIDEST = 7.0
FOR_COLOUR, AGAINST_COLOUR = SERIES[0], SERIES[1]


def figures(result: CircuitResult) -> Figures:
    """ "graph", "graph-2", …: the strongest edges of each run; "faithfulness": the share kept, by number of edges."""
    found: Figures = {}
    for place, cell in enumerate((cell for cell in result.cells if cell.measured), start=1):
        own = rows_of(result.edges, cell.labels)
        found["graph" if place == 1 else f"graph-{place}"] = _graph(own.head(N_DRAWN))
    shares = where(result.summary(), result.summary().measure == "share")
    if len(shares):
        found["faithfulness"] = _faithfulness(result, shares)
    return found


def _places(names: list[str]) -> Mapping[str, tuple[float, float]]:
    """Each node's position: layers from left to right, heads from the bottom up, MLPs above, half a layer later."""
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
            "color": clear(FOR_COLOUR if row["effect"] > 0 else AGAINST_COLOUR, 0.25 + 0.6 * share),
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
    for name, colour in (("for the answer", FOR_COLOUR), ("against it", AGAINST_COLOUR)):
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
        hover = [f"{count(row['n'], 'sample')} in {count(row['n_groups'], 'group')}" for row in records(own)]
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


N_SHOWN = 20
LEAD = Markup("""How much of the difference between two answers each edge carries. The nodes are heads and MLPs of
<b>{models}</b>; {samples} ({data}). The reference is {against}.""")
AGAINST = {
    "image": "what each node writes for the same question on another sample's image",
    "mean": "what each node writes on average over {n_images} other images for the same question",
    "zero": "a head or an MLP that writes nothing",
}
TERMS = {
    "Value": """log p(a) − log p(b) at the last prompt token, in nats: a is the model's answer for the image, b its
    answer for the other image.""",
    "Effect": """To first order, how far the value falls when the source's output to the receiver is replaced by its
    output in the reference (edge attribution patching). Above 0: the edge supports the sample's own answer.""",
    "Exact": """The same effect measured by a separate pass (path patching). It is a mean over the samples in which the
    edge was among the strongest, so its samples differ from those of the effect beside it.""",
    "Share kept": """All edges except the strongest n are set to the reference: (value − value with no edge) / (value
    with all edges − value with no edge). 1: these edges carry all of the difference. The share can be below 0 or above
    1.""",
}
OWN = """Each sample keeps its own strongest edges, so the share looks better than it is. Test the graph on other
samples: Circuit(data=…, graph=result.graph(n))."""
GIVEN = "The edges were given. The share is a fair test only where they were chosen on other data."
DRAWN = f"""The {N_DRAWN} edges of largest mean |effect|; the width shows the effect. Nodes without such an edge are
left out. An edge can be strong although no drawn edge leads to its source: many weak edges may lead there."""


def write_page(result: CircuitResult, path: str | Path) -> Path:
    """Writes the page and returns its path.

    Args:
        result: Of a `Circuit`, or of a grid over one.
        path: The HTML file.
    """
    shown = figures(result)
    study: Any = result.cells[0].study
    graphs = [name for name in shown if name.startswith("graph")]
    kept = GIVEN if study.graph is not None else OWN
    body = [
        section("From the image to the answer", figure_cards(graphs), intro=DRAWN),
        section(
            "How much the graph keeps", figure_cards(n for n in shown if n == "faithfulness"), intro=kept
        ),
        section("Strongest edges", *(_table(result, cell) for cell in result.cells if cell.measured)),
        section("What the words mean", card(definitions(TERMS))),
        section("Failures", paragraph(failure_line(result), kind="wide")),
        origins(result, _origin),
    ]
    against = AGAINST[study.against].format(n_images=study.n_images)
    first = lead(result, LEAD, against=against)
    return save_page(path, title=study.title, question=study.question, lead=first, body=body, figures=shown)


def _table(result: CircuitResult, cell: GridCell) -> Markup:
    own = rows_of(result.edges, cell.labels).head(N_SHOWN)
    columns: dict[str, Any] = {
        "from": "source",
        "to": "receiver",
        "effect, nats": lambda row: number(row["effect"], 3),
        "above 0 in": lambda row: percent(row["positive"]),
        "exact, nats": lambda row: number(row["exact"], 3),
        "patched in": lambda row: f"{row['n_exact']} of {row['n']}",
    }
    title = " · ".join(cell.key) if len(result.cells) > 1 else ""
    return card(table(list(columns), rows(own, columns)), title=title)


def _origin(cell: GridCell) -> Markup:
    study = cell.study
    against = f"mean over {count(study.n_images, 'image')}" if study.against == "mean" else study.against
    settings = f"{against}, {list(study.sizes)}, {study.exact}, {study.seed}, {study.executor}"
    what = "against, sizes, exact, seed, executor"
    return origin(cell.folder, [("prompt", as_json(study.prompt)), (what, settings)])
