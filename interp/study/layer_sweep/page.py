"""A result as one HTML file that loads nothing from elsewhere."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path
from string import Template
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from jaxtyping import Float
from plotly.offline import get_plotlyjs

from interp.metrics import METRICS
from interp.report import provenance as sections
from interp.report.gallery import COLOUR_MAP, RAMP, data_uri, overlay, picture, portrait
from interp.report.html import (
    CONTROLS,
    capital,
    card,
    cards,
    mean_and_interval,
    number,
    opening,
    safe,
    tag,
    write_sheet,
)
from interp.run.store import write_atomically
from interp.stats import MIN_GROUPS, per_group
from interp.study.dataframes import records, rows_of, where
from interp.study.layer_sweep import page as prose
from interp.study.layer_sweep.figures import cell_name, key, layer_figures
from interp.study.layer_sweep.tables import comparisons, tables
from interp.study.model_spec import is_organism

if TYPE_CHECKING:
    from interp.study.layer_choice import LayerChoice
    from interp.study.layer_sweep.result import Cell, Result

__all__ = [
    "BEATS_BOTH",
    "BEATS_NONE",
    "CENTRE_PRIOR",
    "CHOSEN_HERE",
    "COMPARING",
    "COMPARISONS",
    "FEATURED",
    "FIGURES",
    "GALLERY",
    "INTERVALS",
    "LEAD",
    "ORGANISM",
    "SHUFFLED",
    "SYMBOLS",
    "figures",
    "findings",
    "gallery",
    "lead",
    "render",
    "write_maps",
    "write_page",
    "write_report",
]

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


N_SHOWN = 3


def gallery(result: Result, choice: LayerChoice) -> str:
    """The samples with the best and the worst score at the featured layer, with what the model looked at."""
    intro = prose.GALLERY.format(metric=safe(METRICS[choice.metric].label), ramp=", ".join(COLOUR_MAP))
    parts = [tag("h2", "Best and worst samples"), tag("p", intro, kind="soft wide")]
    for cell in result.cells:
        layer = choice.layers[cell.labels["model"]]
        ranked = _ranked(cell, choice.metric, layer)
        picked = {"best": ranked[:N_SHOWN], "worst": ranked[N_SHOWN:][-N_SHOWN:][::-1]}
        for word, chosen in ((word, chosen) for word, chosen in picked.items() if chosen):
            parts.append(tag("h4", key(result, cell), safe(cell_name(result, cell)), f" · {word}"))
            maps = cell.maps([index for index, _ in chosen], layer)
            shown = (_sample(cell, index, score, maps[index]) for index, score in chosen)
            parts.append(cards(shown, kind="tight"))
    return "".join(parts)


def _ranked(cell: Cell, metric: str, layer: int) -> list[tuple[int, float]]:
    """(index, score) from best to worst; equal scores in the order of the data."""
    scores = cell.frame("scores")
    keep = (scores.metric == metric) & (scores.control == "boxes") & (scores.layer == layer)
    rows = where(scores, keep & scores.value.notna())
    rows = rows.sort_values(["value", "index"], ascending=[METRICS[metric].better == "lower", True])
    return [(int(index), float(score)) for index, score in zip(rows["index"], rows["value"], strict=True)]


def _sample(cell: Cell, index: int, score: float, values: Float[np.ndarray, " token"]) -> str:
    sample = cell.sweep.data[index]
    table = cell.frame("samples")
    row = records(where(table, table["index"] == index))[0]
    image = sample.boxes[0].image
    heat = overlay(sample, cell.tokens(index), values, image)
    shown = (("image with box", picture(sample, image)), ("map over the image", heat))
    pair = [
        f'<img alt="{words}" src="{data_uri(drawn)}" width="{drawn.width}" height="{drawn.height}">'
        for words, drawn in shown
    ]
    group = "" if row["group"] == sample.id else f" · group {safe(row['group'])}"
    origin = f"<code>{safe(sample.id)}</code>{group}"
    return card(
        tag("div", *pair, kind="pair"),
        tag("p", tag("span", number(score), kind="score"), safe(sample.question)),
        tag("p", _answer(row), kind="soft"),
        tag("p", origin, kind="soft"),
        kind="sample",
    )


def _answer(row: Mapping[str, Any]) -> str:
    known = isinstance(row["answer"], str)
    told = f"answer <b>{safe(row['answer'])}</b>" if known else "no answer given"
    if not isinstance(row["predicted"], str):
        return told
    kind = ("right" if row["correct"] else "wrong") if known else ""
    return f"{told} · model {tag('b', safe(row['predicted']), kind=kind)}"


def write_report(result: Result, path: Path, choice: LayerChoice | None = None) -> Path:
    """Write the page to `path` and return it."""
    write_atomically(path, render(result, choice).encode())
    return path


def render(result: Result, choice: LayerChoice | None = None) -> str:
    """The page's text: about 5 MB, nearly all of it Plotly, inline.

    Args:
        result: What to show.
        choice: The layer to feature; without one, the best on these samples, labelled as descriptive.
    """
    headline = "ar" if "ar" in result.metrics else result.metrics[0]
    chosen = choice or result.best_layer(headline, descriptive=True)
    body = (
        findings(result, chosen),
        sections.figures(result.figures(chosen)),
        comparisons(result, chosen),
        gallery(result, chosen),
        tables(result, chosen),
        sections.failures(result),
        sections.definitions(result),
        sections.provenance(result),
    )
    room = files("interp.report")
    return Template((room / "page.html").read_text()).substitute(
        title=safe(f"{result.study.title} · interp"),
        eyebrow=safe(result.study.title),
        question=safe(result.study.question),
        lead=lead(result),
        style=(room / "page.css").read_text(),
        plotly=get_plotlyjs(),
        body="".join(body),
        version=safe(_version()),
    )


def _version() -> str:
    try:
        return importlib.metadata.version("interp")
    except importlib.metadata.PackageNotFoundError:
        return "(source)"


def write_page(result: Result, path: str | Path, *, choice: LayerChoice | None = None) -> Path:
    """Write the page to `path` and return it."""
    return write_report(result, Path(path), choice)


def figures(result: Result, *, choice: LayerChoice | None = None) -> dict[str, Any]:
    """The page's figures by name."""
    return layer_figures(result, choice)


BEATS_BOTH = """More inside the boxes than <b>both</b> nulls: the interval of each paired difference lies
beyond zero."""

BEATS_NONE = "Not distinguishable from the nulls: the interval of each paired difference holds zero."

LEAD = """Measured on <b>{models}</b> with {n} samples ({data}): how much of each layer's map over the image
tokens falls inside the annotated boxes."""

ORGANISM = """The model is a <b>model organism</b>: a small network trained for this toolkit so that the
cause of its answers is known. It shows that the instruments work. These are not the paper's numbers, and
they say nothing about a clinical model."""

FIGURES = """Lines are means over samples, bands their 95 % bootstrap intervals over groups (thin lines:
single groups, where there are too few for an interval). Grey: what the same maps score on another sample's
boxes (dashed), and what a look at the middle scores on the samples' own boxes (dotted)."""

GALLERY = """By {metric} at the featured layer. Left: the image with its box. Right: the map over its
tokens, low <span class="ramp" style="background:linear-gradient(90deg, {ramp})"></span> high, scaled to
each map's own 99.5th percentile."""

SYMBOLS = """R: the map over the N image tokens that see some of the image. B: the tokens that the boxes
cover, by the rule “{rule}”. G: even inside B, zero outside. Â = R / Σ R. KL = Σ G ln(G / Â)."""

SHUFFLED = """The sample's own map against the boxes of another sample, of another group where there is one,
moved to the same relative place. High scores here mean that boxes lie where maps are high anyway."""

CENTRE_PRIOR = """A Gaussian around the image's middle (σ = a quarter of each side) against the sample's own
boxes. High scores here mean that boxes lie in the middle."""

INTERVALS = """Percentile bootstrap over groups (2,000 resamplings): questions about one patient, volume or
image are not independent. Fewer than 20 groups carry no claim about a population."""

FEATURED = "One layer per model. It counts as an estimate only if it was chosen on other groups."

COMPARING = """KL and JS depend on the boxes' size, and AR cannot exceed N/|B|; KL gain subtracts the even
map's score. Compare data sets only at like box sizes."""

COMPARISONS = """Differences are first minus second. p: permutation test that moves whole groups (signs of the
paired differences, or which side a group is on); Holm's p is adjusted over the table, so that reading all its
rows still errs once in twenty at most. Different samples may have boxes of different size: “at like box
sizes” compares pairs whose boxes cover the same share of the tokens, to 10 %."""

CHOSEN_HERE = """The layer was chosen on these very samples, so these p-values are too small: read them as a
description."""

HOW = """Each picture: the image in grey, its box, and the map over its tokens, low {ramp} high, scaled to the
map's own 99.5th percentile: compare where maps are strong, not how strong. AR is the relative map's mean inside
the box over its mean everywhere; an even map scores 1. {choice}"""


def write_maps(results: Mapping[str, Result], choice: LayerChoice, path: Path) -> Path:
    """Writes a page with every sample of the results, its image beside one map per result.

    Args:
        results: Caption → a result over the same samples; the score shown is the last one's, by `choice`'s
            metric.
        choice: The layer whose maps are shown.
        path: The HTML file.
    """
    last = list(results.values())[-1]
    names = ", ".join(dict.fromkeys(cell.labels["data"] for cell in last.cells))
    lead = opening(
        f"{len(last.samples)} samples of {safe(names)}, drawn with seed {last.seed} and not by their score: where "
        "the model attends when it is about to answer.",
        last,
    )
    body = [tag("p", HOW.format(ramp=RAMP, choice=safe(capital(choice.sentence(last)))), kind="soft wide")]
    for place, cell in enumerate(last.cells):
        layer = choice.layers[cell.labels["model"]]
        views = [(caption, result.cells[place], layer) for caption, result in results.items()]
        scores = _scores(cell, choice.metric, layer)
        body.append(tag("h2", safe(cell.labels["data"])))
        body.append(cards(portrait(views, index, f"AR {number(score)}") for index, score in scores.items()))
    return write_sheet(
        path,
        title="Attention maps",
        question="Where does the model look when it answers?",
        lead=lead,
        body=body,
    )


def _scores(cell: Cell, metric: str, layer: int) -> dict[int, float]:
    """Index → score at the layer, in the order of the data."""
    scores = cell.frame("scores")
    own = where(scores, (scores.metric == metric) & (scores.control == "boxes") & (scores.layer == layer))
    return {int(index): float(value) for index, value in zip(own["index"], own["value"], strict=True)}
