"""Tables of a comparison of indicators."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import pandas as pd

from interp.errors import StudyError
from interp.metrics import METRICS
from interp.report.html import card, mean_and_interval, number, safe, size_of, tag
from interp.stats import MIN_GROUPS
from interp.stats import per_group as groups_of
from interp.study.dataframes import records, rows_of, where
from interp.study.indicator_comparison.figures import cell_name, colours, measured_cells
from interp.study.indicator_comparison.paired_tests import values_of
from interp.study.indicator_comparison.removal_curves import MEASURES
from interp.study.refinement.tables import p_words, range_of

if TYPE_CHECKING:
    from interp.study.indicator_comparison.result import IndicatorCell, IndicatorResult

__all__ = ["calibration", "cost_table", "faithful_table", "metrics_table", "pairs_table", "per_group"]

MANY = 400
VERDICTS = {True: ("✓", "right"), False: ("✗", "wrong")}


def calibration(result: IndicatorResult) -> str:
    """A line per indicator: the first metric against each truth in each cell, and a mark where it finds the first."""
    cells, summary = measured_cells(result), result.summary()
    metric = result.metrics[0]
    verdicts = {
        (tuple(row[a] for a in result.axes), row["indicator"]): row for row in records(result.found())
    }
    first, second = [tag("th", "")], [tag("th", safe(METRICS[metric].label))]
    for cell in cells:
        first.append(f'<th colspan="{len(cell.study.truth)}">{safe(cell_name(result, cell))}</th>')
        second += [tag("th", safe(truth)) for truth in cell.study.truth]
    lines = [tag("tr", *first), tag("tr", *second)]
    for label in result.indicators:
        entries = [tag("td", _key(result, label), safe(label))]
        for cell in cells:
            own = rows_of(summary, cell.labels)
            own = where(own, (own.indicator == label) & (own.measure == metric))
            found = {row["against"]: row for row in records(own)}
            for place, truth in enumerate(cell.study.truth):
                text = mean_and_interval(found[truth]) if truth in found else "–"
                if place == 0:
                    entries.append(tag("td", text, _verdict(verdicts.get((cell.key, label))), kind="own"))
                else:
                    entries.append(tag("td", text, kind="null"))
        lines.append(tag("tr", *entries))
    return tag("div", tag("table", *lines, kind="dense"), kind="scroll")


def _verdict(row: dict[str, Any] | None) -> str:
    """✓ or ✗ after a score, with Holm's p where it is hovered; room for one where there is no verdict."""
    if row is None or row["finds"] not in VERDICTS:
        return ""
    sign, kind = VERDICTS[row["finds"]]
    return f' <span class="{kind}" title="Holm’s p {p_words(row["p_holm"])}">{sign}</span>'


def per_group(result: IndicatorResult) -> str:
    """The first metric group by group, where the groups are too few for an interval; folded."""
    shown = []
    for cell in measured_cells(result):
        wide = values_of(result, cell, cell.study.metrics[0], None)
        if wide.group.nunique() >= MIN_GROUPS:
            continue
        labels = [label for label in cell.study.indicators if label in wide]
        groups = list(dict.fromkeys(wide.group))
        heads = tag("tr", tag("th", "group"), *(tag("th", safe(label)) for label in labels))
        means = {label: _group_means(wide, label) for label in labels}
        lines = (
            tag("tr", tag("td", safe(group)), *(tag("td", number(means[one][group])) for one in labels))
            for group in groups
        )
        title = f"Group by group: {cell_name(result, cell)}"
        table = card(tag("div", tag("table", heads, *lines, kind="dense"), kind="scroll"))
        shown.append(tag("details", tag("summary", safe(title)), table))
    return "".join(shown)


def _group_means(wide: pd.DataFrame, label: str) -> dict[Any, float]:
    found = groups_of(wide[label].to_numpy(float), wide.group.to_numpy(object))
    return dict(zip(found.group, found["mean"].to_numpy(float), strict=True))


def metrics_table(result: IndicatorResult) -> str:
    """Every metric against every truth; a table per cell."""
    keys = {
        (metric, truth)
        for cell in result.cells
        for metric in cell.study.metrics
        for truth in cell.study.truth
    }
    return _wide(result, lambda cell: [(m, t) for m in cell.study.metrics for t in cell.study.truth], keys)


def faithful_table(result: IndicatorResult) -> str:
    """Every measure of faithfulness under every removal; a table per cell."""
    keys = {(m, removal.name) for cell in result.cells for m in MEASURES for removal in cell.study.removals}
    return _wide(result, lambda cell: [(m, r.name) for m in MEASURES for r in cell.study.removals], keys)


def _wide(result: IndicatorResult, columns: Any, keys: set[tuple[str, str]]) -> str:
    if not keys:
        return ""
    summary, parts = result.summary(), []
    for cell in measured_cells(result):
        own = rows_of(summary, cell.labels)
        rows = {(row["indicator"], row["measure"], row["against"]): row for row in records(own)}
        heads = [f"{METRICS[m].label if m in METRICS else m}, {against}" for m, against in columns(cell)]
        lines = [
            (label, *(_mean(rows.get((label, *key))) for key in columns(cell)))
            for label in cell.study.indicators
        ]
        parts.append(_titled(result, cell, ("", *heads), lines))
    return "".join(parts)


def _mean(row: dict[str, Any] | None) -> str:
    if row is None:
        return "–"
    lost = f" ({row['n_undefined']} undefined)" if row["n_undefined"] else ""
    return mean_and_interval(row) + lost


def cost_table(result: IndicatorResult) -> str:
    """What a map of one sample takes; a table per cell."""
    frame, parts = result.costs(), []
    heads = (
        "",
        "seconds",
        "× plain",
        "forwards",
        "backwards",
        "token positions",
        "GFLOP",
        "× plain",
        "peak memory",
    )
    for cell in measured_cells(result):
        own = rows_of(frame, cell.labels) if len(frame) else frame
        lines = [
            (
                row["indicator"],
                number(row["seconds"], 4),
                number(row["seconds_ratio"]),
                number(row["forwards"]),
                number(row["backwards"]),
                number(row["tokens"], 0),
                number(row["flops"] / 1e9, 3),
                number(row["flops_ratio"]),
                size_of(row["peak_bytes"]),
            )
            for row in records(own)
        ]
        if lines:
            parts.append(_titled(result, cell, heads, lines))
    return "".join(parts)


def pairs_table(result: IndicatorResult) -> str:
    """Every pair of indicators by the first metric; empty where there is none, or more than a person reads."""
    try:
        found = result.compare(result.metrics[0])
    except StudyError:
        return ""
    parts = []
    for cell in measured_cells(result):
        own = rows_of(found, cell.labels)
        if not len(own) or len(own) > MANY:
            continue
        lines = [
            (
                f"{row['a']} − {row['b']}",
                f"{number(row['mean_a'])}, {number(row['mean_b'])}",
                range_of(row),
                p_words(row["p"]).replace("&lt;", "<"),
                p_words(row["p_holm"]).replace("&lt;", "<"),
            )
            for row in records(own)
        ]
        parts.append(_titled(result, cell, ("", "means", "difference [95 %]", "p", "Holm’s p"), lines))
    return "".join(parts)


def _titled(
    result: IndicatorResult, cell: IndicatorCell, heads: Iterable[str], lines: Iterable[Iterable[str]]
) -> str:
    head = tag("tr", *(tag("th", safe(word)) for word in heads))
    rows = (tag("tr", *(tag("td", safe(word)) for word in line)) for line in lines)
    table = tag("div", tag("table", head, *rows, kind="dense"), kind="scroll")
    return tag("h4", safe(cell_name(result, cell))) + card(table)


def _key(result: IndicatorResult, label: str) -> str:
    return f'<span class="key" style="background:{colours(result)[label]}"></span>'
