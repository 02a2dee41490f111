"""The page of a circuit: the graph, the edges, and how much of the answer the graph keeps."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from markupsafe import Markup

from interp.report.html import card, definitions, figure_cards, paragraph, save_page, section, table
from interp.report.provenance import as_json, opening, origin, provenance
from interp.report.tables import listed, number, percent, rows, times
from interp.study.circuit.figures import N_DRAWN, figures
from interp.study.dataframes import rows_of
from interp.study.model_spec import is_organism

if TYPE_CHECKING:
    from interp.study.circuit.result import CircuitResult
    from interp.study.runs import GridCell

__all__ = ["figures", "write_page"]

N_SHOWN = 20
LEAD = Markup("""Heads and MLPs of <b>{models}</b> as nodes, and how much of the difference between two answers each
edge between them carries: {n} samples ({data}). The reference is {against}.""")
AGAINST = {
    "image": "what each node writes for the same question on another sample's image",
    "mean": "what each node writes on average over {n_images} other images for the same question",
    "zero": "a head or an MLP that writes nothing",
}
TERMS = {
    "Value": """log p(a) − log p(b) at the last prompt token, in nats: a is what the model says of the image, b what it
    says of the other image.""",
    "Effect": """To first order, how far the value falls when the receiver gets from the source what it writes in the
    reference (edge attribution patching). Above 0: the edge speaks for the sample's own answer.""",
    "Exact": """The same by a pass of its own (path patching), mean over the samples in which the edge was among the
    strongest; so it is not of the same samples as the effect beside it.""",
    "Share kept": """With every edge but the strongest n in the reference: (value − value with none) / (value with all −
    value with none). 1: these edges carry all of the difference. It can lie below 0 or above 1.""",
}
OWN = """Each sample keeps the edges that are strongest in that very sample, which flatters. Take the graph to other
samples: Circuit(data=…, graph=result.graph(n))."""
GIVEN = "The edges were given, chosen elsewhere."
DRAWN = f"""The {N_DRAWN} edges of largest mean |effect|; width is the effect. Nodes without an edge among them are left
out. An edge can be strong although nothing drawn leads to its source: then what leads there is spread over many."""


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
        section("Failures", paragraph(_failures(result), kind="wide")),
        provenance((" · ".join(cell.key), _origin(cell)) for cell in result.cells),
    ]
    models, data = (listed(cell.labels[axis] for cell in result.cells) for axis in ("model", "data"))
    against = AGAINST[study.against].format(n_images=study.n_images)
    words = LEAD.format(models=models, data=data, n=result.n_samples, against=against)
    lead = opening(words, organism=any(is_organism(cell.study.model) for cell in result.cells))
    return save_page(path, title=study.title, question=study.question, lead=lead, body=body, figures=shown)


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


def _failures(result: CircuitResult) -> str:
    found = result.failures
    if found.empty:
        return "None: every sample was measured."
    return f"{len(found)} left out: {times(found.reason.value_counts().head(5))}"


def _origin(cell: GridCell) -> Markup:
    study = cell.study
    against = f"mean over {study.n_images} images" if study.against == "mean" else study.against
    settings = f"{against}, {list(study.sizes)}, {study.exact}, {study.seed}, {study.executor}"
    what = "against, sizes, exact, seed, executor"
    return origin(cell.folder, [("prompt", as_json(study.prompt)), (what, settings)])
