"""Samples drawn at random with the maps of one layer: what the numbers are means of."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from interp.report.portrait import RAMP, portrait
from interp.report.sheet import opening, write_sheet
from interp.report.words import capital, cards, number, safe, tag
from interp.study.frames import where

if TYPE_CHECKING:
    from interp.study.choice import LayerChoice
    from interp.study.result import Cell, Result

__all__ = ["write_maps"]

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
