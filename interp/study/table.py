"""A result as text for a terminal."""

from __future__ import annotations

from collections.abc import Mapping
from io import StringIO
from typing import TYPE_CHECKING, Any

import pandas as pd
from rich.console import Console
from rich.table import Table
from rich.text import Text

from interp.errors import StudyError
from interp.metrics import METRICS

if TYPE_CHECKING:
    from interp.study.choice import LayerChoice
    from interp.study.result import Result

__all__ = ["layer_table"]

WIDTH = 110
NULLS = {"shuffled_boxes": "shuffled", "centre_prior": "centre"}


def layer_table(result: Result, metric: str, choice: LayerChoice | None = None) -> str:
    """One line per layer: mean [low, high] of each cell, and its nulls; a star at the chosen layer.

    Raises:
        StudyError: The metric was not measured.
    """
    if metric not in result.metrics:
        raise StudyError(
            f"expected one of the metrics measured, {', '.join(result.metrics)}; got {metric!r}."
        )
    summary = result.summary()
    summary = summary[summary.metric == metric].set_index([*result.axes, "layer", "control"])
    table = Table(
        title=Text(f"{METRICS[metric].label} ({METRICS[metric].better} is better)"), title_justify="left"
    )
    table.add_column("layer", justify="right")
    shown = [axis for axis in result.axes if len({cell.labels[axis] for cell in result.cells}) > 1] or [
        "data"
    ]
    for cell in result.cells:
        table.add_column(Text(" · ".join(cell.labels[axis] for axis in shown) + " [95 %]"), justify="right")
        for null in NULLS.values():
            table.add_column(Text(null), justify="right", style="dim")
    for layer in sorted(summary.index.unique("layer")):
        row = [f"{layer}{_star(layer, choice)}"]
        for cell in result.cells:
            row += _columns(summary, (*cell.key, layer))
        table.add_row(*map(Text, row))
    console = Console(file=StringIO(), width=WIDTH + 30 * max(len(result.cells) - 2, 0))
    console.print(table)
    return console.file.getvalue().rstrip()  # pyright: ignore[reportAttributeAccessIssue]


def _star(layer: int, choice: LayerChoice | None) -> str:
    return " *" if choice is not None and layer in choice.layers.values() else ""


def _number(value: float) -> str:
    return f"{round(value, 2) + 0.0:.2f}"  # no negative zero


def _interval(row: Mapping[Any, Any]) -> str:
    """The interval, or why there is none."""
    return (
        f"({row['n_groups']} groups)" if row["note"] else f"[{_number(row['low'])}, {_number(row['high'])}]"
    )


def _columns(summary: pd.DataFrame, key: tuple[str | int, ...]) -> list[str]:
    if (*key, "boxes") not in summary.index:
        return ["–"] * (1 + len(NULLS))
    own = summary.loc[(*key, "boxes")].to_dict()
    nulls = [
        _number(summary.loc[(*key, null), "mean"]) if (*key, null) in summary.index else "–" for null in NULLS
    ]
    return [f"{_number(own['mean'])} {_interval(own)}", *nulls]
