"""Numbers and names as text, text as markup. Everything that comes from data passes through `safe`."""

from __future__ import annotations

import html
import math
from collections.abc import Iterable, Mapping
from typing import Any

__all__ = [
    "CONTROLS",
    "capital",
    "card",
    "cards",
    "interval",
    "mean_and_interval",
    "number",
    "rows_table",
    "safe",
    "size_of",
    "tag",
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
