"""What the pages of methods and of benchmarks share: tables, points and failures of before and after."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import pandas as pd
import plotly.graph_objects as go
from markupsafe import Markup

from interp.errors import StudyError
from interp.report.figures import SERIES, points
from interp.report.html import Cell, Row, bold, card, details, join, paragraph, section, span, table
from interp.report.provenance import failure_list
from interp.report.tables import cell_name, count, estimate, number, p_value, rows, varying
from interp.stats import MIN_GROUPS, flips
from interp.study.dataframes import records, rows_of, where
from interp.study.runs import GridCell

if TYPE_CHECKING:
    from interp.study.refinement.result import PairedResult

__all__ = [
    "DIFFERENCE",
    "FLIP_COLUMNS",
    "MARK_COLUMNS",
    "PLACE",
    "cell_title",
    "count_of",
    "difference",
    "difference_hover",
    "difference_points",
    "failures_section",
    "flips_card",
    "measures_table",
    "methods_card",
    "pairs_card",
    "panel_name",
    "per_group",
    "percentage_points",
    "places",
]

PLACE = ("model", "data")
DIFFERENCE = ("difference", "low", "high")
MANY_PAIRS = 90
MANY_GROUPS = 10
PAIRS = """The mean with the first method minus the mean with the second, on the same samples. p: sign flips of whole
groups' differences. Holm's p is adjusted over this table."""
PER_GROUP = """There are too few groups for an interval, so the values of each group are shown. No claim about a
population is made."""


def places(result: PairedResult) -> list[dict[str, str]]:
    """The pairs of model and data of a result, in order; each has a panel."""
    found = dict.fromkeys(tuple(cell.labels[axis] for axis in PLACE) for cell in result.cells)
    return [dict(zip(PLACE, key, strict=True)) for key in found]


def panel_name(result: PairedResult, place: dict[str, str]) -> str:
    """The title of a panel: its data, and its model where there are several."""
    return " · ".join(place.values()) if "model" in varying(result.cells) else place["data"]


def cell_title(result: PairedResult, cell: GridCell) -> str:
    """A cell's labels on the axes that vary; its data and method if it is the only cell."""
    return cell_name(result.cells, cell, ("data", "method"))


def difference(row: dict[str, Any], scale: float = 1.0, digits: int = 2) -> str:
    """“+1.2 [−0.3, 2.8]”: after − before."""
    return estimate(row, of=DIFFERENCE, scale=scale, digits=digits, sign=True)


def count_of(value: float | None) -> str:
    """A count as text; a dash where the measure has no flips."""
    return number(math.nan if value is None else float(value), 0)


def percentage_points(row: dict[str, Any]) -> str:
    """A difference of accuracies in percentage points, with its interval."""
    return difference(row, 100, 1)


def measures_table(found: list[dict[str, Any]], names: Mapping[str, str]) -> Markup:
    """The table of every measure before and after; `names` has what the mean of each is called."""
    columns: dict[str, Any] = {
        "mean of": lambda row: names[row["measure"]],
        "before": lambda row: number(row["before"], 3),
        "after": lambda row: number(row["after"], 3),
        "difference [95 %]": lambda row: difference(row, digits=3),
    }
    return table(list(columns), rows(found, columns))


MARK_COLUMNS: dict[str, Any] = {
    "before, %": lambda row: number(100 * row["before"], 1),
    "after, %": lambda row: number(100 * row["after"], 1),
    "points": lambda row: bold(percentage_points(row)),
}
"""The columns of a table that compare marks before and after."""
FLIP_COLUMNS: dict[str, Any] = {
    "+": lambda row: count_of(row["wrong_to_right"]),
    "−": lambda row: count_of(row["right_to_wrong"]),
    "McNemar": lambda row: p_value(row["p_flips"]),
    "Holm's p": lambda row: p_value(row["p_holm"]),
}
"""The columns that say how many marks changed, and what the tests say."""


def methods_card(result: PairedResult) -> Markup | str:
    """One line per cell: accuracy before and after, the paired difference, flips, tests, log-probability, cost."""
    summary = result.summary()
    rest = [axis for axis in result.axes if axis not in ("model", "data")]
    columns: dict[str, Any] = {
        "method": lambda row: " · ".join(str(row[axis]) for axis in rest),
        **MARK_COLUMNS,
        **FLIP_COLUMNS,
        "Δ log p, nats": "logprob",
        "s ×": lambda row: f"{row['seconds']:.2f}",
        "passes ×": lambda row: f"{row['forwards']:.2f}",
        "tokens ×": lambda row: f"{row['tokens']:.2f}",
    }
    lines: list[Any] = []
    for place in places(result):
        found = _with_logprob(result, rows_of(summary, place))
        if found and len(places(result)) > 1:
            lines.append(Row([Cell(bold(panel_name(result, place)), span=len(columns))], "chosen"))
        lines += rows(found, columns)
    if not lines:
        return ""
    correct = where(summary, summary.measure == result.main)
    notes = [paragraph(note, kind="note") for note in dict.fromkeys(correct.note) if note]
    return card(table(list(columns), lines, "dense"), *notes)


def _with_logprob(result: PairedResult, summary: pd.DataFrame) -> list[dict[str, Any]]:
    """The rows of accuracy, each with the change of the same cell's log-probability as text."""

    def key(row: dict[str, Any]) -> tuple[str, ...]:
        return tuple(str(row[axis]) for axis in result.axes)

    found = {key(row): difference(row) for row in records(where(summary, summary.measure == "logprob"))}
    correct = records(where(summary, summary.measure == result.main))
    return [{**row, "logprob": found.get(key(row))} for row in correct]


def pairs_card(result: PairedResult) -> Markup | str:
    """Every pair of methods on the same samples, folded; empty where there are none or more than a reader can use."""
    try:
        found = result.compare()
    except StudyError:
        return ""
    if len(found) > MANY_PAIRS:
        return ""
    each = f"{result.measure_names[result.main]} of each, %"
    columns: dict[str, Any] = {
        "methods": lambda row: join(
            f"{row['a']} − {row['b']}", span(f" {row['where']}") if row["where"] else ""
        ),
        each: lambda row: f"{number(100 * row['mean_a'], 1)}, {number(100 * row['mean_b'], 1)}",
        "difference, points": lambda row: Cell(percentage_points(row), "own"),
        "only one right": lambda row: f"{count_of(row['only_a_right'])}, {count_of(row['only_b_right'])}",
        "p": lambda row: p_value(row["p"]),
        "Holm's p": lambda row: bold(p_value(row["p_holm"])),
    }
    shown = card(paragraph(PAIRS, kind="soft"), table(list(columns), rows(found, columns)))
    return details(f"Methods against one another: {count(len(found), 'pair')}", shown)


def flips_card(result: PairedResult, cell: GridCell) -> Markup | str:
    """Right and wrong before and after, as a 2 × 2 table; empty where no sample has an answer."""
    pairs = rows_of(result.pairs, cell.labels)
    own = where(pairs, pairs.measure == result.main)
    found = flips(own.before.to_numpy(float), own.after.to_numpy(float))
    if not found.n:
        return ""
    lines = (
        ("right before", found.both_right, bold(found.right_to_wrong, kind="wrong")),
        ("wrong before", bold(found.wrong_to_right, kind="right"), found.both_wrong),
    )
    unmarked = f" Without an answer: {found.n_unmarked}." if found.n_unmarked else ""
    words = f"{count(found.n, 'sample')}; McNemar p {p_value(found.p)}.{unmarked}"
    shown = table(("", "right after", "wrong after"), lines)
    return card(shown, paragraph(words, kind="soft"), title=cell_title(result, cell))


def per_group(result: PairedResult) -> Markup | str:
    """The values of each group, where there are too few groups for a claim."""
    found = result.per_group()
    if found.empty:
        return ""
    shown: dict[tuple[str, ...], dict[str, str]] = {}
    for row in records(found):
        before, after = (number(100 * row[name], 1) for name in ("before", "after"))
        key = tuple(str(row[axis]) for axis in result.axes)
        shown.setdefault(key, {})[str(row["group"])] = f"{before} → {after} (n = {row['n']})"
    groups = list(dict.fromkeys(map(str, found.group)))
    titles = {cell.key: cell_title(result, cell) for cell in result.cells}
    named = f"{result.measure_names[result.main]}, %"
    if len(groups) > MANY_GROUPS:  # a line for each group, where a column for each would be too wide
        lines = [(titles[key], group, words) for key, own in shown.items() for group, words in own.items()]
        body = table(("run", "group", named), lines)
    else:
        lines = [(titles[key], *(own.get(group) for group in groups)) for key, own in shown.items()]
        body = table((named, *groups), lines)
    return section("Group by group", paragraph(PER_GROUP, kind="note wide"), card(body))


def difference_points(rows: pd.DataFrame, names: list[str]) -> go.Scatter:
    """Differences of accuracies in percentage points with their intervals, one named line per row."""
    return points(
        rows,
        names,
        of=DIFFERENCE,
        scale=100,
        marker={"size": 9, "color": SERIES[0]},
        arms={"thickness": 2, "width": 5},
        text=[difference_hover(row) for row in records(rows)],
        hovertemplate="%{y}: %{text}<extra></extra>",
    )


def difference_hover(row: dict[str, Any]) -> str:
    """“+2.5 points [−1.0, 6.2] · 80 samples, 40 groups”."""
    value, _, ends = estimate(row, of=DIFFERENCE, scale=100, digits=1, sign=True).partition(" ")
    few = ", too few for an interval" if row["n_groups"] < MIN_GROUPS else ""
    counts = f"{count(row['n'], 'sample')}, {count(row['n_groups'], 'group')}"
    return f"{value} points {ends}".rstrip() + f" · {counts}{few}"


def failures_section(result: PairedResult, none: str) -> Markup:
    """What could not be answered, and why, with the first of each kind; `none` is the sentence for no failures."""
    found = result.failures
    if found.empty:
        return section("Failures", paragraph(none, kind="soft"))
    varied = varying(result.cells)
    words = f"Left out, over all runs: {len(found)}. Means are over the rest. The first of each kind:"
    shown = card(failure_list(found, [*varied, "sample"], distinct=varied))
    return section("Failures", paragraph(words, kind="wide"), shown)
