"""The index of a reproduction: for each figure the page made here, the paper's numbers, and what is missing."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from markupsafe import Markup

from interp.report.html import bold, card, code, details, heading, join, paragraph, save_page, section, table
from interp.report.tables import count
from interp.reproduce.registry import DATA, Figure
from interp.reproduce.session import Request, Session, State
from interp.study.benchmark.paper_tables import paper_table

__all__ = ["INDEX", "write_index"]

INDEX = "index.html"
LEAD = """Each row is a figure, table or appendix of “How Do Medical MLLMs Fail? A Study on Visual Grounding in Medical
Images” (ICLR 2026, arXiv 2603.14323): the page made here, the models and data behind it, and what is missing from the
paper's own setting."""
ORGANISM = """These are not the paper's numbers. The model is a bundled model organism, a small network trained for this
toolkit: it shows that every script runs, and says nothing about a medical model. Name models and data to reproduce the
paper: interp reproduce --model … --vgmed … --coco …."""
OTHER_DATA = "bundled samples, not the paper's data"
MODELS = """Only a model that you name by its hub id is downloaded. docs/models.md says how each of the paper's models
loads and how large it is. Please read the licences of the data yourself."""
PAPERS = (
    """Quoted from the paper, measured on its models and data. None of these numbers was measured here."""
)


def write_index(session: Session, figures: Sequence[Figure]) -> Path:
    """Writes the index and returns its path.

    Args:
        session: The reproduction.
        figures: The figures to list.
    """
    request, states = session.request, {figure.name: session.state(figure) for figure in figures}
    n_done = sum(state.outcome == "done" for state in states.values())
    lead = join(
        paragraph(ORGANISM, kind="note") if request.on_organism else "",
        paragraph(LEAD, kind="wide"),
        paragraph(f"{n_done} of {count(len(figures), 'page')} made. {_asked(request)}", kind="soft wide"),
    )
    lines = [_line(session, figure, states[figure.name]) for figure in figures]
    heads = ("paper", "what it shows", "here", "made on", "to know, and what is missing")
    body = [
        section("Figures and tables", table(heads, lines, "text")),
        _missing(request, figures),
        section("What the paper printed", *_tables(figures), intro=PAPERS),
    ]
    question = "Which of the paper's figures and tables are reproduced here?"
    return save_page(request.out / INDEX, title="Reproduction", question=question, lead=lead, body=body)


def _missing(request: Request, figures: Sequence[Figure]) -> Markup | str:
    """How to get the data that were not given, each listed once."""
    wanted = dict.fromkeys(name for figure in figures for name in figure.data if name not in request.folders)
    if not wanted:
        return ""
    lines = [(DATA[name].label, code(DATA[name].option), DATA[name].how) for name in wanted]
    shown = table(("data", "option of interp reproduce", "what, and from where"), lines, "text")
    return section("What is missing, and how to get it", shown, intro=MODELS)


def _asked(request: Request) -> str:
    """The models, the data and the conventions of the request, in a sentence."""
    data = ", ".join(DATA[name].label for name in request.folders) or "none of the paper's"
    way = "as the paper does" if request.paper else "by this toolkit's own conventions"
    few = f" At most {count(request.n, 'sample')} of each data set." if request.n else ""
    few = " As many samples as each script draws by itself." if request.n is None else few
    models = ", ".join(request.models)
    return (
        f"Models: {models}. Data: {data}. Layers, boxes, metrics and the length of closed answers {way}.{few}"
    )


def _line(session: Session, figure: Figure, state: State) -> list[Any]:
    request = session.request
    models = request.models_of(figure)
    data = ", ".join(DATA[name].label for name in request.data_of(figure)) or OTHER_DATA
    made = f"{', '.join(models)}; {data}" if models else data
    made = made if state.outcome in ("done", "failed") else "–"
    return [
        bold(figure.paper),
        figure.shows,
        _here(session, figure, state),
        made,
        _to_know(request, figure, state),
    ]


def _here(session: Session, figure: Figure, state: State) -> Markup:
    """A link to the page where it was made, else the state."""
    if state.outcome == "done":
        return Markup('<a href="{}">page</a>').format(figure.page)
    words: Any = bold(state.outcome) if state.outcome in ("failed", "missing") else state.outcome
    log = session.log(figure)
    said = Markup('<a href="logs/{}">what it printed</a>').format(log.name) if log.is_file() else ""
    return join(words, " · " if said else "", said)


def _to_know(request: Request, figure: Figure, state: State) -> Markup:
    """The reason why a page is missing, notes on differences, and the data that were not given."""
    of_several = (
        f"Only for {request.models[0]}: the script takes one model."
        if figure.models == "one" and len(request.models) > 1
        else ""
    )
    absent = [DATA[name].label for name in figure.data if name not in request.folders]
    without = f"Not given: {', '.join(absent)}." if absent else ""
    parts = [state.reason, figure.note, of_several, without]
    said: list[Any] = [paragraph(part) for part in parts if part]
    return join(*said, details("command", code(state.command)) if state.command else "")


def _tables(figures: Sequence[Figure]) -> list[Markup]:
    found = []
    for paper, name in ((one.paper, name) for one in figures for name in one.published):
        one = paper_table(name)
        note = paragraph(f"{one.note}.", kind="note") if one.note else ""
        shown = card(table([str(column) for column in one.frame.columns], one.cells, "dense"), note)
        found.append(details(heading(f"{paper}: {one.title}", level=3), shown))
    return found
