"""Cells against one another: the table of pairs with Holm's p, and the groups where they are few."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from interp.errors import StudyError
from interp.metrics import METRICS
from interp.report.html import CONTROLS, capital, card, mean_and_interval, number, safe, tag
from interp.stats import MIN_GROUPS
from interp.study.dataframes import records, rows_of, where
from interp.study.layer_sweep import page as prose
from interp.study.layer_sweep.figures import cell_name, key
from interp.study.layer_sweep.task import AFTER_THE_PASS

if TYPE_CHECKING:
    from interp.study.layer_choice import LayerChoice
    from interp.study.layer_sweep.result import Result

__all__ = ["comparisons", "tables"]

NAMES = ["over", "where", "a", "b"]
PAIRED = {"sample": "same samples", "group": "other samples, same groups", "none": "different samples"}


def comparisons(result: Result, choice: LayerChoice) -> str:
    """One table per axis that varies: every pair of cells that differ in it alone; empty without such a pair.

    Axes along which only the computation after the pass varies (metrics, rule, seed) are not compared.
    """
    axes = [axis for axis in result.axes if axis not in AFTER_THE_PASS]
    parts = [part for axis in axes if (part := _axis(result, choice, axis))]
    if not parts:
        return ""
    metric = METRICS[choice.metric]
    how = f"{capital(metric.label)} at the featured layer, {metric.better} is better. {prose.COMPARISONS}"
    words = [tag("p", safe(how), kind="soft wide")]
    if not choice.held_out(result):
        words.append(tag("p", prose.CHOSEN_HERE, kind="note wide"))
    return tag("h2", "Compared with one another") + "".join(words) + "".join(parts)


def _axis(result: Result, choice: LayerChoice, axis: str) -> str:
    try:
        table = result.compare(choice.metric, layer=choice, over=axis)
    except StudyError:  # no two cells differ in it alone
        return ""
    sized = bool(table.n_matched.any())
    head = [
        "",
        "mean of each",
        "difference",
        *(["at like box sizes"] if sized else []),
        "p",
        "Holm's p",
        "from",
    ]
    lines = [_line(row, sized) for row in records(table)]
    shown = tag("table", tag("tr", *(tag("th", safe(word)) for word in head)), *lines)
    title = tag("h4", safe(capital(axis)))
    return title + card(tag("div", shown, kind="scroll"), _notes(result, choice, table))


def _line(row: dict[str, Any], sized: bool) -> str:
    """One pair of cells."""
    pair = f"{safe(row['a'])} − {safe(row['b'])}"
    place = tag("span", f" {safe(row['where'])}", kind="soft") if row["where"] else ""
    entries = [
        tag("td", pair, place),
        tag("td", f"{number(row['mean_a'])}, {number(row['mean_b'])}"),
        tag("td", _difference(row, "difference", "low", "high"), kind="own"),
    ]
    if sized:
        gap = _difference(row, "matched", "matched_low", "matched_high")
        pairs = f" {row['n_matched']} pairs" if row["n_matched"] else ""
        entries.append(tag("td", gap, tag("span", pairs, kind="soft")))
    entries += [tag("td", _p(row["p"])), tag("td", tag("b", _p(row["p_holm"])))]
    return tag("tr", *entries, tag("td", _basis(row), kind="soft"))


def _difference(row: dict[str, Any], value: str, low: str, high: str) -> str:
    """“+0.12 [0.05, 0.20]”; no interval where the groups are too few for one."""
    sign = "+" if row[value] > 0 else ""
    text = f"{sign}{number(row[value])}"
    if row["n_groups"] < MIN_GROUPS or math.isnan(row[low]):
        return text
    return f"{text} [{number(row[low])}, {number(row[high])}]"


def _p(value: float) -> str:
    if math.isnan(value):
        return "–"
    return "&lt; 0.001" if value < 0.001 else f"{value:.3f}"


def _basis(row: dict[str, Any]) -> str:
    """What was compared: “same samples, 24 groups”."""
    least = "≥ " if row["paired"] == "none" else ""  # of two sides the smaller one is named
    groups = f"{least}{row['n_groups']} group{'s' if row['n_groups'] != 1 else ''}"
    left = f", {row['left_out']} values left out" if row["left_out"] else ""
    return f"{PAIRED[row['paired']]}, {groups}{left}"


def _notes(result: Result, choice: LayerChoice, table: pd.DataFrame) -> str:
    """What must be said of a pair, and its groups where they are too few for a claim."""
    noted = [row for row in records(table) if row["note"]]
    said: dict[str, list[str]] = {}
    for row in noted:
        said.setdefault(row["note"], []).append(_title(row))
    parts = [
        tag("p", tag("b", safe("; ".join(titles))), f": {safe(note)}", kind="note")
        for note, titles in said.items()
    ]
    few = [row for row in noted if row["n_groups"] < MIN_GROUPS]
    if few:
        groups = result.compare_groups(choice.metric, layer=choice, over=few[0]["over"])
        parts += [_groups(row, groups) for row in few]
    return "".join(parts)


def _title(row: dict[str, Any]) -> str:
    return f"{row['a']} − {row['b']}" + (f", {row['where']}" if row["where"] else "")


def _groups(row: dict[str, Any], groups: pd.DataFrame) -> str:
    """The means per group of the sides that have too few."""
    own = rows_of(groups, {name: row[name] for name in NAMES})
    counts = {side: own[f"n_{side}"].to_numpy() for side in ("a", "b")}
    few = [side for side, count in counts.items() if np.count_nonzero(count) < MIN_GROUPS]
    shown = where(own, np.any([counts[side] > 0 for side in few], axis=0))
    head = tag("tr", tag("th", "group"), *(tag("th", safe(row[side])) for side in few))
    lines = [
        tag("tr", tag("td", safe(one["group"])), *(tag("td", _group_mean(one, side)) for side in few))
        for one in records(shown)
    ]
    table = tag("div", tag("table", head, *lines), kind="scroll")
    return tag("details", tag("summary", f"Per group: {safe(_title(row))}"), table)


def _group_mean(one: dict[str, Any], side: str) -> str:
    count = tag("span", f" n = {one[f'n_{side}']}", kind="soft")
    return number(one[f"mean_{side}"]) + (count if one[f"n_{side}"] else "")


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
