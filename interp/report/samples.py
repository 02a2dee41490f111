"""The gallery: samples a layer scores best and worst on."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float

from interp.metrics import METRICS
from interp.report import prose
from interp.report.figures import cell_name, key
from interp.report.gallery import COLOUR_MAP, data_uri, overlay, picture
from interp.report.words import card, cards, number, safe, tag
from interp.study.frames import records, where

if TYPE_CHECKING:
    from interp.study.choice import LayerChoice
    from interp.study.result import Cell, Result

__all__ = ["gallery"]

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
