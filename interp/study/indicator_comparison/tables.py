"""Tables of a comparison of indicators."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from markupsafe import Markup

from interp.errors import StudyError
from interp.metrics import METRICS
from interp.report.html import Cell, Row, card, details, heading, join, key, table, tip
from interp.report.tables import estimate, number, p_value, rows, size_of
from interp.stats import MIN_GROUPS
from interp.stats import per_group as groups_of
from interp.study.dataframes import records, rows_of, where
from interp.study.indicator_comparison.figures import colours, measured_cells, name_of
from interp.study.indicator_comparison.paired_tests import values_of
from interp.study.indicator_comparison.removal_curves import MEASURES

if TYPE_CHECKING:
    from interp.study.indicator_comparison.result import IndicatorCell, IndicatorResult

__all__ = ["calibration", "cost_table", "faithful_table", "metrics_table", "pairs_table", "per_group"]

MANY_PAIRS = 400
VERDICTS = {True: ("✓", "right"), False: ("✗", "wrong")}

Measured = tuple[str, str]
"""A metric or measure, and what it was measured against."""


def calibration(result: IndicatorResult) -> Markup:
    """A line per indicator: the first metric against each truth in each cell, and a mark where it finds the first."""
    cells, summary, metric = measured_cells(result), result.summary(), result.metrics[0]
    verdicts = {
        (tuple(row[axis] for axis in result.axes), row["indicator"]): row for row in records(result.found())
    }
    first = [Cell(""), *(Cell(name_of(result, cell), span=len(cell.study.truth)) for cell in cells)]
    second = [METRICS[metric].label, *(truth for cell in cells for truth in cell.study.truth)]
    paint, lines = colours(result), []
    for label in result.indicators:
        entries: list[Any] = [join(key(paint[label]), label)]
        for cell in cells:
            own = rows_of(summary, cell.labels)
            own = where(own, (own.indicator == label) & (own.measure == metric))
            found = {row["against"]: estimate(row) for row in records(own)}
            mark = _verdict(verdicts.get((cell.key, label)))
            for place, truth in enumerate(cell.study.truth):
                text = found.get(truth, "–")
                entries.append(Cell(text, "baseline") if place else Cell(join(text, mark), "own"))
        lines.append(entries)
    return table([Row(first), Row(second)], lines, "dense")


def _verdict(row: dict[str, Any] | None) -> Markup | str:
    """✓ or ✗ after a score, with Holm's p on hovering; empty where there is no verdict."""
    if row is None or row["finds"] not in VERDICTS:
        return ""
    sign, kind = VERDICTS[row["finds"]]
    return join(" ", tip(sign, f"Holm's p {p_value(row['p_holm'])}", kind))


def per_group(result: IndicatorResult) -> Markup:
    """The first metric group by group, where the groups are too few for an interval; folded."""
    shown = []
    for cell in measured_cells(result):
        wide = values_of(result, cell, cell.study.metrics[0], None)
        if wide.group.nunique() >= MIN_GROUPS:
            continue
        labels = [label for label in cell.study.indicators if label in wide]
        means: dict[str, dict[Any, float]] = {}
        for label in labels:
            found = groups_of(wide[label].to_numpy(float), wide.group.to_numpy(object))
            means[label] = dict(zip(found["group"], found["mean"].to_numpy(float), strict=True))
        groups = list(dict.fromkeys(wide.group))
        lines = ([group, *(number(means[label][group]) for label in labels)] for group in groups)
        inner = card(table(["group", *labels], lines, "dense"))
        shown.append(details(f"Group by group: {name_of(result, cell)}", inner))
    return join(*shown)


def metrics_table(result: IndicatorResult) -> Markup:
    """Every metric against every truth; a table per cell."""
    return _wide(result, lambda cell: [(m, t) for m in cell.study.metrics for t in cell.study.truth])


def faithful_table(result: IndicatorResult) -> Markup:
    """Every measure of faithfulness under every removal; a table per cell that has any."""
    return _wide(
        result, lambda cell: [(m, removal.name) for m in MEASURES for removal in cell.study.removals]
    )


def _wide(result: IndicatorResult, measured: Callable[[IndicatorCell], list[Measured]]) -> Markup:
    """A line per indicator and a column for each measure and what it was measured against."""
    summary, parts = result.summary(), []
    for cell in (cell for cell in measured_cells(result) if measured(cell)):
        own = {
            (row["indicator"], row["measure"], row["against"]): row
            for row in records(rows_of(summary, cell.labels))
        }
        heads = [f"{METRICS[m].label if m in METRICS else m}, {against}" for m, against in measured(cell)]
        lines = (
            [label, *(_mean(own.get((label, *one))) for one in measured(cell))]
            for label in cell.study.indicators
        )
        parts.append(_titled(result, cell, table(["", *heads], lines, "dense")))
    return join(*parts)


def _mean(row: dict[str, Any] | None) -> str | None:
    if row is None:
        return None
    return estimate(row) + (f" ({row['n_undefined']} undefined)" if row["n_undefined"] else "")


def cost_table(result: IndicatorResult) -> Markup:
    """What a map of one sample takes; a table per cell."""
    columns: dict[str, Any] = {
        "": "indicator",
        "seconds": lambda row: number(row["seconds"], 4),
        "× plain, time": lambda row: number(row["seconds_ratio"]),
        "forwards": lambda row: number(row["forwards"]),
        "backwards": lambda row: number(row["backwards"]),
        "token positions": lambda row: number(row["tokens"], 0),
        "GFLOP": lambda row: number(row["flops"] / 1e9, 3),
        "× plain, operations": lambda row: number(row["flops_ratio"]),
        "peak memory": lambda row: size_of(row["peak_bytes"]),
    }
    frame, parts = result.costs(), []
    for cell in measured_cells(result):
        own = rows_of(frame, cell.labels) if len(frame) else frame
        if len(own):
            parts.append(_titled(result, cell, table(list(columns), rows(own, columns), "dense")))
    return join(*parts)


def pairs_table(result: IndicatorResult) -> Markup | str:
    """Every pair of indicators by the first metric; empty where there is none, or more than a person reads."""
    try:
        found = result.compare(result.metrics[0])
    except StudyError:
        return ""
    columns: dict[str, Any] = {
        "": lambda row: f"{row['a']} − {row['b']}",
        "means of both": lambda row: f"{number(row['mean_a'])}, {number(row['mean_b'])}",
        "difference [95 %]": lambda row: estimate(row, of=("difference", "low", "high"), sign=True),
        "p": lambda row: p_value(row["p"]),
        "Holm's p": lambda row: p_value(row["p_holm"]),
    }
    parts = []
    for cell in measured_cells(result):
        own = rows_of(found, cell.labels)
        if 0 < len(own) <= MANY_PAIRS:
            parts.append(_titled(result, cell, table(list(columns), rows(own, columns), "dense")))
    return join(*parts)


def _titled(result: IndicatorResult, cell: IndicatorCell, shown: Markup) -> Markup:
    return join(heading(name_of(result, cell), level=3), card(shown))
