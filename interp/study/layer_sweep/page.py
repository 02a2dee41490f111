"""The page of a layer sweep, with its tables; and the page of samples with their maps."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from markupsafe import Markup

from interp.errors import StudyError
from interp.inputs.pictures import SIDE
from interp.metrics import METRICS
from interp.report.gallery import Picture, answers, origin_line, overlay, picture, ramp, sample_card
from interp.report.gallery import views as frames_of
from interp.report.html import (
    Cell,
    Row,
    bold,
    capital,
    card,
    details,
    figure_cards,
    grid,
    heading,
    headline,
    join,
    paragraph,
    save_page,
    section,
    span,
    table,
)  # fmt: skip
from interp.report.provenance import (
    INTERVALS,
    as_json,
    failure_list,
    meanings,
    metric_terms,
    opening,
    origin,
    provenance,
)  # fmt: skip
from interp.report.tables import (
    CONTROLS,
    cell_name,
    cell_names,
    count,
    estimate,
    estimates,
    group_values,
    listed,
    number,
    p_value,
    percent,
    times,
)
from interp.stats import MIN_GROUPS
from interp.study.dataframes import records, rows_of, where
from interp.study.layer_sweep.figures import figures, key
from interp.study.layer_sweep.result import has_lesions, lesion_hits
from interp.study.layer_sweep.task import AFTER_THE_PASS
from interp.study.model_spec import is_organism

if TYPE_CHECKING:
    from interp.study.layer_choice import LayerChoice
    from interp.study.layer_sweep.result import Cell as SweepCell
    from interp.study.layer_sweep.result import Result

__all__ = [
    "comparisons",
    "every_layer",
    "figures",
    "findings",
    "lesions",
    "map_card",
    "sweep_opening",
    "write_maps",
    "write_page",
]


N_SHOWN = 3
MANY, SMALL_SIDE = 150, 160
"""With more samples on one page their pictures are this small, so that a page of 1,000 stays below 15 MB."""
LEAD = Markup("""Measured on <b>{models}</b> with {samples} ({data}): how much of each layer's map over the image
tokens lies inside the annotated boxes.""")
FIGURES = """Lines are means over samples. Bands are their 95 % bootstrap intervals over groups; where there are too
few groups for an interval, each thin line is one group. Grey, dashed: the same maps scored on another sample's boxes
(shuffled boxes). Grey, dotted: a centre prior scored on the samples' own boxes."""
GALLERY = Markup("""By {metric} at the featured layer. Left: the image with its box. Right: the map over its tokens,
{ramp}, each map scaled to its own 99.5th percentile.""")
TERMS = {
    "Shuffled boxes": """The sample's own map against the boxes of another sample, from another group where there is
    one, moved to the same relative place. A high score here means that boxes lie where maps are high anyway.""",
    "Centre prior": """A Gaussian around the centre of the image (σ = a quarter of each side) against the sample's own
    boxes. A high score here means that boxes lie near the centre.""",
    "Intervals": INTERVALS,
    "Featured layer": "One layer per model. It counts as an estimate only if it was chosen on other groups.",
    "Comparing data sets": """KL and JS depend on the boxes' size, and AR cannot exceed N/|B|; KL gain subtracts the
    score of a uniform map. Compare data sets only at like box sizes.""",
}
MAPS = Markup("""Each picture shows the image in grey, its box, and the map over its tokens, {ramp}. Each map
is scaled to its own 99.5th percentile: compare where maps are strong, not how strong they are. Beside each question:
the {metric} of the relative map; a uniform map scores {chance}. {choice}""")
MAPS_LEAD = Markup("""{samples} of {data}, drawn with seed {seed} and not by their score: where the model attends
just before it answers.""")


def write_page(result: Result, path: str | Path, *, choice: LayerChoice | None = None) -> Path:
    """Writes the page and returns its path.

    Args:
        result: What to show.
        path: The HTML file, about 5 MB, nearly all of it Plotly.
        choice: The layer to feature; without one, the best on these samples, labelled as descriptive.
    """
    headline = "ar" if "ar" in result.metrics else result.metrics[0]
    chosen = choice or result.best_layer(headline, descriptive=True)
    shown = figures(result, chosen)
    body = [
        findings(result, chosen),
        section("Layer by layer", figure_cards(shown, "first"), intro=FIGURES),
        comparisons(result, chosen),
        _gallery(result, chosen),
        lesions(result),
        every_layer(result, chosen),
        _failures(result),
        _meanings(result),
        provenance(
            (join(key(result, cell), cell_name(result.cells, cell)), _origin(cell)) for cell in result.cells
        ),
    ]
    title, question = result.study.title, result.study.question
    return save_page(
        path, title=title, question=question, lead=sweep_opening(LEAD, result), body=body, figures=shown
    )


def sweep_opening(words: Markup, result: Result, **values: object) -> Markup:
    """The first paragraph of a page about layer sweeps, with the number of samples and the names filled in."""
    models, data = (listed(cell.labels[axis] for cell in result.cells) for axis in ("model", "data"))
    samples = count(result.n_samples, "sample")
    said = words.format(**{"models": models, "data": data, "samples": samples, **values})
    return opening(said, organism=any(is_organism(cell.sweep.model) for cell in result.cells))


def _gallery(result: Result, choice: LayerChoice) -> Markup:
    """The samples with the best and the worst score at the featured layer, with their maps."""
    parts = []
    for cell in result.cells:
        layer = choice.layers[cell.labels["model"]]
        ranked = _ranked(cell, choice.metric, layer)
        picked = {"best": ranked[:N_SHOWN], "worst": ranked[N_SHOWN:][-N_SHOWN:][::-1]}
        for word, chosen in ((word, chosen) for word, chosen in picked.items() if chosen):
            parts.append(heading(key(result, cell), cell_name(result.cells, cell), f" · {word}", level=3))
            shown = (
                map_card([("map over the image", cell, layer)], i, score=number(score)) for i, score in chosen
            )
            parts.append(grid(shown, "tight"))
    intro = GALLERY.format(metric=METRICS[choice.metric].label, ramp=ramp())
    return section("Best and worst samples", *parts, intro=intro)


def _ranked(cell: SweepCell, metric: str, layer: int) -> list[tuple[int, float]]:
    """(index, score) from best to worst; equal scores in the order of the data."""
    scores = cell.frame("scores")
    keep = (scores.metric == metric) & (scores.control == "boxes") & (scores.layer == layer)
    rows = where(scores, keep & scores.value.notna())
    rows = rows.sort_values(["value", "index"], ascending=[METRICS[metric].better == "lower", True])
    return [(int(index), float(score)) for index, score in zip(rows["index"], rows["value"], strict=True)]


def map_card(
    views: list[tuple[str, SweepCell, int]], index: int, *, score: str = "", side: int = SIDE
) -> Markup:
    """The card of a sample: its image with the boxes, then its map in each view.

    Args:
        views: Caption, run and layer of each map; all runs are on the same samples. The answer shown is the first
            run's.
        index: The sample's place in the data.
        score: Text beside the question.
        side: Pixels of the pictures' longer side.
    """
    cell = views[0][1]
    sample = cell.sweep.data[index]
    pictures: list[Picture] = frames_of(sample, "image and box", partial(picture, sample, side=side))
    for caption, run, layer in views:
        drawn = partial(overlay, sample, run.tokens(index), run.maps([index], layer)[index], side=side)
        pictures += frames_of(sample, caption, drawn)
    frame = cell.named_frame("samples")
    row = records(where(frame, frame["index"] == index))[0]
    lines = [answers(row), origin_line(sample.id, row["group"])]
    return sample_card(pictures, sample.question, lines, score=score)


def _failures(result: Result) -> Markup:
    found = result.failures
    if found.empty:
        return section("Failures", paragraph("None: every sample was measured at every layer.", kind="soft"))
    whole = int(found.layer.isna().sum())
    words = (
        f"Samples left out: {whole}. Single values undefined: {len(found) - whole}. By reason: "
        f"{times(found.error.value_counts())}. All are listed in failures.parquet. Means are over the rest."
    )
    first = details("The first of each kind", card(failure_list(found, ["sample"])))
    return section("Failures", paragraph(words, kind="wide"), first)


def _meanings(result: Result) -> Markup:
    sweep = result.cells[0].sweep
    return meanings(metric_terms(result.metrics, sweep.rule), {"Indicator": repr(sweep.indicator), **TERMS})


def _origin(cell: SweepCell) -> Markup:
    sweep = cell.sweep
    more = [
        ("prompt", as_json(sweep.prompt)),
        ("indicator", as_json(sweep.indicator)),
        ("rule, seed, batch", f"{sweep.rule}, {sweep.seed}, {sweep.batch}"),
    ]
    return origin(cell.folder, more)


def write_maps(results: Mapping[str, Result], choice: LayerChoice, path: str | Path) -> Path:
    """Writes a page with every sample of the results, its image beside one map per result.

    Args:
        results: Caption → a result over the same samples; the score shown is the last one's, by `choice`'s
            metric.
        choice: The layer whose maps are shown.
        path: The HTML file.
    """
    last = list(results.values())[-1]
    metric = METRICS[choice.metric]
    said = {"metric": metric.label, "chance": metric.chance, "choice": capital(choice.sentence(last))}
    intro = MAPS.format(ramp=ramp(), **said)
    body = [paragraph(intro, kind="soft wide")]
    side = SIDE if sum(len(cell.frame("samples")) for cell in last.cells) <= MANY else SMALL_SIDE
    for place, cell in enumerate(last.cells):
        layer = choice.layers[cell.labels["model"]]
        views = [(caption, result.cells[place], layer) for caption, result in results.items()]
        scores = _scores(cell, choice.metric, layer).items()
        name = choice.metric.upper().replace("_", " ")
        cards = (
            map_card(views, index, score=f"{name} {number(score)}", side=side) for index, score in scores
        )
        body.append(section(cell_name(last.cells, cell, ("data",)), grid(cards)))
    lead = sweep_opening(MAPS_LEAD, last, seed=last.seed)
    question = "Where does the model look when it answers?"
    return save_page(path, title="Attention maps", question=question, lead=lead, body=body)


def _scores(cell: SweepCell, metric: str, layer: int) -> dict[int, float]:
    """Index → score at the layer, in the order of the data."""
    scores = cell.frame("scores")
    own = where(scores, (scores.metric == metric) & (scores.control == "boxes") & (scores.layer == layer))
    return {int(index): float(value) for index, value in zip(own["index"], own["value"], strict=True)}


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
            f"{count(own[0]['n'], 'lesion')} in {count(own[0]['n_groups'], 'volume')}, "
            f"{own[0]['slices']:.1f} slices per lesion on average"
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
