"""A page put together from parts, in the style of a study's report: one HTML file that loads nothing from elsewhere."""

from __future__ import annotations

import importlib.metadata
import json
from collections.abc import Iterable, Mapping
from importlib.resources import files
from pathlib import Path
from string import Template
from typing import TYPE_CHECKING

import plotly.graph_objects as go
from plotly.offline import get_plotlyjs

from interp.report import prose
from interp.report.words import card, safe, tag
from interp.run.store import write_atomically
from interp.study.model import is_organism

if TYPE_CHECKING:
    from interp.study.result import Result

__all__ = ["figure_card", "opening", "stacked", "table", "write_sheet"]


def write_sheet(
    path: Path,
    *,
    title: str,
    question: str,
    lead: str,
    body: Iterable[str],
    figures: Mapping[str, go.Figure] | None = None,
) -> Path:
    """Writes the page and returns its path.

    Args:
        path: The HTML file; its folder is made.
        title: What the study is called, as text.
        question: What it answers, as text: the heading.
        lead: Markup under the heading, such as `opening` gives.
        body: Markup, part by part.
        figures: Name → figure, drawn where the body has `figure_card(name)`.
    """
    drawn = {
        f"figure-{name}": json.loads(figure.to_json() or "{}") for name, figure in (figures or {}).items()
    }
    data = json.dumps(drawn).replace("<", "\\u003c")  # nothing in it can end the script element
    script = f'<script type="application/json" id="figures">{data}</script>'
    room = files("interp.report")
    page = Template((room / "page.html").read_text()).substitute(
        title=safe(f"{title} · interp"),
        eyebrow=safe(title),
        question=safe(question),
        lead=lead,
        style=(room / "page.css").read_text(),
        plotly=get_plotlyjs(),
        body="".join(body) + script,
        version=safe(importlib.metadata.version("interp")),
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, page.encode())
    return path


def figure_card(name: str) -> str:
    """Where the figure of that name is drawn."""
    return card(f'<div class="figure" id="figure-{safe(name)}"></div>')


def opening(words: str, *results: Result) -> str:
    """The page's first paragraph (markup), and the note that must stand there when a model is an organism."""
    organism = any(is_organism(cell.sweep.model) for result in results for cell in result.cells)
    note = tag("p", prose.ORGANISM, kind="note wide") if organism else ""
    return tag("p", words, kind="lead") + note


def stacked(inner: Iterable[str]) -> str:
    """Cards below one another, each as wide as the page."""
    return f'<div class="grid" style="grid-template-columns: minmax(0, 1fr)">{"".join(inner)}</div>'


def table(heads: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    """A table of texts, made safe; its first column stands left."""
    head = tag("tr", *(tag("th", safe(word)) for word in heads))
    lines = (tag("tr", *(tag("td", safe(word)) for word in row)) for row in rows)
    return tag("div", tag("table", head, *lines), kind="scroll")
