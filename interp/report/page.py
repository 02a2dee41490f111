"""A result as one HTML file that loads nothing from elsewhere."""

from __future__ import annotations

import importlib.metadata
from importlib.resources import files
from pathlib import Path
from string import Template
from typing import TYPE_CHECKING

from plotly.offline import get_plotlyjs

from interp.report import sections
from interp.report.comparisons import comparisons
from interp.report.findings import findings, lead
from interp.report.samples import gallery
from interp.report.tables import tables
from interp.report.words import safe
from interp.run.store import write_atomically

if TYPE_CHECKING:
    from interp.study.choice import LayerChoice
    from interp.study.result import Result

__all__ = ["render", "write_report"]


def write_report(result: Result, path: Path, choice: LayerChoice | None = None) -> Path:
    """Write the page to `path` and return it."""
    write_atomically(path, render(result, choice).encode())
    return path


def render(result: Result, choice: LayerChoice | None = None) -> str:
    """The page's text: about 5 MB, nearly all of it Plotly, inline.

    Args:
        result: What to show.
        choice: The layer to feature; without one, the best on these samples, labelled as descriptive.
    """
    headline = "ar" if "ar" in result.metrics else result.metrics[0]
    chosen = choice or result.best_layer(headline, descriptive=True)
    body = (
        findings(result, chosen),
        sections.figures(result.figures(chosen)),
        comparisons(result, chosen),
        gallery(result, chosen),
        tables(result, chosen),
        sections.failures(result),
        sections.definitions(result),
        sections.provenance(result),
    )
    room = files("interp.report")
    return Template((room / "page.html").read_text()).substitute(
        title=safe(f"{result.study.title} · interp"),
        eyebrow=safe(result.study.title),
        question=safe(result.study.question),
        lead=lead(result),
        style=(room / "page.css").read_text(),
        plotly=get_plotlyjs(),
        body="".join(body),
        version=safe(_version()),
    )


def _version() -> str:
    try:
        return importlib.metadata.version("interp")
    except importlib.metadata.PackageNotFoundError:
        return "(source)"
