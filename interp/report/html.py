"""Pages from parts: every value is escaped, and a page is one file that loads nothing from elsewhere."""

from __future__ import annotations

import importlib.metadata
import json
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from importlib.resources import files
from itertools import repeat
from pathlib import Path
from typing import Any

import plotly.graph_objects as go
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup, escape
from plotly.offline import get_plotlyjs

from interp.inputs.files import as_path, write_atomically
from interp.report.reflow import narrowed

__all__ = [
    "Cell",
    "Row",
    "bold",
    "capital",
    "card",
    "code",
    "definitions",
    "details",
    "element",
    "figure_card",
    "figure_cards",
    "grid",
    "heading",
    "headline",
    "join",
    "key",
    "page_path",
    "paragraph",
    "save_form",
    "save_page",
    "section",
    "span",
    "table",
    "tip",
    "written_by",
]  # fmt: skip

DASH = "–"
NUMBER = re.compile(r"\[?[<>≤≥≈=]?\s*[+−-]?\s*[\d.]*\d")
"""The start of an entry that is a number."""
LONG = 24
"""An entry with more letters than this breaks over lines."""
BESIDE = 2
"""Columns of a table of texts that fit beside one another on a narrow screen."""


@dataclass(frozen=True)
class Cell:
    """One cell of a table: text or markup, its class, and how many columns it takes."""

    content: Any
    kind: str = ""
    span: int = 1


@dataclass(frozen=True)
class Row:
    """One row of a table with a class of its own."""

    cells: Sequence[Any]
    kind: str = ""


PAGE = (
    "A page is written, in HTML: print it from a browser for a PDF. For a picture take a figure: "
    'look.figure.write_image("look.png"), or result.export("folder") for all figures of a study (both with the extra '
    "images)."
)
"""The advice where the path of a page names another kind of file."""


def save_page(
    path: str | os.PathLike[str],
    *,
    title: str,
    question: str,
    lead: Markup,
    body: Iterable[str],
    figures: Mapping[str, go.Figure] | None = None,
) -> Path:
    """Writes the page and returns its path.

    Args:
        path: The HTML file; its folder is made. An old page stays until the new one is whole.
        title: The study's name.
        question: The question that the study answers: the heading.
        lead: Markup under the heading.
        body: Markup, part by part; plain text is escaped, and "" is nothing.
        figures: Name → figure, drawn where the body has `figure_card(name)`.
    """
    drawn = {f"figure-{name}": _drawn(figure) for name, figure in (figures or {}).items()}
    text = _environment().get_template("page.html").render(
        title=title,
        question=question,
        lead=lead,
        body=join(*body),
        figures=drawn,
        style=_file("page.css"),
        script=_file("page.js"),
        plotly=Markup(get_plotlyjs()) if drawn else "",
        version=written_by(),
    )  # fmt: skip
    return _written(path, text)


def _drawn(figure: go.Figure) -> dict[str, Any]:
    """A figure as JSON, with the layout for a narrow screen where that is another."""
    found = json.loads(figure.to_json() or "{}")
    stacked = narrowed(figure)
    if stacked is not figure:
        layout = json.loads(stacked.to_json() or "{}")["layout"]
        own = found["layout"]
        narrow = {name: value for name, value in layout.items() if own.get(name) != value}
        own.setdefault("meta", {})["narrow"] = narrow
    return found


def save_form(path: str | os.PathLike[str], form: Any, data: Mapping[str, Any]) -> Path:
    """Writes the page of a form and returns its path.

    Args:
        path: The HTML file; its folder is made. An old page stays until the new one is whole.
        form: The texts of the page; see `interp.report.answer_form.Form`.
        data: What the page's script reads, as JSON.
    """
    text = _environment().get_template("form.html").render(
        form=form,
        data=data,
        style=_file("page.css") + _file("form.css"),
        script=_file("form.js"),
        version=written_by(),
    )  # fmt: skip
    return _written(path, text)


def _file(name: str) -> Markup:
    """A style sheet or a script of the templates, as it is."""
    return Markup((files("interp.report") / "templates" / name).read_text("utf-8"))


def page_path(path: str | os.PathLike[str]) -> Path:
    """The path of a page.

    Raises:
        RunError: Anything else, or a name that does not end in .html or .htm: a picture would be lost under a page.
    """
    return as_path("path", path, endings=(".html", ".htm"), what=PAGE)


def _written(path: str | os.PathLike[str], text: str) -> Path:
    target = page_path(path)
    write_atomically(target, text.encode(errors="backslashreplace"))
    return target


def join(*parts: Any) -> Markup:
    """The parts after one another; text is escaped, markup stays, None is a dash."""
    return Markup("").join([DASH if part is None else part for part in parts])


def element(name: str, *parts: Any, kind: str = "", **attributes: Any) -> Markup:
    """One HTML element around the parts; text and attributes are escaped, markup stays, None is a dash.

    Args:
        name: The element's name, such as "p".
        *parts: What it holds.
        kind: Its class; "" for none.
        **attributes: Its other attributes. None leaves one out, True gives it without a value, and `_` in a name
            stands for `-`.
    """
    return _element(name, join(*parts), {"class": kind or None, **attributes})


def _element(name: str, content: Any, attributes: Mapping[str, Any]) -> Markup:
    words = ""
    for key, one in attributes.items():
        if one is not None:
            words += f" {key.replace('_', '-')}" + ("" if one is True else f'="{escape(one)}"')
    return Markup(f"<{name}{words}>{escape(content)}</{name}>")


def section(title: str, *parts: Any, intro: Any = "") -> Markup:
    """A heading, a paragraph on how to read what follows, and the parts; empty where no part holds anything."""
    content = join(*parts)
    if not content:
        return content
    return join(heading(title), paragraph(intro, kind="soft wide") if intro else "", content)


def heading(*parts: Any, level: int = 2) -> Markup:
    """A heading."""
    return element(f"h{level}", *parts)


def paragraph(*parts: Any, kind: str = "") -> Markup:
    """A paragraph; `kind` is "lead", "soft", "note" or "wide"."""
    return element("p", *parts, kind=kind)


def bold(*parts: Any, kind: str = "") -> Markup:
    """Bold text; `kind` "right" or "wrong" colours it."""
    return element("b", *parts, kind=kind)


def span(*parts: Any, kind: str = "soft", **attributes: Any) -> Markup:
    """Text of its own colour inside a line; attributes as for `element`."""
    return element("span", *parts, kind=kind, **attributes)


def code(*parts: Any) -> Markup:
    """Text in a fixed-width font."""
    return element("code", *parts)


def tip(text: str, words: str, kind: str = "") -> Markup:
    """Text that shows more words on hovering."""
    return span(text, kind=kind, title=words)


def key(colour: str) -> Markup:
    """A small square of a colour, before a name in the legend or a table."""
    return span(kind="key", style=f"background:{colour}")


def capital(text: str) -> str:
    """The text with its first letter in upper case."""
    return text[:1].upper() + text[1:]


def card(*parts: Any, title: Any = "", kind: str = "") -> Markup:
    """A card, with a title where there is one."""
    above = [heading(title, level=3)] if title else []
    return element("div", *above, *parts, kind=f"card {kind}".strip())


def grid(cards: Iterable[str], kind: str = "") -> Markup:
    """Cards side by side where there is room, or with `kind` "stacked" below one another; empty without cards."""
    content = join(*cards)
    return element("div", content, kind=f"grid {kind}".strip()) if content else content


def headline(value: str, note: str) -> Markup:
    """A large number with a note beside it."""
    return element("div", bold(value), " ", span(note), kind="number")


def figure_card(name: str, title: Any = "") -> Markup:
    """The card in which the figure of that name is drawn."""
    return card(element("div", kind="figure", id=f"figure-{name}"), title=title)


def figure_cards(names: Iterable[str], kind: str = "stacked") -> Markup:
    """A card for each figure."""
    return grid((figure_card(name) for name in names), kind)


def details(summary: Any, *parts: Any, opened: bool = False) -> Markup:
    """Parts folded under a summary; empty where they hold nothing."""
    content = join(*parts)
    shown = element("details", element("summary", summary), content, open=opened or None)
    return shown if content else content


def definitions(terms: Mapping[Any, Any]) -> Markup:
    """Terms and what they mean."""
    return element(
        "dl",
        *(element(tag, one) for pair in terms.items() for tag, one in zip(("dt", "dd"), pair, strict=True)),
    )


def table(heads: Sequence[Any], rows: Iterable[Any], kind: str = "") -> Markup:
    """A table that scrolls sideways where it is too wide; columns of text are aligned left, of numbers right.

    A table of kind "text" with three columns or more shows each row as a block on a narrow screen.

    Args:
        heads: The header's entries, or several `Row`s of them; none for a table without a header.
        rows: Sequences of entries, or `Row`s. An entry is text (escaped), markup or a `Cell`.
        kind: "dense" or "text".
    """
    above = (
        [_row(one) for one in heads]
        if heads and isinstance(heads[0], Row)
        else [_row(heads)]
        if heads
        else []
    )
    below = [_row(one) for one in rows]
    if kind == "text":
        parts = bool(above) and len(above[-1].cells) > BESIDE
        columns = [_words(cell) for cell in above[-1].cells] if parts else []
        return _table(above, below, "text parts" if parts else kind, columns)
    kinds = _column_kinds(below)
    above, below = ([_of_kinds(row, kinds) for row in part] for part in (above, below))
    return _table(above, below, kind)


def _table(heads: Sequence[Row], rows: Sequence[Row], kind: str, columns: Sequence[str] = ()) -> Markup:
    """The element of a table; each cell is labelled with its column where there are `columns`."""
    lines = (element("tr", *(_cell("th", one) for one in row.cells)) for row in heads)
    above = [element("thead", *lines)] if heads else []
    labels = [*columns, *[None] * max((len(row.cells) for row in rows), default=0)]
    below = (element("tr", *(map(_cell, repeat("td"), row.cells, labels)), kind=row.kind) for row in rows)
    return element("div", element("table", *above, element("tbody", *below), kind=kind), kind="scroll")


def _cell(tag: str, one: Cell, column: str | None = None) -> Markup:
    span = one.span if one.span > 1 else None
    scope = None if tag == "td" else "colgroup" if span else "col"
    about = {"scope": scope, "class": one.kind or None, "colspan": span, "data_column": column or None}
    return _element(tag, one.content, about)


def _column_kinds(lines: Sequence[Row]) -> dict[int, str]:
    """Column after the first whose entries are mostly texts → "words", or "words long" where one is long."""
    found: dict[int, list[str]] = {}
    for row in lines:
        if all(cell.span == 1 for cell in row.cells):
            for place, cell in enumerate(row.cells[1:], start=1):
                found.setdefault(place, []).append(_words(cell))
    said = {place: [one for one in texts if one not in ("", DASH)] for place, texts in found.items()}
    return {
        place: "words long" if max(map(len, texts)) > LONG else "words"
        for place, texts in said.items()
        if texts and 2 * sum(bool(NUMBER.match(one)) for one in texts) < len(texts)
    }


def _of_kinds(row: Row, kinds: Mapping[int, str]) -> Row:
    """The row with the kinds of its columns; rows with wide cells stay."""
    if any(cell.span > 1 for cell in row.cells):
        return row
    cells = [
        replace(cell, kind=f"{cell.kind} {kinds[place]}".strip()) if place in kinds else cell
        for place, cell in enumerate(row.cells)
    ]
    return replace(row, cells=cells)


def _words(cell: Cell) -> str:
    """What a reader sees of a cell."""
    shown = cell.content
    return shown.striptags() if isinstance(shown, Markup) else str(shown).strip()


def _row(entries: Any) -> Row:
    row = entries if isinstance(entries, Row) else Row(entries)
    cells = [one if isinstance(one, Cell) else Cell(DASH if one is None else one) for one in row.cells]
    return Row(cells, row.kind)


@cache
def _environment() -> Environment:
    """Templates with autoescape; an unknown name is an error."""
    found = Environment(
        loader=PackageLoader("interp.report"), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    found.policies["json.dumps_kwargs"] = {"sort_keys": False}
    return found


def written_by() -> str:
    """The version of interp that writes the page."""
    try:
        return importlib.metadata.version("interp")
    except importlib.metadata.PackageNotFoundError:
        return "(source)"
