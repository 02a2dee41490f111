"""The numbers of a report: what was measured, and the featured layer against the nulls."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pandas as pd

from interp.metrics import METRICS
from interp.report import prose
from interp.report.figures import cell_name, key
from interp.report.words import CONTROLS, capital, card, cards, mean_and_interval, number, safe, tag
from interp.stats import MIN_GROUPS, per_group
from interp.study.frames import records, rows_of, where
from interp.study.model import is_organism

if TYPE_CHECKING:
    from interp.study.choice import LayerChoice
    from interp.study.result import Cell, Result

__all__ = ["findings", "lead"]

NULLS = ("shuffled_boxes", "centre_prior")


def lead(result: Result) -> str:
    """What was measured on what, and what the numbers may not be taken for."""
    models = ", ".join(dict.fromkeys(cell.labels["model"] for cell in result.cells))
    data = ", ".join(dict.fromkeys(cell.labels["data"] for cell in result.cells))
    words = prose.LEAD.format(models=safe(models), data=safe(data), n=len(result.samples))
    organism = any(is_organism(cell.sweep.model) for cell in result.cells)
    return tag("p", words, kind="lead") + (tag("p", prose.ORGANISM, kind="note wide") if organism else "")


def findings(result: Result, choice: LayerChoice) -> str:
    """One card per cell: the headline metric at the featured layer against both nulls."""
    metric = METRICS[choice.metric]
    here = result.at_layer(choice)
    here = where(here, here.metric == metric.name)
    how = f"{capital(metric.label)}, {metric.better} is better. {capital(choice.sentence(result))}"
    return (
        tag("h2", "At the featured layer")
        + tag("p", safe(how), kind="soft wide")
        + cards(_card(result, cell, here, metric.name) for cell in result.cells)
    )


def _card(result: Result, cell: Cell, here: pd.DataFrame, metric: str) -> str:
    title = tag("h3", key(result, cell), safe(cell_name(result, cell)))
    rows = {row["control"]: row for row in records(rows_of(here, cell.labels))}
    if "boxes" not in rows:
        return card(title, tag("p", "No sample could be measured."))
    own = rows["boxes"]
    counts = f" {_range(own)}{own['n']} samples, {own['n_groups']} groups"
    headline = tag("b", number(own["mean"])) + tag("span", counts, kind="soft")
    return card(
        title,
        tag("div", headline, kind="number"),
        tag("p", _verdict(rows, metric)),
        _nulls(rows),
        _context(result, cell),
        _few(result, cell, own, metric),
    )


def _range(own: dict[Any, Any]) -> str:
    text = mean_and_interval(own).partition(" ")[2]
    return f"{text} · " if text else ""


def _nulls(rows: dict[str, dict[Any, Any]]) -> str:
    """Each null's own score and the paired difference from it."""
    head = tag("tr", *(tag("th", word) for word in ("null", "its score", "own boxes minus null")))
    lines = [
        tag(
            "tr",
            tag("td", CONTROLS[null]),
            tag("td", mean_and_interval(rows[null])),
            tag("td", mean_and_interval(rows[f"boxes − {null}"], signed=True)),
        )
        for null in NULLS
        if null in rows
    ]
    return tag("div", tag("table", head, *lines), kind="scroll")


def _verdict(rows: dict[str, dict[Any, Any]], metric: str) -> str:
    """Whether the interval of the paired difference leaves out zero, for each null."""
    if rows["boxes"]["n_groups"] < MIN_GROUPS:
        return "Too few groups to speak of more than these samples."
    sign = 1 if METRICS[metric].better == "higher" else -1
    beaten, lost = [], []
    for null in (name for name in NULLS if name in rows):
        gap = rows[f"boxes − {null}"]
        low, high = sorted((sign * gap["low"], sign * gap["high"]))
        if low > 0:
            beaten.append(CONTROLS[null])
        elif high < 0:
            lost.append(CONTROLS[null])
    return _verdict_words(beaten, lost)


def _verdict_words(beaten: list[str], lost: list[str]) -> str:
    if len(beaten) == len(NULLS):
        return prose.BEATS_BOTH
    words = [f"More inside the boxes than {beaten[0]}." if beaten else "", ""]
    if lost:
        words[1] = f"<b>Less</b> than {' and '.join(lost)}."
    return " ".join(words).strip() or prose.BEATS_NONE


def _context(result: Result, cell: Cell) -> str:
    """How large the boxes are, whether the model sees them, whether it answers right."""
    samples = rows_of(result.samples, cell.labels)
    share = (samples.n_box_tokens / samples.n_tokens).median()
    text = f"The median box covers {100 * share:.1f} % of the image tokens."
    answered = samples.correct.dropna()
    if len(answered):
        text += f" First answer token right: {100 * answered.astype(float).mean():.0f} % of {len(answered)}."
    lost = int((samples.lost_area > 0.01).sum())
    if lost:
        text += f" For {lost} samples the model does not see the whole box."
    return tag("p", text, kind="soft")


def _few(result: Result, cell: Cell, own: dict[Any, Any], metric: str) -> str:
    """The values per group, where there are too few groups for a claim."""
    if not own["note"]:
        return ""
    scores = rows_of(result.scores, cell.labels)
    here = (scores.metric == metric) & (scores.control == "boxes") & (scores.layer == own["layer"])
    groups = per_group(scores[here].value.to_numpy(), scores[here].group)
    listed = ", ".join(
        f"{safe(group)}: {number(mean)}" for group, mean in zip(groups["group"], groups["mean"], strict=True)
    )
    return tag("p", f"{safe(own['note'])} Per group: {listed}.", kind="note")
