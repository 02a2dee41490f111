"""Tables of a layer sweep: the featured layer against its baselines, cells against one another, every layer."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from markupsafe import Markup

from interp.errors import StudyError
from interp.metrics import METRICS
from interp.report.html import (
    Cell,
    Row,
    bold,
    capital,
    card,
    details,
    grid,
    heading,
    headline,
    join,
    paragraph,
    section,
    span,
    table,
)  # fmt: skip
from interp.report.tables import (
    CONTROLS,
    cell_name,
    cell_names,
    count,
    estimate,
    estimates,
    group_values,
    number,
    p_value,
    percent,
)
from interp.stats import MIN_GROUPS
from interp.study.dataframes import records, rows_of, where
from interp.study.layer_sweep.figures import key
from interp.study.layer_sweep.lesions import has_lesions, lesion_hits
from interp.study.layer_sweep.task import AFTER_THE_PASS

if TYPE_CHECKING:
    from interp.study.layer_choice import LayerChoice
    from interp.study.layer_sweep.result import Cell as SweepCell
    from interp.study.layer_sweep.result import Result

__all__ = ["comparisons", "every_layer", "findings", "lesions"]

BASELINES = ("shuffled_boxes", "centre_prior")
BEATS_BOTH = Markup("""More inside the boxes than <b>both</b> baselines: the interval of each paired difference lies
beyond zero.""")
BEATS_NONE = "Not distinguishable from the baselines: the interval of each paired difference contains zero."
COMPARISONS = """Differences are first minus second. p: permutation test that moves whole groups (it flips the signs
of paired differences, or changes which side a group is on). Holm's p is adjusted over all rows of the table.
Different samples may have boxes of different size: “at like box sizes” compares pairs whose boxes cover the same
share of the tokens, to 10 %."""
CHOSEN_HERE = """The layer was chosen on these same samples, so these p values are too small: read them as a
description."""
LESIONS = """A lesion seen in several slices of a volume counts once: it is hit if the largest token of the map lies
inside it in any of its slices. The more slices, the easier that is, so compare with what a uniform map would reach
(chance) and with the baselines. Intervals resample volumes."""
PAIRED = {"sample": "same samples", "group": "other samples, same groups", "none": "different samples"}
PAIR = ["over", "where", "a", "b"]


def findings(result: Result, choice: LayerChoice) -> Markup:
    """One card per cell: the chosen metric at the featured layer against both baselines."""
    metric = METRICS[choice.metric]
    here = result.at_layer(choice)
    here = where(here, here.metric == metric.name)
    how = f"{capital(metric.label)}, {metric.better} is better. {capital(choice.sentence(result))}"
    cards = (_finding(result, cell, here, metric.name) for cell in result.cells)
    return section("At the featured layer", grid(cards), intro=how)


def _finding(result: Result, cell: SweepCell, here: pd.DataFrame, metric: str) -> Markup:
    title = join(key(result, cell), cell_name(result.cells, cell))
    found = {row["control"]: row for row in records(rows_of(here, cell.labels))}
    if "boxes" not in found:
        return card(paragraph("No sample could be measured."), title=title)
    own = found["boxes"]
    value, _, ends = estimate(own).partition(" ")
    counts = f"{ends} · " if ends else ""
    counts += f"{count(own['n'], 'sample')}, {count(own['n_groups'], 'group')}"
    heads = ("baseline", "its score", "own boxes minus baseline")
    lines = [
        (CONTROLS[name], estimate(found[name]), estimate(found[f"boxes − {name}"], sign=True))
        for name in BASELINES
        if name in found
    ]
    return card(
        headline(value, counts),
        paragraph(_verdict(found, metric)),
        table(heads, lines),
        paragraph(_context(result, cell), kind="soft"),
        _few(result, cell, own, metric),
        title=title,
    )


def _verdict(found: dict[str, dict[str, Any]], metric: str) -> Markup:
    """For each baseline, whether the interval of the paired difference excludes zero."""
    if found["boxes"]["n_groups"] < MIN_GROUPS:
        return join("Too few groups for a claim beyond these samples.")
    sign = 1 if METRICS[metric].better == "higher" else -1
    above, below = [], []
    for name in (name for name in BASELINES if name in found):
        gap = found[f"boxes − {name}"]
        low, high = sorted((sign * gap["low"], sign * gap["high"]))
        if low > 0:
            above.append(CONTROLS[name])
        elif high < 0:
            below.append(CONTROLS[name])
    if len(above) == len(BASELINES):
        return BEATS_BOTH
    more = f"More inside the boxes than {above[0]}. " if above else ""
    less = join(bold("Less"), f" than {' and '.join(below)}.") if below else ""
    return join(more, less) or join(BEATS_NONE)


def _context(result: Result, cell: SweepCell) -> str:
    """How large the boxes are, whether the model sees them, whether it answers right."""
    samples = rows_of(result.samples, cell.labels)
    share = (samples.n_box_tokens / samples.n_tokens).median()
    text = f"The median box covers {percent(share, 1)} of the image tokens."
    answered = samples.correct.dropna()
    if len(answered):
        text += f" First answer token right: {percent(answered.astype(float).mean())} of {len(answered)}."
    lost = int((samples.lost_area > 0.01).sum())
    if lost:
        text += f" For {count(lost, 'sample')} the model does not see the whole box."
    return text


def _few(result: Result, cell: SweepCell, own: dict[str, Any], metric: str) -> Markup | str:
    """The values per group, where there are too few groups for a claim."""
    if not own["note"]:
        return ""
    scores = rows_of(result.scores, cell.labels)
    here = (scores.metric == metric) & (scores.control == "boxes") & (scores.layer == own["layer"])
    values = group_values(scores[here].value, scores[here].group)
    return paragraph(f"{own['note']} Per group: {values}.", kind="note")


def comparisons(result: Result, choice: LayerChoice) -> Markup:
    """One table per axis that varies: every pair of cells that differ in it alone; empty without such a pair.

    Axes along which only the computation after the pass varies (metrics, rule, seed) are not compared.
    """
    axes = [axis for axis in result.axes if axis not in AFTER_THE_PASS]
    shown = join(*(_axis(result, choice, axis) for axis in axes))
    if not shown:
        return shown
    metric = METRICS[choice.metric]
    how = f"{capital(metric.label)} at the featured layer, {metric.better} is better. {COMPARISONS}"
    note = "" if choice.held_out(result) else paragraph(CHOSEN_HERE, kind="note wide")
    return section("Compared with one another", note, shown, intro=how)


def _axis(result: Result, choice: LayerChoice, axis: str) -> Markup | str:
    try:
        found = result.compare(choice.metric, layer=choice, over=axis)
    except StudyError:  # no two cells differ in it alone
        return ""
    sized = bool(found.n_matched.any())
    matched = ["at like box sizes"] if sized else []
    heads = ["pair", "mean of each", "difference", *matched, "p", "Holm's p", "from"]
    shown = table(heads, (_pair(row, sized) for row in records(found)))
    return join(heading(capital(axis), level=3), card(shown, _notes(result, choice, found)))


def _pair(row: dict[str, Any], sized: bool) -> list[Any]:
    """One pair of cells."""
    gap = estimate(row, of=("difference", "low", "high"), sign=True)
    entries = [
        join(f"{row['a']} − {row['b']}", span(f" {row['where']}") if row["where"] else ""),
        f"{number(row['mean_a'])}, {number(row['mean_b'])}",
        Cell(gap, "own"),
    ]
    if sized:
        matched = estimate(row, of=("matched", "matched_low", "matched_high"), sign=True)
        entries.append(join(matched, span(f" {count(row['n_matched'], 'pair')}") if row["n_matched"] else ""))
    return [*entries, p_value(row["p"]), bold(p_value(row["p_holm"])), Cell(_basis(row), "soft")]


def _basis(row: dict[str, Any]) -> str:
    """What was compared: “same samples, 24 groups”."""
    least = "≥ " if row["paired"] == "none" else ""  # of two sides the smaller one is named
    left = f", {row['left_out']} values left out" if row["left_out"] else ""
    return f"{PAIRED[row['paired']]}, {least}{count(row['n_groups'], 'group')}{left}"


def _notes(result: Result, choice: LayerChoice, found: pd.DataFrame) -> Markup:
    """The notes of each pair, and its groups where they are too few for a claim."""
    noted = [row for row in records(found) if row["note"]]
    pairs: dict[str, list[str]] = {}
    for row in noted:
        pairs.setdefault(row["note"], []).append(_title(row))
    notes = [paragraph(bold("; ".join(titles)), f": {note}", kind="note") for note, titles in pairs.items()]
    few = [row for row in noted if row["n_groups"] < MIN_GROUPS]
    if few:
        groups = result.compare_groups(choice.metric, layer=choice, over=few[0]["over"])
        notes += [_groups(row, groups) for row in few]
    return join(*notes)


def _title(row: dict[str, Any]) -> str:
    return f"{row['a']} − {row['b']}" + (f", {row['where']}" if row["where"] else "")


def _groups(row: dict[str, Any], groups: pd.DataFrame) -> Markup:
    """The means per group of the sides that have too few."""
    own = rows_of(groups, {name: row[name] for name in PAIR})
    counts = {side: own[f"n_{side}"].to_numpy() for side in ("a", "b")}
    few = [side for side, n in counts.items() if np.count_nonzero(n) < MIN_GROUPS]
    shown = records(where(own, np.any([counts[side] > 0 for side in few], axis=0)))
    lines = ([one["group"], *(_group_mean(one, side) for side in few)] for one in shown)
    return details(f"Per group: {_title(row)}", table(["group", *(row[side] for side in few)], lines))


def _group_mean(one: dict[str, Any], side: str) -> Markup:
    n = one[f"n_{side}"]
    return join(number(one[f"mean_{side}"]), span(f" n = {n}") if n else "")


def lesions(result: Result) -> Markup | str:
    """The lesion-wise hit rates of every layer; nothing where samples name no lesions."""
    if not has_lesions(result):
        return ""
    found = lesion_hits(result)
    parts = []
    for cell in result.cells:
        own = records(rows_of(found, cell.labels))
        if not own:
            continue
        said = (
            f"{own[0]['n']} lesions in {own[0]['n_groups']} volumes, {own[0]['slices']:.1f} slices a lesion"
        )
        title = join(key(result, cell), cell_name(result.cells, cell), f" · {said}")
        parts.append(card(_lesion_table(own), title=title))
    return section("Lesion by lesion", grid(parts), intro=LESIONS)


def _lesion_table(found: list[dict[str, Any]]) -> Markup:
    by_layer: dict[int, dict[str, Any]] = {}
    for row, shown in _entries([{**row, "mean": row["hits"]} for row in found]):
        here = by_layer.setdefault(row["layer"], {})
        here[row["control"]] = shown
        if row["control"] == "boxes":
            here["chance"] = number(row["chance"])
    lines = [
        [str(layer), *map(here.get, CONTROLS), here["chance"]]
        for layer, here in sorted(by_layer.items())
        if "chance" in here
    ]
    return table(["layer", "lesions hit", "shuffled boxes", "centre prior", "chance"], lines)


def every_layer(result: Result, choice: LayerChoice) -> Markup:
    """Each layer and control with its interval, one table per metric; the first is open."""
    summary = result.summary()
    shown = []
    for metric in result.metrics:
        title = f"{capital(METRICS[metric].label)} ({METRICS[metric].better} is better)"
        inner = card(_layers(result, where(summary, summary.metric == metric), choice))
        shown.append(details(title, inner, opened=metric == result.metrics[0]))
    return section("Every layer", *shown)


def _layers(result: Result, summary: pd.DataFrame, choice: LayerChoice) -> Markup:
    heads: list[Any] = ["layer"]
    found: dict[Any, Cell] = {}
    for place, (cell, name) in enumerate(zip(result.cells, cell_names(result.cells), strict=True)):
        heads += [join(key(result, cell), name), "shuffled boxes", "centre prior"]
        for row, shown in _entries(records(rows_of(summary, cell.labels))):
            found[place, row["layer"], row["control"]] = shown
    lines = []
    for layer in sorted(summary.layer.unique()):
        places = [(place, layer, control) for place in range(len(result.cells)) for control in CONTROLS]
        kind = "chosen" if layer in choice.layers.values() else ""
        lines.append(Row([str(layer), *map(found.get, places)], kind))
    return table(heads, lines)


def _entries(rows: list[dict[str, Any]]) -> Iterator[tuple[dict[str, Any], Cell]]:
    """Each row with the cell that shows its mean and interval."""
    for row, shown in zip(rows, estimates(rows), strict=True):
        yield row, Cell(shown, "own" if row["control"] == "boxes" else "baseline")
