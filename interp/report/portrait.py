"""One sample as a card: its pictures side by side, the question, the answers, a score."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from PIL import Image

from interp.report.gallery import COLOUR_MAP, data_uri, overlay, picture
from interp.report.words import card, safe, tag
from interp.study.frames import records, where

if TYPE_CHECKING:
    from interp.study.result import Cell

__all__ = ["RAMP", "portrait"]

RAMP = f'<span class="ramp" style="background:linear-gradient(90deg, {", ".join(COLOUR_MAP)})"></span>'
"""The colours of a map from low to high, as markup."""


def portrait(views: Sequence[tuple[str, Cell, int]], index: int, score: str = "", note: str = "") -> str:
    """The card of a sample: its image with the boxes, then its map in each view.

    Args:
        views: Caption, run and layer of each map; all runs are on the same samples. The first one's answer is
            shown.
        index: The sample's place in the data.
        score: Text beside the question.
        note: Text under the answers.
    """
    cell = views[0][1]
    sample = cell.sweep.data[index]
    image = sample.boxes[0].image
    shown = [("image and box", picture(sample, image))]
    for caption, run, layer in views:
        shown.append((caption, overlay(sample, run.tokens(index), run.maps([index], layer)[index], image)))
    frame = cell.frame("samples")
    row = records(where(frame, frame["index"] == index))[0]
    group = "" if row["group"] == sample.id else f" · group {safe(row['group'])}"
    return card(
        _side_by_side(shown),
        tag(
            "p", f'<span class="score" style="margin-left: .6em">{safe(score)}</span>', safe(sample.question)
        ),
        tag("p", answers(row), kind="soft"),
        tag("p", f"<code>{safe(sample.id)}</code>{group}", kind="soft"),
        tag("p", safe(note), kind="soft") if note else "",
        kind="sample",
    )


def answers(row: Mapping[str, Any]) -> str:
    """What the sample says the answer is and what the model's first token says, as markup."""
    known = isinstance(row["answer"], str)
    told = f"answer <b>{safe(row['answer'])}</b>" if known else "no answer given"
    if not isinstance(row["predicted"], str):
        return told
    kind = ("right" if row["correct"] else "wrong") if known and row["correct"] is not None else ""
    return f"{told} · model {tag('b', safe(row['predicted']), kind=kind)}"


def _side_by_side(shown: Sequence[tuple[str, Image.Image]]) -> str:
    pictures = (
        f'<figure style="margin:0"><img alt="{safe(words)}" src="{data_uri(drawn)}" width="{drawn.width}" '
        f'height="{drawn.height}"><figcaption style="font-size:.8rem">{safe(words)}</figcaption></figure>'
        for words, drawn in shown
    )
    columns = f"grid-template-columns: repeat({len(shown)}, 1fr)"
    return f'<div class="pair" style="{columns}">{"".join(pictures)}</div>'
