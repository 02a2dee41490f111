"""The calibration table as text: which indicator finds the certified cause."""

from __future__ import annotations

from io import StringIO
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from interp.metrics import METRICS
from interp.stats import MIN_GROUPS
from interp.study.frames import records, rows_of, where

if TYPE_CHECKING:
    from interp.study.indicator_result import IndicatorResult

__all__ = ["calibration_table", "mark"]

WIDTH = 190


def calibration_table(result: IndicatorResult, measure: str | None = None) -> str:
    """One line per indicator, two columns or more per cell: the measure against each truth, ✓ where it is found."""
    chosen = measure or result.metrics[0]
    cells = [cell for cell in result.cells if cell.measured]
    verdicts = {
        (tuple(row[axis] for axis in result.axes), row["indicator"]): row["finds"]
        for row in records(result.found(chosen))
    }
    summary = result.summary()
    table = Table(title=Text(f"{METRICS[chosen].label}, mean [95 %]"), title_justify="left")
    table.add_column("indicator", no_wrap=True)
    for cell in cells:
        for truth in cell.study.truth:
            table.add_column(Text(f"{' · '.join(cell.key)}\n{truth}"), justify="right")
    for label in result.indicators:
        entries = []
        for cell in cells:
            own = rows_of(summary, cell.labels)
            own = where(own, (own.indicator == label) & (own.measure == chosen))
            rows = {row["against"]: row for row in records(own)}
            for place, truth in enumerate(cell.study.truth):
                sign = mark(verdicts.get((cell.key, label))) if place == 0 else ""
                entries.append(_entry(rows.get(truth), sign))
        table.add_row(Text(label), *map(Text, entries))
    console = Console(file=StringIO(), width=WIDTH)
    console.print(table)
    notes = [
        "✓: better than every map that knows nothing, on the same samples (paired, by group, Holm p ≤ 0.05)."
    ]
    notes += [
        f"{' · '.join(cell.key)}: {n} groups are too few for intervals and verdicts; no claim about a population."
        for cell in cells
        if (n := rows_of(result.samples, cell.labels).group.nunique()) < MIN_GROUPS
    ]
    text: Any = console.file
    return "\n".join([text.getvalue().rstrip(), *notes])


def mark(finds: Any) -> str:
    """✓, ✗, or nothing where there is no verdict."""
    return "" if finds is None or finds != finds else " ✓" if finds else " ✗"


def _entry(row: dict[str, Any] | None, sign: str) -> str:
    if row is None:
        return "–"
    ends = "" if row["n_groups"] < MIN_GROUPS else f" [{row['low']:.2f}, {row['high']:.2f}]"
    return f"{row['mean']:.2f}{ends}{sign}"
