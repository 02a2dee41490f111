"""Every layer's numbers as HTML tables."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pandas as pd

from interp.metrics import METRICS
from interp.report.figures import cell_name, key
from interp.report.words import CONTROLS, capital, card, mean_and_interval, safe, tag
from interp.study.frames import records, rows_of, where

if TYPE_CHECKING:
    from interp.study.choice import LayerChoice
    from interp.study.result import Result

__all__ = ["tables"]


def tables(result: Result, choice: LayerChoice) -> str:
    """Each layer and control with its interval, one table per metric; the first stands open."""
    summary = result.summary()
    parts = []
    for metric in result.metrics:
        word = f"{capital(METRICS[metric].label)} ({METRICS[metric].better} is better)"
        table = card(_table(result, where(summary, summary.metric == metric), choice), kind="scroll")
        opened = " open" if metric == result.metrics[0] else ""
        parts.append(f"<details{opened}>{tag('summary', safe(word))}{table}</details>")
    return tag("h2", "Every layer") + "".join(parts)


def _table(result: Result, summary: pd.DataFrame, choice: LayerChoice) -> str:
    titles = [tag("th", "layer")]
    rows: dict[Any, dict[Any, Any]] = {}
    for cell in result.cells:
        titles.append(tag("th", key(result, cell), safe(cell_name(result, cell))))
        titles += [tag("th", "shuffled boxes"), tag("th", "centre prior")]
        for row in records(rows_of(summary, cell.labels)):
            rows[cell.key, row["layer"], row["control"]] = row
    lines = []
    for layer in sorted(summary.layer.unique()):
        keys = [(cell.key, layer, control) for cell in result.cells for control in CONTROLS]
        entries = "".join(_entry(rows.get(key)) for key in keys)
        kind = "chosen" if layer in choice.layers.values() else ""
        lines.append(tag("tr", tag("td", str(layer)), entries, kind=kind))
    return tag("table", tag("tr", *titles), *lines)


def _entry(row: dict[Any, Any] | None) -> str:
    if row is None:
        return tag("td", "–")
    own = row["control"] == "boxes"
    return tag("td", mean_and_interval(row), kind="own" if own else "null")
