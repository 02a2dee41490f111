"""The page of a comparison of indicators: what was measured on what, tables, figures, maps, failures."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from interp.metrics import METRICS
from interp.report import indicator_words as said
from interp.report import prose
from interp.report.indicator_figures import cell_name, indicator_figures, measured_cells
from interp.report.indicator_gallery import drawn_samples, maps_card
from interp.report.indicator_origin import failures, provenance
from interp.report.indicator_tables import (
    calibration,
    cost_table,
    faithful_table,
    metrics_table,
    pairs_table,
    per_group,
)
from interp.report.portrait import RAMP
from interp.report.sheet import figure_card, stacked, write_sheet
from interp.report.words import card, cards, safe, tag
from interp.stats import MIN_GROUPS, population_note
from interp.study.frames import rows_of
from interp.study.indicator_truth import BOXES
from interp.study.model import is_organism

if TYPE_CHECKING:
    from interp.study.indicator_result import IndicatorCell, IndicatorResult

__all__ = ["write_indicators"]

N_SHOWN = 3


def write_indicators(result: IndicatorResult, path: Path) -> Path:
    """Writes the page and returns its path."""
    figures = indicator_figures(result)
    body = [
        _found(result),
        _localised(result, figures),
        _pareto(result),
        _each(result, figures, "matrix", "Does the model bear the maps out?", _least(result)),
        _each(result, figures, "curves", "Curves", ""),
        _folded("Faithfulness in numbers", faithful_table(result)),
        _sanity(figures),
        _each(result, figures, "agreement", "Do they agree?", said.AGREEMENT),
        _pairs(result),
        _gallery(result),
        failures(result),
        _words(result),
        provenance(result),
    ]
    study = result.cells[0].study
    return write_sheet(
        path, title=study.title, question=study.question, lead=_lead(result), body=body, figures=figures
    )


def _lead(result: IndicatorResult) -> str:
    studies = [cell.study for cell in result.cells]
    counts = [_counted(result, cell) for cell in measured_cells(result)]
    removals = list(dict.fromkeys(removal.name for study in studies for removal in study.removals))
    words = said.LEAD.format(
        samples="; ".join(counts),
        n=len(result.indicators),
        target=" or ".join(dict.fromkeys(_target(study.target) for study in studies)),
        truth=" or ".join(dict.fromkeys(_truth(study.truth[0]) for study in studies)),
        removals=f" ({', '.join(map(safe, removals))})" if removals else "",
    )
    notes = [tag("p", prose.ORGANISM, kind="note wide")] if any(is_organism(s.model) for s in studies) else []
    few: dict[int, list[str]] = {}
    for cell in measured_cells(result):
        few.setdefault(_groups(result, cell), []).append(safe(cell_name(result, cell)))
    notes += [
        tag("p", f"{', '.join(names)}: {population_note(n)}", kind="note wide")
        for n, names in few.items()
        if n < MIN_GROUPS
    ]
    lines = [tag("p", safe(line), kind="soft wide") for line in result.sentences()]
    layers = "".join(lines) if len(lines) < 2 else _folded("Which layer stands for each", "".join(lines))
    return tag("p", words, kind="lead") + "".join(notes) + layers


def _counted(result: IndicatorResult, cell: IndicatorCell) -> str:
    frame = rows_of(result.samples, cell.labels)
    told = [f"{len(frame)} samples in {_groups(result, cell)} groups"]
    if cell.study.removals:
        told.append(f"tokens taken away on {int(frame.faithful.sum())}")
    told.append(f"sanity checks on {int(frame.checked.sum())}")
    return f"<b>{safe(' · '.join(cell.key))}</b> ({', '.join(told)})"


def _groups(result: IndicatorResult, cell: IndicatorCell) -> int:
    return int(rows_of(result.samples, cell.labels).group.nunique())


def _target(target: Any) -> str:
    if target.spec == "greedy":
        return "the answer the model gives"
    return f"“{safe(target.spec)}”" if isinstance(target.spec, str) else safe(target.spec)


def _truth(truth: str) -> str:
    return "the samples’ boxes" if truth == BOXES else f"the {safe(truth)}"


def _found(result: IndicatorResult) -> str:
    words = tag("p", said.FINDS, kind="soft wide")
    return tag("h2", "Which finds the truth?") + words + card(calibration(result)) + per_group(result)


def _localised(result: IndicatorResult, figures: dict[str, Any]) -> str:
    title = f"Agreement with the truth: {METRICS[result.metrics[0]].label}"
    parts = [tag("h2", safe(title)), tag("p", said.LOCALISATION, kind="soft wide")]
    parts.append(stacked([figure_card("localisation")]))
    return "".join(parts) + _folded("Every metric in numbers", metrics_table(result))


def _pareto(result: IndicatorResult) -> str:
    parts = [tag("h2", "What does it cost?"), tag("p", said.PARETO, kind="soft wide")]
    parts.append(stacked([figure_card("pareto")]))
    costs = tag("p", said.COSTS, kind="soft wide") + cost_table(result)
    return "".join(parts) + _folded("Costs in numbers", costs)


def _least(result: IndicatorResult) -> str:
    values = ", ".join(f"{one:g}" for one in sorted({cell.study.least for cell in result.cells}))
    return said.FAITHFUL.format(least=f"{values} of its value")


def _each(result: IndicatorResult, figures: dict[str, Any], kind: str, title: str, words: str) -> str:
    """One figure per cell."""
    shown = [
        card(
            tag("h3", safe(cell_name(result, cell))), f'<div class="figure" id="figure-{kind}-{place}"></div>'
        )
        for place, cell in enumerate(measured_cells(result), start=1)
        if f"{kind}-{place}" in figures
    ]
    if not shown:
        return ""
    head = tag("h2", title) + (tag("p", words, kind="soft wide") if words else "")
    return head + (stacked(shown) if kind == "curves" else cards(shown, "top"))


def _sanity(figures: dict[str, Any]) -> str:
    if "sanity" not in figures:
        return ""
    words = tag("p", said.SANITY, kind="soft wide")
    return tag("h2", "Sanity checks") + words + stacked([figure_card("sanity")])


def _pairs(result: IndicatorResult) -> str:
    shown = pairs_table(result)
    if not shown:
        return ""
    return _folded("Indicators against one another, tested", tag("p", said.PAIRS, kind="soft wide") + shown)


def _gallery(result: IndicatorResult) -> str:
    metric = METRICS[result.metrics[0]].label
    words = said.GALLERY.format(seed=result.seed, ramp=RAMP, metric=safe(metric))
    parts = [tag("h2", "The same image under every indicator"), tag("p", words, kind="soft wide")]
    for cell in measured_cells(result):
        parts.append(tag("h4", safe(cell_name(result, cell))))
        indices = drawn_samples(cell, N_SHOWN, result.seed)
        parts.append(stacked(maps_card(cell, index) for index in indices))
    return "".join(parts)


def _words(result: IndicatorResult) -> str:
    erased = ", ".join(f"{100 * share:g}" for share in result.cells[0].study.erased)
    terms = (
        tag("dt", safe(term)) + tag("dd", safe(words.format(erased=erased)))
        for term, words in said.TERMS.items()
    )
    return tag("h2", "What the words mean") + card(tag("dl", *terms))


def _folded(title: str, body: str) -> str:
    return tag("details", tag("summary", safe(title)), body) if body else ""
