"""Tables of answers that the reference paper printed, for comparison with ours."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any

import pandas as pd
from rich.table import Table
from rich.text import Text

from interp.errors import StudyError
from interp.study.result import printed

__all__ = ["PaperTable", "paper_table"]

SOURCE = "“How Do Medical MLLMs Fail?”, ICLR 2026, arXiv 2603.14323"
WIDTH = 170


@dataclass(frozen=True)
class PaperTable:
    """A table as published. Its numbers are quoted; none was measured here.

    Attributes:
        name: Its number in the source, such as "1" or "E.3".
        title: What it shows, with the unit.
        note: What does not add up in it, and how its averages are weighted; "" where there is nothing to note.
        frame: Its rows: the first `n_labels` columns are texts, the others float64 with NaN for an empty cell.
        n_labels: The number of columns that name a row.
        source: Where it was published.
    """

    name: str
    title: str
    note: str
    frame: pd.DataFrame
    n_labels: int = 1
    source: str = SOURCE

    @property
    def cells(self) -> list[list[str]]:
        """Its rows as text, with every printed digit; a dash where a cell is empty.

        >>> paper_table("F.4").cells[1][:3]
        ['PAI', '43.7', '24.48']
        """
        return [[_quoted(cell) for cell in row] for row in self.frame.itertuples(index=False)]

    def text(self) -> str:
        """The table with its source and its note, as text."""
        table = Table(title=Text(f"Published, table {self.name}: {self.title}"), title_justify="left")
        for place, name in enumerate(self.frame.columns):
            table.add_column(
                Text(str(name)), justify="left" if place < self.n_labels else "right", no_wrap=not place
            )
        for row in self.cells:
            table.add_row(*map(Text, row))
        note = [f"Does not add up, or is weighted: {self.note}."] if self.note else []
        return "\n".join([printed(table, WIDTH), f"Quoted from {self.source}.", *note])


def _quoted(cell: Any) -> str:
    """A cell as text, without rounding."""
    if isinstance(cell, str):
        return cell
    return "–" if pd.isna(cell) else str(cell)


def paper_table(name: str) -> PaperTable:
    """A table of answers that the paper printed, by its number: "1", "2", "3", "4k", "4p", "E.3", "F.4" or "G.5".

    Raises:
        StudyError: There is no such table here.

    >>> found = paper_table("1")
    >>> found.frame.loc[found.frame.Model == "HuatuoGPT-V-7B", "PMC-VQA"].item()
    53.9
    """
    tables = _tables()
    if not isinstance(name, str) or name not in tables:
        raise StudyError(f"the paper's tables of answers are {', '.join(tables)}; got {name!r:.50}.")
    found = tables[name]
    frame = pd.DataFrame(found["rows"], columns=found["columns"])
    numbers = frame.columns[found["labels"] :]
    frame[numbers] = frame[numbers].astype(float)
    return PaperTable(name, found["title"], found["note"], frame, found["labels"])


@cache
def _tables() -> dict[str, Any]:
    return json.loads((files("interp.study.benchmark") / "paper_tables.json").read_text("utf-8"))
