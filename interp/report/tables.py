"""Frames as tables, and the one way in which reports write numbers, intervals and p values."""

from __future__ import annotations

import csv
import math
import os
import unicodedata
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import dropwhile
from numbers import Number
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import pandas as pd

from interp.inputs.files import as_path, write_atomically
from interp.inputs.text import count
from interp.stats import MIN_GROUPS, per_group

__all__ = [
    "CONTROLS",
    "cell_name",
    "cell_names",
    "count",
    "estimate",
    "estimates",
    "group_values",
    "in_groups",
    "interval",
    "listed",
    "neutral",
    "number",
    "p_value",
    "percent",
    "read_csv",
    "rows",
    "signed",
    "size_of",
    "times",
    "varying",
    "write_csv",
]  # fmt: skip

DASH = "–"
CONTROLS = {"boxes": "own boxes", "shuffled_boxes": "another sample's boxes", "centre_prior": "centre prior"}
"""Control of a layer sweep → what tables call it."""

Column = str | Callable[[Any], Any]


def rows(found: pd.DataFrame | Iterable[Mapping[str, Any]], columns: Mapping[str, Column]) -> list[list[Any]]:
    """The entries of a table, row by row.

    Args:
        found: A frame, or its rows.
        columns: Header → the name of a column, or a function of the row as a dict.
    """
    each: Any = found.to_dict("records") if isinstance(found, pd.DataFrame) else found
    return [[row[one] if isinstance(one, str) else one(row) for one in columns.values()] for row in each]


FORMULA = ("=", "+", "-", "@", "\N{MINUS SIGN}")
"""Characters at the start of a cell that make a spreadsheet compute it; wide look-alikes count as these."""
BREAKS = ("\t", "\r", "\n")


def write_csv(frame: pd.DataFrame, path: str | os.PathLike[str]) -> Path:
    """Writes a frame as CSV, whole or not at all, and returns the path.

    Text that a spreadsheet would run as a formula gets an apostrophe in front (see `neutral`); `read_csv` takes it
    away again.

    Raises:
        RunError: The file cannot be written.
    """
    target = as_path("path", path)
    text = (
        frame.map(neutral)
        .rename(columns=neutral)
        .to_csv(index=False, quoting=csv.QUOTE_NONNUMERIC, lineterminator="\n")
    )
    write_atomically(target, text.encode(errors="backslashreplace"))
    return target


def read_csv(path: str | os.PathLike[str]) -> pd.DataFrame:
    """Returns the frame that `write_csv` wrote; an empty cell is NaN."""
    frame = pd.read_csv(path, keep_default_na=False, na_values=[""], lineterminator="\n")
    return frame.map(_as_given).rename(columns=_as_given)


def neutral(cell: Any) -> Any:
    """A cell that no spreadsheet runs: text that begins like a formula gets an apostrophe in front.

    Numbers stay, and so does text that is a number.

    >>> neutral("=SUM(A1)"), neutral("-0.5"), neutral(-0.5), neutral("a = b")
    ("'=SUM(A1)", '-0.5', -0.5, 'a = b')
    """
    if cell is None or isinstance(cell, Number | bool):
        return cell
    return f"'{cell}" if _runs(str(cell).lstrip("'")) else cell


def _runs(text: str) -> bool:
    """Whether a spreadsheet may take the text for a formula."""
    if text.startswith(BREAKS):
        return True
    seen = dropwhile(lambda one: unicodedata.category(one)[0] in "ZC", text)  # spaces and what cannot be seen
    shown = unicodedata.normalize("NFKC", "".join(seen))
    if not shown.startswith(FORMULA):
        return False
    try:
        float(shown.replace("\N{MINUS SIGN}", "-"))
    except ValueError:
        return True
    return False


def _as_given(cell: Any) -> Any:
    """The text before `neutral`."""
    marked = isinstance(cell, str) and cell[:1] == "'" and _runs(cell.lstrip("'"))
    return cell[1:] if marked else cell


def number(value: float, digits: int = 2) -> str:
    """A number with a real minus sign; a dash when it is undefined."""
    return DASH if math.isnan(value) else f"{round(value, digits) + 0.0:.{digits}f}".replace("-", "−")


def signed(value: float, digits: int = 2) -> str:
    """A number with its sign, also when it is positive; none for what rounds to zero."""
    return ("+" if round(value, digits) > 0 else "") + number(value, digits)


def percent(share: float, digits: int = 0) -> str:
    """A share as “31 %”."""
    return f"{number(100 * share, digits)} %"


def interval(low: float, high: float, digits: int = 2) -> str:
    """“[0.12, 0.30]”."""
    return f"[{number(low, digits)}, {number(high, digits)}]"


def estimate(
    row: Mapping[Any, Any],
    *,
    of: tuple[str, str, str] = ("mean", "low", "high"),
    scale: float = 1.0,
    digits: int = 2,
    sign: bool = False,
) -> str:
    """“0.21 [0.12, 0.30]”; without the interval where the groups are too few for one.

    Args:
        row: Has `n_groups` and the columns named by `of`.
        of: The columns of the value and of its interval's ends.
        scale: The factor of the numbers: 100 for percent.
        digits: Digits after the point.
        sign: Write a plus sign before what is positive.
    """
    value, low, high = [scale * row[name] for name in of]
    text = signed(value, digits) if sign else number(value, digits)
    few = row["n_groups"] < MIN_GROUPS or math.isnan(low)
    return text if few else f"{text} {interval(low, high, digits)}"


def estimates(rows: Iterable[Mapping[Any, Any]], **options: Any) -> list[str]:
    """The `estimate` of each row, with its options."""
    return [estimate(row, **options) for row in rows]


def in_groups(row: Mapping[Any, Any]) -> str:
    """The numbers of samples and of their groups: “80 in 40 groups”; the row has `n` and `n_groups`."""
    return f"{row['n']} in {count(row['n_groups'], 'group')}"


def p_value(p: float | None) -> str:
    """A p value: “< 0.001” or three digits; a dash when there is none."""
    if p is None or math.isnan(p):
        return DASH
    return "< 0.001" if p < 0.001 else f"{p:.3f}"


def times(counts: pd.Series) -> str:
    """Counts by name as “SampleError ×3, MapError ×1”."""
    return ", ".join(f"{name} ×{n}" for name, n in counts.items())


def listed(values: Iterable[Any]) -> str:
    """The distinct values in order, with commas; one that holds a comma itself is in quotation marks.

    >>> listed(["VGRefine, code", "PAI", "PAI"])
    '“VGRefine, code”, PAI'
    """
    told = dict.fromkeys(map(str, values))
    return ", ".join(one if "," not in one or one.startswith("“") else f"“{one}”" for one in told)


def group_values(values: Any, groups: Any) -> str:
    """The mean of each group as “g1: 0.20, g2: 0.31”: what to show where groups are too few for an interval."""
    means = per_group(values.to_numpy(float), groups)
    pairs = zip(means["group"], means["mean"], strict=True)
    return ", ".join(f"{group}: {number(mean)}" for group, mean in pairs)


def size_of(n_bytes: float) -> str:
    """Bytes in the unit that reads best."""
    for unit in ("B", "kB", "MB", "GB"):
        if n_bytes < 1000:
            return f"{n_bytes:.0f} {unit}" if unit == "B" else f"{n_bytes:.1f} {unit}"
        n_bytes /= 1000
    return f"{n_bytes:.1f} TB"


@runtime_checkable
class Labelled(Protocol):
    """A run of a study with its labels along the axes of the result."""

    @property
    def labels(self) -> Mapping[str, str]:
        """Axis → label."""
        ...


def cell_name(
    cells: Sequence[Labelled], cell: Labelled, default: Sequence[str] = ("data",), without: Sequence[str] = ()
) -> str:
    """What tells a cell from the others: its labels on the axes that vary.

    Args:
        cells: All cells of the result.
        cell: The one to name.
        default: The axes to name where none varies.
        without: Axes that are named elsewhere.
    """
    return cell_names(cells, default, without, of=[cell])[0]


def cell_names(
    cells: Sequence[Labelled],
    default: Sequence[str] = ("data",),
    without: Sequence[str] = (),
    *,
    of: Sequence[Labelled] | None = None,
) -> list[str]:
    """The `cell_name` of each cell, or of those in `of`."""
    varied = [axis for axis in varying(cells) if axis not in without] or default
    return [" · ".join([cell.labels[axis] for axis in varied]) for cell in (cells if of is None else of)]


def varying(cells: Sequence[Labelled]) -> list[str]:
    """The axes along which the cells differ."""
    return [axis for axis in cells[0].labels if len({cell.labels[axis] for cell in cells}) > 1]
