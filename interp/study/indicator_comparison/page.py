"""The page of a comparison of indicators: what was measured on what, tables, figures, maps, failures."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from interp.metrics import METRICS
from interp.report.gallery import RAMP, data_uri, overlay, picture
from interp.report.html import (
    card,
    cards,
    figure_card,
    number,
    rows_table,
    safe,
    size_of,
    stacked,
    tag,
    write_sheet,
)
from interp.stats import MIN_GROUPS, population_note
from interp.study.dataframes import records, rows_of, where
from interp.study.indicator_comparison import page as said
from interp.study.indicator_comparison.costs import FLOPS
from interp.study.indicator_comparison.figures import cell_name, indicator_figures, measured_cells
from interp.study.indicator_comparison.tables import (
    calibration,
    cost_table,
    faithful_table,
    metrics_table,
    pairs_table,
    per_group,
)
from interp.study.indicator_comparison.truth import BOXES, truth_boxes
from interp.study.layer_sweep import page as prose
from interp.study.model_spec import is_organism

if TYPE_CHECKING:
    from PIL import Image

    from interp.study.indicator_comparison.result import IndicatorCell, IndicatorResult

__all__ = [
    "AGREEMENT",
    "COSTS",
    "FAITHFUL",
    "FINDS",
    "GALLERY",
    "LEAD",
    "LOCALISATION",
    "PAIRS",
    "PARETO",
    "SANITY",
    "TERMS",
    "drawn_samples",
    "failures",
    "maps_card",
    "provenance",
    "write_indicators",
]

LEAD = """For {samples}, {n} indicators each gave one map over the image tokens, for the log-probability of {target}.
The maps are set against {truth}, against one another, against what happens when their tokens are taken
away{removals}, and against maps of a model with shuffled weights and under other questions."""

LOCALISATION = """Points are means over samples, bars 95 % bootstrap intervals over groups (none where there are
fewer than 20). Dotted: what an even map scores. Filled: the certified truth; open: what else was scored beside it.
Grey names know nothing of the model."""

FINDS = """<b class="right">✓</b> finds the truth: better than every map that knows nothing, on the same samples: the
interval of each difference on the right side of zero, and the largest p (signs of whole groups flipped) at most 0.05
after Holm over the indicators. It says that a map tells more than nothing, not that it is good."""

PAIRS = """First minus second on the same samples. p: signs of whole groups’ differences flipped; Holm’s p is
adjusted over the pairs of a model and data set, so that reading them all still errs once in twenty at most."""

AGREEMENT = """Mean over samples of the rank correlation of two maps of the same sample (ties share the mean of their
ranks). Two indicators that agree need not be right, and two that are right need not agree outside the truth."""

FAITHFUL = """The most important tokens by each map are taken away first (deletion) or are the only ones left
(insertion), at the same fractions and in the same way for all. Heights run from 0, everything taken away, to 1,
untouched; areas are their means over the fraction: low is better for deletion, high for insertion. The random map’s
area is what to beat. Each way of taking away flatters the indicators built on it: their cells have a frame, and
count for less. Samples on which taking everything away costs less than {least} have no area."""

SANITY = """Rank correlation of a map with the same indicator’s map after a change that should matter: the model’s
weights shuffled within each tensor, from the top down or all (the answer explained stays that of the model as it
is), and another sample’s question on the same image. Near 1 means that the map does not depend on what was learned,
or asked: maps that know nothing stand there. A map read below the shuffled layers cannot change with them. Where the
cause is the same whatever is asked, as a planted marker is, a map under another question should stay as it is."""

COSTS = """Per sample, as if each indicator ran alone, the plain forward of the same batches first. Seconds depend on
what else the machine did; passes and tokens do not. On a CPU peak memory is the whole process’s so far, and says
little."""

PARETO = """The dotted line joins the indicators that none beats in both time and score. Time is wall time over that
of a plain forward of the same samples, on this machine."""

GALLERY = """Drawn with seed {seed}, not picked by what came of them. Maps run low {ramp} high, positive part over
its own 99.5th percentile; boxes show the first truth. Under each map: {metric} against it."""

TERMS = {
    "Comprehensiveness": """How far the target falls without the most important tokens, mean over {erased} % of them;
    higher is better (ERASER, arXiv 1911.03429).""",
    "Sufficiency": """How far the target falls when only the most important tokens are left, mean over the same
    fractions; lower is better.""",
    "Target’s scale": """Probability of the answer, or nats for a difference of answers. “Greedy” is what the
    untouched model says first.""",
    "Ties": """Tokens of one value are ordered by a draw that is the same for all maps.""",
    "Layers": """An indicator with a map per layer is shown at one layer, chosen on other samples by their boxes: a
    choice that indicators without layers do not have.""",
    "Floating-point operations": FLOPS,
    "Intervals": prose.INTERVALS,
    "Undefined": """A map that is the same everywhere has no order; a truth that covers no token asks nothing. Such
    values are left out and counted.""",
}

SHOWN = 24


def failures(result: IndicatorResult) -> str:
    """What could not be had of a sample, and why."""
    found = result.failures
    if found.empty:
        return tag("h2", "Failures") + tag(
            "p", "None: every map was made and every value defined.", kind="soft"
        )
    axes = [axis for axis in result.axes if len({cell.labels[axis] for cell in result.cells}) > 1]
    keys = [*axes, "control", "metric", "error", "reason"]
    counted = (
        found.fillna({"control": "", "metric": ""})
        .groupby(keys, sort=False)
        .agg(n=("sample", "size"), sample=("sample", "first"))
    )
    listed = rows_table(
        (
            " · ".join(str(row[name]) for name in (*axes, "control", "metric") if row[name]) or row["sample"],
            f"{row['n']}×, first {row['sample']}. {row['error']}: {row['reason']}",
        )
        for row in records(counted.reset_index())[:SHOWN]
    )
    words = f"{len(found)} in all, samples and single values; means are over the rest. By kind:"
    return tag("h2", "Failures") + tag("p", words, kind="wide") + card(listed)


def provenance(result: IndicatorResult) -> str:
    """Where each run's numbers come from and what it cost."""
    shown = [card(tag("h3", safe(" · ".join(cell.key))), rows_table(_origin(cell))) for cell in result.cells]
    inner = tag("details", tag("summary", f"{len(shown)} run(s)"), cards(shown, "top"))
    return tag("h2", "Provenance") + inner


def _origin(cell: IndicatorCell) -> list[tuple[str, Any]]:
    manifest, study = cell.folder.read_json("manifest.json", {}), cell.folder.read_json("study.json", {})
    session = (manifest.get("sessions") or [{}])[-1]
    model, data = manifest.get("model", {}), manifest.get("data", {})
    total = cell.folder.read_json("cost.json", {}).get("total", {})
    versions = ", ".join(f"{name} {version}" for name, version in session.get("versions", {}).items())
    named = {name: _json(value) for name, value in study.get("indicators", {}).items()}
    removals = {name: _json(value) for name, value in study.get("removals", {}).items()}
    return [
        ("run", cell.folder.path.name),
        (
            "model",
            f"{model.get('id') or model.get('family')}, fingerprint {str(model.get('fingerprint'))[:16]}",
        ),
        (
            "data",
            f"{data.get('name')}, {data.get('n')} samples, fingerprint {str(data.get('fingerprint'))[:16]}",
        ),
        *named.items(),
        *removals.items(),
        ("target, prompt", f"{_json(study.get('target'))}, {_json(study.get('prompt'))}"),
        ("steps", _json(study.get("steps"))),
        ("seed, batch", f"{study.get('seed')}, {cell.study.batch}"),
        ("device", f"{manifest.get('device')}; {session.get('machine')}"),
        ("computed", f"{session.get('started')}, {len(manifest.get('sessions', []))} session(s)"),
        ("versions", versions),
        ("commit", session.get("commit")),
        ("time", f"{total.get('wall_seconds', 0):.1f} s, {total.get('forwards', 0):.0f} forward passes"),
        ("peak memory", size_of(total["peak_bytes"]) if total.get("peak_bytes") else None),
    ]


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)


ACROSS = 6
SIDE = 170


def drawn_samples(cell: IndicatorCell, n: int, seed: int) -> list[int]:
    """Up to `n` measured samples, drawn with a seed and not by what came of them."""
    measured = np.sort(cell.frame("samples")["index"].to_numpy(int))
    if len(measured) <= n:
        return measured.tolist()
    return np.sort(np.random.default_rng(seed).choice(measured, n, replace=False)).tolist()


def maps_card(cell: IndicatorCell, index: int) -> str:
    """One sample: its image with the truth, every indicator's map with its score, question and answer."""
    study, tokens = cell.study, cell.tokens(index)
    truth = truth_boxes(study.data[index], study.truth[0])
    sample = study.data[index].replace(boxes=truth)
    image = truth[0].image if truth else 0
    shown = [(study.truth[0], picture(sample, image))]
    scores = _scores(cell, index)
    for label, values in cell.maps([index])[index].items():
        shown.append((f"{label} {scores.get(label, '')}".strip(), overlay(sample, tokens, values, image)))
    frame = cell.frame("samples")
    row = records(where(frame, frame["index"] == index))[0]
    known = isinstance(row["answer"], str)
    told = f"answer <b>{safe(row['answer'])}</b> · " if known else ""
    return card(
        _grid(shown),
        tag("p", safe(row["question"])),
        tag("p", told, f"model <b>{safe(row['predicted'])}</b>", kind="soft"),
        tag("p", f"<code>{safe(row['sample'])}</code>", kind="soft"),
        kind="sample",
    )


def _scores(cell: IndicatorCell, index: int) -> dict[str, str]:
    metric, truth = cell.study.metrics[0], cell.study.truth[0]
    scores = cell.frame("scores")
    keep = (scores["index"] == index) & (scores.measure == metric) & (scores.against == truth)
    digits = 2 if METRICS[metric].chance_value is not None else 3
    return {row["indicator"]: number(row["value"], digits) for row in records(where(scores, keep))}


def _grid(shown: list[tuple[str, Image.Image]]) -> str:
    pictures = []
    for words, drawn in shown:
        drawn.thumbnail((SIDE, SIDE))
        pictures.append(
            f'<figure style="margin:0"><img alt="{safe(words)}" src="{data_uri(drawn)}" width="{drawn.width}" '
            f'height="{drawn.height}"><figcaption style="font-size:.76rem">{safe(words)}</figcaption></figure>'
        )
    columns = f"grid-template-columns: repeat({ACROSS}, 1fr)"
    return f'<div class="pair" style="{columns}">{"".join(pictures)}</div>'


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


def write_page(result: IndicatorResult, path: str | Path) -> Path:
    """Write the page and return its path."""
    return write_indicators(result, Path(path))


def figures(result: IndicatorResult) -> dict[str, Any]:
    """The page's figures by name."""
    return indicator_figures(result)
