"""The page of methods: what they change, with intervals, flips, cost, and drawn samples before and after."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from interp.report import prose, refinement_words
from interp.report.portrait import RAMP
from interp.report.refinement_figures import panel_name, panels, refinement_figures
from interp.report.refinement_gallery import drawn, sample_card
from interp.report.refinement_origin import failures, provenance
from interp.report.refinement_tables import flips_table, methods_card, p_words, pairs_card, range_of
from interp.report.sheet import figure_card, table, write_sheet
from interp.report.words import capital, card, cards, number, safe, tag
from interp.stats import MIN_GROUPS
from interp.study.frames import records, rows_of
from interp.study.marking import RULE
from interp.study.model import is_organism
from interp.study.paired_measures import MEASURES

if TYPE_CHECKING:
    from interp.study.refinement_result import RefinementCell, RefinementResult

__all__ = ["write_refinement"]

FEW_CELLS = 4
"""Up to so many cells each have a card of their own; more are lines of a table."""
USUAL = 0.05
MANY_CELLS = 10
"""With more on the same samples, as in a table over parameters, only the figure and the folded numbers are shown."""


def _many(result: RefinementResult) -> bool:
    return len(result.cells) > MANY_CELLS * len(panels(result))


def write_refinement(result: RefinementResult, path: Path) -> Path:
    """Writes the page and returns its path."""
    figures = refinement_figures(result)
    body = [
        _headlines(result),
        _figures(figures),
        _methods(result),
        _flips(result),
        _per_group(result),
        _gallery(result),
        failures(result),
        _words(result),
        provenance(result),
    ]
    study = result.study
    return write_sheet(
        path, title=study.title, question=_question(result), lead=_lead(result), body=body, figures=figures
    )


def _question(result: RefinementResult) -> str:
    methods = dict.fromkeys(cell.study.method.name for cell in result.cells)
    several = [name for name in methods if name != "Plain"]
    if len(several) > 1:
        return "Is the model right more often with one of these methods than without?"
    return f"Is the model right more often with {(several or ['Plain'])[0]} than without?"


def _lead(result: RefinementResult) -> str:
    models = ", ".join(dict.fromkeys(cell.labels["model"] for cell in result.cells))
    counts = ", ".join(
        f"{_measured(result, place)} samples of {safe(panel_name(result, place))}" for place in panels(result)
    )
    words = refinement_words.LEAD.format(model=safe(models), samples=counts)
    organism = any(is_organism(cell.study.model) for cell in result.cells)
    note = tag("p", prose.ORGANISM, kind="note wide") if organism else ""
    heads = "".join(
        tag("p", safe(capital(line)), kind="soft wide") for line in result.sentences()[:FEW_CELLS]
    )
    return tag("p", words, kind="lead") + note + heads


def _measured(result: RefinementResult, place: dict[str, str]) -> int:
    return max(len(cell.frame("samples")) for cell in result.cells if place.items() <= cell.labels.items())


def _headlines(result: RefinementResult) -> str:
    if len(result.cells) > FEW_CELLS:
        return ""
    return tag("h2", "What the method changed") + cards(
        (_headline(result, cell) for cell in result.cells), "top"
    )


def _headline(result: RefinementResult, cell: RefinementCell) -> str:
    """One cell: accuracy before → after, whatever the sign, and every other measure."""
    title = tag("h3", safe(cell_title(result, cell)))
    rows = records(rows_of(result.summary(), cell.labels))
    own = next((row for row in rows if row["measure"] == "correct"), None)
    if own is None:
        return card(title, tag("p", "No sample has an answer to be right about."), _measures(rows))
    before, after = (f"{100 * own[when]:.1f}" for when in ("before", "after"))
    counts = f"accuracy in % · {own['n']} samples, {own['n_groups']} groups"
    number_line = tag("div", tag("b", f"{before} → {after}"), tag("span", counts, kind="soft"), kind="number")
    return card(title, number_line, tag("p", _verdict(own)), _measures(rows), _cost(own), _note(own))


def _verdict(own: dict[str, Any]) -> str:
    """The difference with its interval, and what may be said of it."""
    gap = f"Difference <b>{range_of(own, 100, 1)}</b> points."
    flips = f"{own['wrong_to_right']:.0f} wrong → right, {own['right_to_wrong']:.0f} right → wrong"
    test = f"{flips}; McNemar, exact: p {p_words(own['p_flips'])}."
    if own["n_groups"] < MIN_GROUPS:
        return f"{gap} {test} Too few groups to speak of more than these samples."
    if own["low"] > 0 or own["high"] < 0:
        word = "More" if own["low"] > 0 else "<b>Less</b>"
        side = "above" if own["low"] > 0 else "below"
        said = f"{word} often right: the interval lies {side} zero."
        if own["p"] > USUAL:
            said += f" But the sign test by group gives p {p_words(own['p'])}: few answers changed."
    else:
        said = "Not distinguishable from no change: the interval holds zero."
    return f"{gap} {said} {test}"


def _measures(rows: list[dict[str, Any]]) -> str:
    lines = [
        (
            MEASURES[row["measure"]],
            number(row["before"], 3),
            number(row["after"], 3),
            range_of(row, 1, 3),
        )
        for row in rows
    ]
    return table(("mean of", "before", "after", "difference [95 %]"), lines)


def _cost(own: dict[str, Any]) -> str:
    words = (
        f"Cost, times the plain model's: {own['seconds']:.2f} in seconds, {own['forwards']:.2f} in passes, "
        f"{own['tokens']:.2f} in token positions."
    )
    return tag("p", words, kind="soft")


def _note(own: dict[str, Any]) -> str:
    return tag("p", safe(own["note"]), kind="note") if own["note"] else ""


def cell_title(result: RefinementResult, cell: RefinementCell) -> str:
    """A cell's labels on the axes that vary; its data and method when it is alone."""
    shown = [axis for axis in result.axes if len({other.labels[axis] for other in result.cells}) > 1]
    return " · ".join(cell.labels[axis] for axis in shown or ("data", "method"))


def _figures(figures: dict[str, Any]) -> str:
    parts = []
    for name in figures:
        title, words = refinement_words.FIGURES[name]
        parts += [tag("h2", title), tag("p", words, kind="soft wide"), figure_card(name)]
    return "".join(parts)


def _methods(result: RefinementResult) -> str:
    """All cells as lines; and methods against one another, where there are several on the same samples."""
    if len(result.cells) < 2:
        return ""
    body = methods_card(result)
    if _many(result):
        body = tag("details", tag("summary", "All numbers"), body)
    words = tag("p", refinement_words.METHODS, kind="soft wide")
    return tag("h2", "Beside the plain model") + words + body + pairs_card(result)


def _flips(result: RefinementResult) -> str:
    shown = [cell for cell in result.cells if cell.measured and cell.study.method.name != "Plain"]
    tables = [flips_table(result, cell, cell_title(result, cell)) for cell in shown]
    if not any(tables) or _many(result):
        return ""
    words = tag("p", refinement_words.FLIPS, kind="soft wide")
    return tag("h2", "What flipped") + words + cards((one for one in tables if one), "tight")


def _per_group(result: RefinementResult) -> str:
    """Each group on its own, where they are too few for a claim."""
    if "correct" not in result.measures or _many(result):
        return ""
    found = result.per_group()
    if found.empty:
        return ""
    shown: dict[tuple[str, ...], dict[str, str]] = {}
    for row in records(found):
        before, after = (f"{100 * row[name]:.1f}" for name in ("before", "after"))
        key = tuple(str(row[axis]) for axis in result.axes)
        shown.setdefault(key, {})[str(row["group"])] = f"{before} → {after} (n = {row['n']})"
    groups = list(dict.fromkeys(map(str, found.group)))
    titles = {cell.key: cell_title(result, cell) for cell in result.cells}
    if len(groups) > MANY_CELLS:  # more groups than columns: a line for each
        lines = [(titles[key], group, words) for key, own in shown.items() for group, words in own.items()]
        body = table(("", "group", "accuracy, %"), lines)
    else:
        lines = [(titles[key], *(own.get(group, "–") for group in groups)) for key, own in shown.items()]
        body = table(("accuracy, %", *groups), lines)
    return tag("h2", "Group by group") + tag("p", refinement_words.PER_GROUP, kind="note wide") + card(body)


def _gallery(result: RefinementResult) -> str:
    cells = [cell for cell in result.cells if cell.measured]
    if _many(result) or not cells:
        return ""
    n = 6 if len(cells) <= FEW_CELLS else 2
    words = refinement_words.GALLERY.format(seed=result.seed, ramp=RAMP, layer=_layer_words(cells))
    parts = [tag("h2", "Drawn samples, before and after"), tag("p", words, kind="soft wide")]
    for place in panels(result):
        own = [cell for cell in cells if place.items() <= cell.labels.items()]
        own = [cell for cell in own if cell.study.method.name != "Plain"] or own
        indices = drawn(own, n, result.seed) if own else []
        for cell in own:
            parts.append(tag("h4", safe(cell_title(result, cell))))
            parts.append(cards(sample_card(cell, index) for index in indices))
    return "".join(parts)


def _layer_words(cells: list[RefinementCell]) -> str:
    layers = sorted({cell.study.read_layer for cell in cells if cell.study.read_layer is not None})
    if not layers:
        return "No attention was read beside the methods' own."
    return refinement_words.LOOKS.format(layers=", ".join(map(str, layers)))


def _words(result: RefinementResult) -> str:
    methods = {
        cell_title(result, cell): json.dumps(cell.method, ensure_ascii=False)
        for cell in (result.cells[:1] if _many(result) else result.cells)
    }
    terms = {"Right": RULE, **refinement_words.TERMS}
    own = (tag("dt", safe(term)) + tag("dd", safe(words)) for term, words in terms.items())
    named = (tag("dt", safe(term)) + tag("dd", tag("code", safe(words))) for term, words in methods.items())
    return tag("h2", "What the words mean") + cards((card(tag("dl", *own)), card(tag("dl", *named))), "top")
