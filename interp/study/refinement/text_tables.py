"""A refinement's result as text for a terminal."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd
from rich.table import Table
from rich.text import Text

from interp.stats import MIN_GROUPS
from interp.study.dataframes import records, where
from interp.study.result import printed

__all__ = ["methods_table", "p_text", "pairs_table"]

WIDTH = 170
MANY = 20
"""Cells up to which groups are shown one by one; more is too much to read."""


def methods_table(
    summary: pd.DataFrame, per_group: pd.DataFrame | None, axes: Sequence[str], varied: Sequence[str]
) -> str:
    """One line per cell: accuracy before and after, the difference with its interval, flips, tests and cost.

    Args:
        summary: `RefinementResult.summary()`.
        per_group: `RefinementResult.per_group()`, shown below the table; None to leave it out.
        axes: The axes of both.
        varied: Those in which the cells differ, which name the lines.
    """
    table = Table(title=Text("Accuracy, plain model → method"), title_justify="left")
    table.add_column(" · ".join(varied) or "method", no_wrap=True)
    for name in (
        "before",
        "after",
        "difference [95 %]",
        "flips + −",
        "McNemar",
        "Holm",
        "Δ log p",
        "s",
        "passes",
        "tokens",
    ):
        table.add_column(name, justify="right")
    more = where(summary, summary.measure == "logprob").set_index(list(axes))
    for row in records(where(summary, summary.measure == "correct")):
        key = tuple(row[axis] for axis in axes)
        logprob = _range(more.loc[key].to_dict()) if key in more.index else "–"
        name = " · ".join(row[axis] for axis in varied or ["method"])
        numbers = (
            f"{row['before']:.3f}",
            f"{row['after']:.3f}",
            _range(row),
            f"+{row['wrong_to_right']:.0f} −{row['right_to_wrong']:.0f}",
            p_text(row["p_flips"]),
            p_text(row["p_holm"]),
            logprob,
            f"×{row['seconds']:.2f}",
            f"×{row['forwards']:.2f}",
            f"×{row['tokens']:.2f}",
        )
        table.add_row(*map(Text, (name, *numbers)))
    notes = dict.fromkeys(
        row["note"] for row in records(summary) if row["note"] and row["measure"] == "correct"
    )
    return "\n".join([printed(table, WIDTH), *notes, *_groups(per_group, varied)])


def pairs_table(found: pd.DataFrame) -> str:
    """One line per row of `compare_methods`: the difference of accuracies, how often only one was right, and p."""
    table = Table(title=Text("Accuracy, first − second"), title_justify="left")
    table.add_column("pair", no_wrap=True)
    for name in ("accuracies", "difference [95 %]", "only one right", "p", "Holm"):
        table.add_column(name, justify="right")
    for row in records(found):
        pair = f"{row['a']} − {row['b']}" + (f" · {row['where']}" if row["where"] else "")
        numbers = (
            f"{row['mean_a']:.3f}, {row['mean_b']:.3f}",
            _range(row),
            f"{row['only_a_right']}, {row['only_b_right']}",
            p_text(row["p"]),
            p_text(row["p_holm"]),
        )
        table.add_row(*map(Text, (pair, *numbers)))
    return printed(table, WIDTH)


def _groups(found: pd.DataFrame | None, varied: Sequence[str]) -> list[str]:
    """Group by group, where groups are too few for an interval."""
    if found is None or found.empty:
        return []
    table = Table(title=Text("Group by group: accuracy before → after (samples)"), title_justify="left")
    groups = list(dict.fromkeys(found.group))
    for name in (" · ".join(varied) or "method", *groups):
        table.add_column(Text(str(name)), no_wrap=True)
    lines: dict[str, dict[str, str]] = {}
    for row in records(found):
        name = " · ".join(row[axis] for axis in varied or ["method"])
        lines.setdefault(name, {})[row["group"]] = f"{row['before']:.2f} → {row['after']:.2f} ({row['n']})"
    for name, own in lines.items():
        table.add_row(*map(Text, (name, *(own.get(group, "–") for group in groups))))
    return [printed(table, WIDTH)]


def _range(row: Mapping[Any, Any]) -> str:
    """“+0.02 [−0.01, 0.05]”; the number of groups where they are too few for an interval."""
    few = row["n_groups"] < MIN_GROUPS or math.isnan(row["low"])
    ends = f"({row['n_groups']} groups)" if few else f"[{_signed(row['low'])}, {_signed(row['high'])}]"
    return f"{_signed(row['difference'])} {ends}"


def _signed(value: float) -> str:
    return f"{round(value, 3) + 0.0:+.3f}"  # no negative zero


def p_text(p: float) -> str:
    """A p-value with three digits; a dash when there is none."""
    if math.isnan(p):
        return "–"
    return "< 0.001" if p < 0.001 else f"{p:.3f}"
