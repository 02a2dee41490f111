"""A page put together from parts, in the style of a study's report: one HTML file that loads nothing from elsewhere."""

from __future__ import annotations

import html
import importlib.metadata
import json
import math
from collections.abc import Iterable, Mapping
from importlib.resources import files
from pathlib import Path
from string import Template
from typing import TYPE_CHECKING, Any

import plotly.graph_objects as go
from plotly.offline import get_plotlyjs

from interp.run.store import write_atomically
from interp.study.layer_sweep import page as prose
from interp.study.model_spec import is_organism

if TYPE_CHECKING:
    from interp.study.layer_sweep.result import Result

__all__ = [
    "CONTROLS",
    "capital",
    "card",
    "cards",
    "figure_card",
    "interval",
    "mean_and_interval",
    "number",
    "opening",
    "rows_table",
    "safe",
    "size_of",
    "stacked",
    "table",
    "tag",
    "write_sheet",
]

CONTROLS = {
    "boxes": "own boxes",
    "shuffled_boxes": "another sample's boxes",
    "centre_prior": "a look at the middle",
}


def safe(value: Any) -> str:
    """Text that cannot become markup."""
    return html.escape("–" if value is None else str(value), quote=True)


def tag(name: str, *inner: str, kind: str = "") -> str:
    """An element around markup; `kind` is its class."""
    attribute = f' class="{kind}"' if kind else ""
    return f"<{name}{attribute}>{''.join(inner)}</{name}>"


def card(*inner: str, kind: str = "") -> str:
    """A card."""
    return tag("div", *inner, kind=f"card {kind}".strip())


def cards(inner: Iterable[str], kind: str = "") -> str:
    """Cards side by side where there is room."""
    return tag("div", *inner, kind=f"grid {kind}".strip())


def capital(text: str) -> str:
    """The text with its first letter in upper case."""
    return text[:1].upper() + text[1:]


def number(value: float, digits: int = 2) -> str:
    """A number with a real minus sign; a dash when it is undefined."""
    return "–" if math.isnan(value) else f"{round(value, digits) + 0.0:.{digits}f}".replace("-", "−")


def interval(row: Mapping[Any, Any], digits: int = 2) -> str:
    """“[low, high]”, or nothing when there are too few groups for one (the summary's `note` says so)."""
    if row["note"] or math.isnan(row["low"]):
        return ""
    return f"[{number(row['low'], digits)}, {number(row['high'], digits)}]"


def mean_and_interval(row: Mapping[Any, Any], *, signed: bool = False) -> str:
    """“mean [low, high]”; with `signed`, a plus sign before what is positive."""
    sign = "+" if signed and row["mean"] > 0 else ""
    return f"{sign}{number(row['mean'])} {interval(row)}".rstrip()


def size_of(n_bytes: float) -> str:
    """Bytes in the unit a person would use."""
    for unit in ("B", "kB", "MB", "GB"):
        if n_bytes < 1000:
            return f"{n_bytes:.0f} {unit}" if unit == "B" else f"{n_bytes:.1f} {unit}"
        n_bytes /= 1000
    return f"{n_bytes:.1f} TB"


def rows_table(rows: Iterable[tuple[Any, Any]]) -> str:
    """A two-column table of names and values, both made safe."""
    body = (tag("tr", tag("td", safe(name)), tag("td", safe(value))) for name, value in rows)
    return tag("div", tag("table", *body, kind="text"), kind="scroll")


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
