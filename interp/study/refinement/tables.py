"""Tables of a refinement: methods beside the plain model, against one another, and what flipped."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from interp.errors import StudyError
from interp.report.html import card, number, safe, tag
from interp.stats import MIN_GROUPS, flips
from interp.study.dataframes import records, rows_of, where
from interp.study.refinement import page as refinement_words
from interp.study.refinement.figures import panel_name, panels

if TYPE_CHECKING:
    from interp.study.refinement.result import RefinementCell, RefinementResult

__all__ = ["flips_table", "methods_card", "p_words", "pairs_card", "range_of"]


def range_of(row: dict[str, Any], scale: float = 1.0, digits: int = 2) -> str:
    """“+1.2 [−0.3, 2.8]”; no interval where the groups are too few for one."""
    value = scale * row["difference"]
    text = ("+" if round(value, digits) > 0 else "") + number(value, digits)
    if row["n_groups"] < MIN_GROUPS or math.isnan(row["low"]):
        return text
    return f"{text} [{number(scale * row['low'], digits)}, {number(scale * row['high'], digits)}]"


def p_words(p: float | None) -> str:
    """A p-value as markup; a dash when there is none."""
    if p is None or math.isnan(p):
        return "–"
    return "&lt; 0.001" if p < 0.001 else f"{p:.3f}"


def methods_card(result: RefinementResult) -> str:
    """One line per cell: accuracy before and after, the paired difference, flips, tests, log-probability, cost."""
    summary = result.summary()
    lines = []
    for place in panels(result):
        own = rows_of(summary, place)
        if len(panels(result)) > 1:
            title = tag("b", safe(panel_name(result, place)))
            lines.append(f'<tr class="chosen"><td colspan="12">{title}</td></tr>')
        more = {_key(result, row): row for row in records(where(own, own.measure == "logprob"))}
        lines += [
            _line(result, row, more.get(_key(result, row)))
            for row in records(where(own, own.measure == "correct"))
        ]
    if not any("<td>" in line for line in lines):
        return ""
    heads = ("", "before, %", "after, %", "points", "+", "−", "McNemar", "Holm’s p")
    heads = (*heads, "Δ log p", "s ×", "passes ×", "tokens ×")
    head = tag("tr", *(tag("th", safe(word)) for word in heads))
    notes = dict.fromkeys(
        row["note"] for row in records(where(summary, summary.measure == "correct")) if row["note"]
    )
    said = "".join(tag("p", safe(note), kind="note") for note in notes)
    return card(tag("div", tag("table", head, *lines, kind="dense"), kind="scroll"), said)


def _key(result: RefinementResult, row: dict[str, Any]) -> tuple[str, ...]:
    return tuple(str(row[axis]) for axis in result.axes)


def _line(result: RefinementResult, row: dict[str, Any], logprob: dict[str, Any] | None) -> str:
    rest = [axis for axis in result.axes if axis not in ("model", "data")]
    entries = [
        f"{100 * row['before']:.1f}",
        f"{100 * row['after']:.1f}",
        tag("b", range_of(row, 100, 1)),
        f"{row['wrong_to_right']:.0f}",
        f"{row['right_to_wrong']:.0f}",
        p_words(row["p_flips"]),
        p_words(row["p_holm"]),
        "–" if logprob is None else range_of(logprob),
        f"{row['seconds']:.2f}",
        f"{row['forwards']:.2f}",
        f"{row['tokens']:.2f}",
    ]
    name = tag("td", safe(" · ".join(str(row[axis]) for axis in rest)))
    return tag("tr", name, *(tag("td", entry) for entry in entries))


def pairs_card(result: RefinementResult) -> str:
    """Every pair of methods on the same samples, folded; empty where there is none or too many to read."""
    try:
        table = result.compare("correct")
    except StudyError:
        return ""
    if len(table) > 90:
        return ""
    heads = ("", "accuracy, %", "difference, points", "only one right", "p", "Holm’s p")
    lines = [
        tag(
            "tr",
            tag("td", f"{safe(row['a'])} − {safe(row['b'])}", _where(row)),
            tag("td", f"{100 * row['mean_a']:.1f}, {100 * row['mean_b']:.1f}"),
            tag("td", range_of(row, 100, 1), kind="own"),
            tag("td", f"{row['only_a_right']}, {row['only_b_right']}"),
            tag("td", p_words(row["p"])),
            tag("td", tag("b", p_words(row["p_holm"]))),
        )
        for row in records(table)
    ]
    head = tag("tr", *(tag("th", safe(word)) for word in heads))
    shown = card(
        tag("p", refinement_words.PAIRS, kind="soft"), tag("div", tag("table", head, *lines), kind="scroll")
    )
    return tag("details", tag("summary", f"Methods against one another: {len(table)} pairs"), shown)


def _where(row: dict[str, Any]) -> str:
    return tag("span", f" {safe(row['where'])}", kind="soft") if row["where"] else ""


def flips_table(result: RefinementResult, cell: RefinementCell, title: str) -> str:
    """Right and wrong before against after, as a 2 × 2 table; empty where no sample has an answer."""
    pairs = rows_of(result.pairs, cell.labels)
    own = where(pairs, pairs.measure == "correct")
    found = flips(own.before.to_numpy(float), own.after.to_numpy(float))
    if not found.n:
        return ""
    head = tag("tr", tag("th", ""), tag("th", "right after"), tag("th", "wrong after"))
    rows = (
        ("right before", found.both_right, tag("b", str(found.right_to_wrong), kind="wrong")),
        ("wrong before", tag("b", str(found.wrong_to_right), kind="right"), found.both_wrong),
    )
    lines = (tag("tr", *(tag("td", str(entry)) for entry in row)) for row in rows)
    unmarked = f" {found.n_unmarked} samples have no answer." if found.n_unmarked else ""
    words = f"{found.n} samples; McNemar p {p_words(found.p)}.{unmarked}"
    return card(tag("h3", safe(title)), tag("table", head, *lines), tag("p", words, kind="soft"))
