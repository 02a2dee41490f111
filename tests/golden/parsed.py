"""A written page as values: its tables by header, its figures by name, its cards by sample, the numbers in a text."""

from __future__ import annotations

import base64
import html
import io
import json
import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

VOID = {"img", "br", "meta", "link", "hr", "input", "col", "wbr", "source"}
LEVELS = {"h2": 2, "h3": 3, "h4": 4, "h5": 5, "summary": 6, "caption": 6}
NUMBER = re.compile(r"(?<![\w.])([−+-]?)((?:\d{1,3}(?:,\d{3})+|\d+)(\.\d+)?)(e[+-]?\d+)?(?!\w)")


@dataclass(eq=False)
class Node:
    """An element, or a piece of text (`tag` is empty)."""

    tag: str
    attributes: dict[str, str] = field(default_factory=dict)
    words: str = ""
    parent: Node | None = None
    children: list[Node] = field(default_factory=list)

    def walk(self) -> Iterator[Node]:
        """The node and all below it, in the order of the document."""
        yield self
        for child in self.children:
            yield from child.walk()

    def all(self, *tags: str) -> list[Node]:
        """The elements of these names below this one."""
        return [node for node in self.walk() if node.tag in tags]

    @property
    def text(self) -> str:
        """What a reader sees of it, spaces made single."""
        hidden = {"script", "style"}
        pieces = [node.words for node in self.walk() if not node.tag and _shown(node, hidden)]
        return " ".join("".join(pieces).split())


def _shown(node: Node, hidden: set[str]) -> bool:
    return node.parent is None or node.parent.tag not in hidden


class _Builder(HTMLParser):
    def __init__(self, page: str) -> None:
        super().__init__()
        self.root = self._here = Node("page")
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag == "span":
            self._here.children.append(Node("", words=" ", parent=self._here))
        node = Node(tag, {name: value or "" for name, value in attrs}, parent=self._here)
        self._here.children.append(node)
        if tag not in VOID:
            self._here = node

    def handle_endtag(self, tag: str) -> None:
        at: Node | None = self._here
        while at is not None and at.tag != tag:
            at = at.parent
        if at is not None and at.parent is not None:
            self._here = at.parent
        if tag in {"p", "td", "th", "li", "div", "span", "h1", "figcaption", *LEVELS}:
            self._here.children.append(Node("", words=" ", parent=self._here))

    def handle_data(self, data: str) -> None:
        self._here.children.append(Node("", words=data, parent=self._here))


@dataclass
class Row:
    """A line of a table, and the last line above it that spans all columns."""

    cells: list[str]
    section: str


@dataclass
class Table:
    """A table with a header; `title` is every heading above it that still holds."""

    title: str
    heads: list[str]
    groups: list[str]
    rows: list[Row]

    def place(self, *words: str) -> int:
        """The only column whose header, or the header that spans it, matches all of the patterns."""
        both = [f"{group} {head}" for group, head in zip(self.groups, self.heads, strict=True)]
        found = [i for i, head in enumerate(both) if all(matches(word, head) for word in words)]
        assert len(found) == 1, f"expected one column of {words}, got {found} of {both} under {self.title}"
        return found[0]

    def column(self, *words: str) -> list[str]:
        """The texts of a column, from top to bottom."""
        at = self.place(*words)
        return [row.cells[at] for row in self.rows]

    def records(self, **columns: str) -> list[dict[str, str]]:
        """Each row with the texts of the columns of these header patterns."""
        places = {name: self.place(*pattern.split("&")) for name, pattern in columns.items()}
        return [
            {"section": row.section, **{n: row.cells[at] for n, at in places.items()}} for row in self.rows
        ]


class Page:
    """A report in one HTML file."""

    def __init__(self, path: Path) -> None:
        self.root = _Builder(path.read_text()).root
        bodies = self.root.all("main") or self.root.all("body")
        self.body = bodies[0] if bodies else self.root
        self.text = self.body.text
        self.tables = list(_tables(self.body))
        self.figures = _figures(self.root)

    def all_tables(self, *heads: str, near: str = "") -> list[Table]:
        """The tables that have a column for each pattern, under headings that match `near`."""
        return [
            table
            for table in self.tables
            if all(
                any(
                    matches(word, f"{group} {head}")
                    for group, head in zip(table.groups, table.heads, strict=True)
                )
                for word in heads
            )
            and matches(near, table.title)
        ]

    def table(self, *heads: str, near: str = "") -> Table:
        """The only such table."""
        found = self.all_tables(*heads, near=near)
        titles = [(table.title, table.heads) for table in (found or self.tables)]
        assert len(found) == 1, f"expected one table with {heads} near {near!r}, got {len(found)} of {titles}"
        return found[0]

    def figure(self, name: str) -> Figure:
        """The figure that the page draws under that name."""
        for known, figure in self.figures.items():
            if known in (name, f"figure-{name}"):
                return figure
        raise AssertionError(f"expected a figure {name}, got {', '.join(self.figures)}")

    def cards(self, sample_id: str) -> list[Node]:
        """The smallest elements that hold the sample's id and a picture, in order."""
        found = []
        for node in self.body.walk():
            if (
                node.tag
                and node.text == sample_id
                and not any(c.tag and c.text == sample_id for c in node.children)
            ):
                at: Node | None = node
                while at is not None and not at.all("img"):
                    at = at.parent
                if at is not None:
                    found.append(at)
        return found

    def named(self, pattern: str, near: str = "") -> list[str]:
        """The second cell of every two-column line without header whose first cell matches."""
        found, trail = [], {}
        for node in self.body.walk():
            _follow(trail, node)
            if node.tag == "tr" and matches(near, _title(trail)):
                cells = [child for child in node.children if child.tag in ("td", "th")]
                if len(cells) == 2 and matches(pattern, cells[0].text) and cells[1].tag == "td":
                    found.append(cells[1].text)
        return found


def _follow(trail: dict[int, str], node: Node) -> None:
    """Keep the headings that hold for what comes after the node."""
    if node.tag in LEVELS:
        level = LEVELS[node.tag]
        for deeper in [known for known in trail if known >= level]:
            del trail[deeper]
        trail[level] = node.text


def _title(trail: dict[int, str]) -> str:
    return " / ".join(trail[level] for level in sorted(trail))


def _tables(body: Node) -> Iterator[Table]:
    trail: dict[int, str] = {}
    for node in body.walk():
        _follow(trail, node)
        if node.tag != "table":
            continue
        lines = [[child for child in line.children if child.tag in ("td", "th")] for line in node.all("tr")]
        heads = [line for line in lines if line and all(cell.tag == "th" for cell in line)]
        if not heads:
            continue
        spread = [_spread(line) for line in heads]
        groups = spread[0] if len(spread) > 1 else [""] * len(spread[-1])
        rows, section = [], ""
        for line in (line for line in lines if line not in heads and line):
            cells = _spread(line)
            if len(line) == 1 and len(cells) > 1:
                section = cells[0]
            else:
                assert len(cells) == len(spread[-1]), f"{cells} under {spread[-1]}"
                rows.append(Row(cells, section))
        yield Table(_title(trail), spread[-1], groups, rows)


def _spread(line: Sequence[Node]) -> list[str]:
    """The texts of a line, one a column."""
    return [cell.text for cell in line for _ in range(int(cell.attributes.get("colspan", 1)))]


def _figures(root: Node) -> dict[str, Figure]:
    found: dict[str, Figure] = {}
    for script in root.all("script"):
        if script.attributes.get("type") == "application/json":
            for name, content in json.loads("".join(child.words for child in script.children)).items():
                found[name] = Figure(content)
    return found


@dataclass
class Figure:
    """A Plotly figure as the page gets it."""

    content: dict[str, Any]

    @property
    def layout(self) -> dict[str, Any]:
        """Plotly's layout."""
        return self.content["layout"]

    @property
    def traces(self) -> list[Trace]:
        """All traces."""
        return [Trace(one, self) for one in self.content["data"]]

    def lines(self, panel: str | None = None) -> list[Trace]:
        """Traces of at least one point with a name in the legend's sense, that are no band."""
        return [
            one for one in self.traces if one.kind == "scatter" and not one.filled and one.in_panel(panel)
        ]

    def bands(self, panel: str | None = None) -> list[dict[float, tuple[float, float]]]:
        """Each filled area as x → (the second edge drawn, the first edge drawn)."""
        return [band for band, _ in self.coloured_bands(panel)]

    def coloured_bands(
        self, panel: str | None = None
    ) -> list[tuple[dict[float, tuple[float, float]], tuple[int, ...]]]:
        """The same with the colour of each."""
        found, traces = [], self.traces
        for place, one in enumerate(traces):
            if not one.filled or not one.in_panel(panel):
                continue
            colour = rgb(one.raw.get("fillcolor", ""))
            if one.raw["fill"] == "tonexty":
                other = traces[place - 1]
                found.append((_edges([*other.x, *one.x], [*other.y, *one.y]), colour))
            else:
                found.append((_edges(one.x, one.y), colour))
        return found

    def vertical_lines(self) -> list[tuple[float, str]]:
        """(x, axis) of every vertical line."""
        return [
            (shape["x0"], shape["xref"].split()[0])
            for shape in self.layout.get("shapes", [])
            if shape.get("type") == "line" and shape["x0"] == shape["x1"]
        ]

    def horizontal_lines(self) -> list[float]:
        """y of every horizontal line."""
        return [
            shape["y0"]
            for shape in self.layout.get("shapes", [])
            if shape.get("type") == "line" and shape["y0"] == shape["y1"]
        ]

    def axis(self, letter: str, reference: str) -> dict[str, Any]:
        """An axis by its reference, such as "x2"."""
        return self.layout.get(f"{letter}axis{reference[1:]}", {})

    def axis_titles(self, letter: str) -> list[str]:
        """Titles of all axes in one direction."""
        axes = [axis for name, axis in self.layout.items() if name.startswith(f"{letter}axis")]
        return [axis["title"]["text"] for axis in axes if axis.get("title", {}).get("text")]

    @property
    def title(self) -> str:
        """The title over all panels."""
        return self.layout.get("title", {}).get("text", "")


def _edges(x: Sequence[float], y: Sequence[float]) -> dict[float, tuple[float, float]]:
    """The outline goes along one edge and back along the other."""
    half = len(x) // 2
    assert list(x[:half]) == list(x[half:])[::-1] or list(x[:half]) == list(x[half:])
    back = dict(zip(x[half:], y[half:], strict=True))
    return {at: (back[at], value) for at, value in zip(x[:half], y[:half], strict=True)}


@dataclass
class Trace:
    """One trace with its arrays decoded."""

    raw: dict[str, Any]
    figure: Figure

    @property
    def kind(self) -> str:
        """Plotly's type of trace."""
        return self.raw.get("type", "scatter")

    @property
    def filled(self) -> bool:
        """Whether it is an area."""
        return self.raw.get("fill") not in (None, "none")

    @property
    def name(self) -> str:
        """What the legend calls it."""
        return html.unescape(self.raw.get("name", ""))

    @property
    def x(self) -> list[Any]:
        """Values along x."""
        return decoded(self.raw.get("x")).tolist()

    @property
    def y(self) -> list[Any]:
        """Values along y."""
        return decoded(self.raw.get("y")).tolist()

    @property
    def z(self) -> np.ndarray:
        """Values of a heat map, (y, x)."""
        return decoded(self.raw["z"]).astype(float)

    @property
    def points(self) -> dict[Any, Any]:
        """x → y."""
        assert len(set(self.x)) == len(self.x)
        return dict(zip(self.x, self.y, strict=True))

    @property
    def cells(self) -> dict[tuple[Any, Any], float]:
        """(x, y) → z."""
        z = self.z
        return {(x, y): float(z[j, i]) for j, y in enumerate(self.y) for i, x in enumerate(self.x)}

    @property
    def colour(self) -> tuple[int, ...]:
        """Of its line, or of its marks."""
        line, marker = self.raw.get("line", {}), self.raw.get("marker", {})
        chosen = line.get("color") or marker.get("color")
        return rgb(chosen) if isinstance(chosen, str) else ()

    @property
    def solid(self) -> bool:
        """Whether its line has no dashes."""
        return self.raw.get("line", {}).get("dash", "solid") == "solid"

    @property
    def panel(self) -> str:
        """The title over its panel."""
        x, y = (self.figure.axis(letter, self.raw.get(f"{letter}axis", letter)) for letter in "xy")
        left, right = x.get("domain", [0, 1])
        top = y.get("domain", [0, 1])[1]
        for note in self.figure.layout.get("annotations", []):
            middle = abs(note.get("x", -1) - (left + right) / 2) < 1e-6
            if middle and note.get("xref") == "paper" and abs(note.get("y", -1) - top) < 0.02:
                return html.unescape(note["text"])
        return ""

    def axis_title(self, letter: str) -> str:
        """The title of its axis, or of another axis in the same row or column."""
        own = self.figure.axis(letter, self.raw.get(f"{letter}axis", letter))
        domain = own.get("domain", [0, 1])
        layout = self.figure.layout
        same = [
            a
            for n, a in layout.items()
            if n.startswith(f"{letter}axis") and a.get("domain", [0, 1]) == domain
        ]
        titles = [axis["title"]["text"] for axis in (own, *same) if axis.get("title", {}).get("text")]
        return titles[0] if titles else ""

    def in_panel(self, panel: str | None) -> bool:
        """Whether it is in the panel of that title."""
        return panel is None or matches(panel, self.panel)

    def bars(self, letter: str) -> list[tuple[float, float]]:
        """(low, high) of each point's error bar."""
        own = self.raw[f"error_{letter}"]
        up, down = (decoded(own[name]) for name in ("array", "arrayminus"))
        middle = np.array(self.x if letter == "x" else self.y, float)
        assert own.get("symmetric") is not True
        return list(zip(middle - down, middle + up, strict=True))

    def hover(self, *at: int) -> str:
        """What is shown over a point, or over cell (row, column) of a heat map."""
        template = self.raw["hovertemplate"].replace("<extra></extra>", "")
        return re.sub(r"%\{([^}:]+)(?::([^}]*))?\}", lambda found: self._field(found, at), template)

    def _field(self, found: re.Match[str], at: tuple[int, ...]) -> str:
        name, style = found[1], found[2] or ""
        base, *inner = re.split(r"[\[\].]+", name.rstrip("]"))
        if base in ("x", "y") and len(at) == 2:
            value: Any = getattr(self, base)[at[0] if base == "y" else at[1]]
        elif base in ("x", "y"):
            value = getattr(self, base)[at[0]]
        else:
            value = decoded(self.raw[base])
            for place in (*at, *(int(one) for one in inner)):
                value = value[place]
        value = value.item() if hasattr(value, "item") else value
        if not style:
            return f"{value:g}" if isinstance(value, float) else str(value)
        return "nan" if value is None else format(float(value), style)


def decoded(values: Any) -> np.ndarray:
    """Plotly's numbers: a list, or base64 with a type."""
    if isinstance(values, dict):
        flat = np.frombuffer(base64.b64decode(values["bdata"]), np.dtype(values["dtype"]))
        shape = values.get("shape")
        return flat.reshape([int(one) for one in str(shape).split(",")]) if shape else flat
    found = [] if values is None else values
    numeric = all(isinstance(one, int | float) or one is None for one in found)
    if found and numeric and any(one is None for one in found):
        return np.array([math.nan if one is None else one for one in found])
    try:
        return np.array(found)
    except ValueError:
        return np.array(found, object)


def rgb(colour: str) -> tuple[int, ...]:
    """Red, green and blue of "#3b82f6" or "rgba(59,130,246,0.2)"."""
    if colour.startswith("#"):
        return tuple(int(colour[place : place + 2], 16) for place in (1, 3, 5))
    return tuple(int(float(one)) for one in re.findall(r"[\d.]+", colour)[:3])


def matches(pattern: str, text: str) -> bool:
    """Whether the pattern occurs, upper and lower case alike."""
    return re.search(pattern, text, re.IGNORECASE) is not None


def picture(node: Node) -> Image.Image:
    """The image inside an <img>."""
    return Image.open(io.BytesIO(base64.b64decode(node.attributes["src"].partition(",")[2]))).convert("RGB")


@dataclass(frozen=True)
class Shown:
    """A number as written: its value and the size of its last digit."""

    value: float
    step: float

    def says(self, expected: float) -> bool:
        """Whether it is the number, rounded."""
        return abs(self.value - expected) <= self.step / 2 * (1 + 1e-6) + 1e-12


def numbers(text: str) -> list[Shown]:
    """The numbers of a text in order; minus signs of both kinds."""
    found = []
    for sign, digits, decimals, power in NUMBER.findall(text):
        value = float(digits.replace(",", "") + power)
        step = 10.0 ** (-(len(decimals) - 1 if decimals else 0) + (int(power[1:]) if power else 0))
        found.append(Shown(-value if sign in ("−", "-") else value, step))
    return found


def check(text: str, *expected: float, digits: int = 0) -> None:
    """The text shows these numbers, rounded, with at least so many digits after the point; NaN is a dash."""
    if len(expected) == 1 and math.isnan(expected[0]):
        assert not numbers(text), f"expected no number, got {text!r}"
        return
    expected = tuple(value for value in expected if not math.isnan(value))
    found = numbers(text)
    assert len(found) == len(expected), f"expected {expected}, got {text!r}"
    for one, value in zip(found, expected, strict=True):
        assert one.says(value), f"expected {value}, got {one.value} in {text!r} (of {expected})"
        assert one.step <= 10.0**-digits * (1 + 1e-9), f"expected {digits} digits in {text!r}"


def check_p(text: str, expected: float) -> None:
    """The text shows this p-value, as a number or as "< 0.001"; NaN is a dash."""
    if "<" in text:
        assert expected < numbers(text)[0].value, f"expected p {expected}, got {text!r}"
    else:
        check(text.partition("(")[0], expected, digits=_p_digits(expected))


def _p_digits(expected: float) -> int:
    """How exactly a p-value must be told."""
    return 0 if math.isnan(expected) or expected > 0.99 else 1 if expected > 0.1 else 2


def near(expected: float, found: Any) -> bool:
    """Whether two numbers are the same; NaN equals NaN and null."""
    value = math.nan if found is None else float(found)
    return (math.isnan(expected) and math.isnan(value)) or math.isclose(
        expected, value, rel_tol=1e-6, abs_tol=1e-9
    )
