"""The page of a layer sweep; and the page of samples with their maps."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from markupsafe import Markup

from interp.inputs.pictures import SIDE
from interp.metrics import METRICS
from interp.report.gallery import Picture, answers, origin_line, overlay, picture, ramp, sample_card
from interp.report.gallery import views as frames_of
from interp.report.html import (
    capital,
    card,
    details,
    figure_cards,
    grid,
    heading,
    join,
    paragraph,
    save_page,
    section,
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
from interp.report.tables import cell_name, listed, number, times
from interp.study.dataframes import records, where
from interp.study.layer_sweep.figures import figures, key
from interp.study.layer_sweep.tables import comparisons, every_layer, findings, lesions
from interp.study.model_spec import is_organism

if TYPE_CHECKING:
    from interp.study.layer_choice import LayerChoice
    from interp.study.layer_sweep.result import Cell, Result

__all__ = ["figures", "map_card", "sweep_opening", "write_maps", "write_page"]

N_SHOWN = 3
MANY, SMALL_SIDE = 150, 160
"""With more samples on one page their pictures are this small, so that a page of 1,000 stays below 15 MB."""
LEAD = Markup("""Measured on <b>{models}</b> with {n} samples ({data}): how much of each layer's map over the image
tokens lies inside the annotated boxes.""")
FIGURES = """Lines are means over samples. Bands are their 95 % bootstrap intervals over groups; where there are too
few groups for an interval, each thin line is one group. Grey, dashed: the same maps scored on another sample's boxes.
Grey, dotted: a centre prior scored on the samples' own boxes."""
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
MAPS_LEAD = Markup("""{n} samples of {data}, drawn with seed {seed} and not by their score: where the model attends
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
    said = words.format(**{"models": models, "data": data, "n": result.n_samples, **values})
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


def _ranked(cell: Cell, metric: str, layer: int) -> list[tuple[int, float]]:
    """(index, score) from best to worst; equal scores in the order of the data."""
    scores = cell.frame("scores")
    keep = (scores.metric == metric) & (scores.control == "boxes") & (scores.layer == layer)
    rows = where(scores, keep & scores.value.notna())
    rows = rows.sort_values(["value", "index"], ascending=[METRICS[metric].better == "lower", True])
    return [(int(index), float(score)) for index, score in zip(rows["index"], rows["value"], strict=True)]


def map_card(views: list[tuple[str, Cell, int]], index: int, *, score: str = "", side: int = SIDE) -> Markup:
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


def _origin(cell: Cell) -> Markup:
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


def _scores(cell: Cell, metric: str, layer: int) -> dict[int, float]:
    """Index → score at the layer, in the order of the data."""
    scores = cell.frame("scores")
    own = where(scores, (scores.metric == metric) & (scores.control == "boxes") & (scores.layer == layer))
    return {int(index): float(value) for index, value in zip(own["index"], own["value"], strict=True)}
