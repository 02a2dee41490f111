"""The page of a grounded answer, and its view in a notebook: coloured words and their masks."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from markupsafe import Markup
from PIL import Image

from interp.inputs.notebook import block, thumbnails
from interp.inputs.pictures import tinted, with_truth
from interp.report.figures import clear, series_colour
from interp.report.gallery import Picture, overlay, picture, picture_grid
from interp.report.html import bold, card, definitions, join, key, paragraph, save_page, section, table
from interp.report.provenance import opening
from interp.report.tables import percent

if TYPE_CHECKING:
    from interp.study.grounding.grounded_answer import GroundedAnswer, GroundedPhrase

__all__ = ["notebook_view", "write_page"]

LARGE, SMALL, NOTEBOOK = 520, 200, 200
CUTS = {
    "otsu": "above Otsu's threshold of the map",
    "positive": "above 0: more than the answer looks there on average",
}
LEAD = Markup("""The answer of <b>{model}</b>, and for each coloured word where the model looks more than for the rest
of its answer.""")
MASKS = """Masks have the colours of their words. The outline, where there is one, marks what the answer should depend
on. Below is each word's map, before it was cut."""
TERMS = {
    "Map of a word": """The mean over layers and heads of the attention from the rows that predict its tokens to the
    image tokens, minus the mean map over all tokens of the answer (attend-and-segment).""",
    "Mask": """The part of the upsampled map above a threshold, or the segment of a segmentation model at the map's
    largest value. Every map has a largest value, and every threshold cuts some part, so a mask does not show that the
    word names something in the image, or that the answer depends on that place.""",
}


def write_page(grounded: GroundedAnswer, path: str | os.PathLike[str]) -> Path:
    """Write the page of a grounded answer and return its path."""
    return save_page(
        path,
        title="Grounded answer",
        question=grounded.sample.question or "(no question)",
        lead=opening(LEAD.format(model=grounded.model), organism=grounded.organism),
        body=[
            section("The answer", card(paragraph(marked(grounded)), *map(paragraph, _notes(grounded)))),
            section("Where its words look", card(picture_grid(_together(grounded, LARGE), 2)), intro=MASKS),
            section("Word by word", card(picture_grid(_alone(grounded), 6))),
            section("Masks", card(_legend(grounded))),
            section("What the words mean", card(definitions(TERMS))),
            section("Where this comes from", card(_origin(grounded))),
        ],
    )


def notebook_view(grounded: GroundedAnswer) -> str:
    """The answer with its words in colours, and the masks, as a notebook shows them."""
    pictures = [*_together(grounded, NOTEBOOK)[1::2], *_alone(grounded)]
    notes = [paragraph(note) for note in _notes(grounded)]
    return block(
        grounded.sample.question or "(no question)", paragraph(marked(grounded)), *notes, thumbnails(pictures)
    )


def marked(grounded: GroundedAnswer) -> Markup:
    """The answer as markup: each phrase on its colour, with its number; all text is escaped."""
    each = Markup(
        "<mark style='background:{};color:inherit;border-radius:3px;padding:0 3px'>{}<sup>{}</sup></mark>"
    )
    parts = [
        part if one is None else each.format(clear(_colour(one), 0.35), part, one.number)
        for part, one in grounded.parts()
    ]
    return join(*parts) if parts else join("(nothing)")


def _colour(phrase: GroundedPhrase) -> str:
    return series_colour(phrase.number - 1)


def _notes(grounded: GroundedAnswer) -> list[str]:
    """Notes that a reader needs for this answer."""
    found = []
    if grounded.missing:
        found.append(f"Not in the answer, or only inside a longer phrase: {', '.join(grounded.missing)}.")
    if len(grounded.maps.ids) == 1:
        found.append("The answer has one token, so its map does not differ from the mean: there is no mask.")
    return found


def _together(grounded: GroundedAnswer, side: int) -> list[Picture]:
    """Each image as it is, and with all masks on it."""
    found: list[Picture] = []
    for i in range(len(grounded.sample.images)):
        which = f" {i + 1} of {len(grounded.sample.images)}" if len(grounded.sample.images) > 1 else ""
        found.append((f"image{which}", picture(grounded.sample, i, side)))
        found.append((f"masks on image{which}", _drawn(grounded, i, side)))
    return found


def _drawn(grounded: GroundedAnswer, image: int, side: int) -> Image.Image:
    sample = grounded.sample
    parts = [
        (mask.inside, _colour(one)) for one in grounded.phrases for mask in one.masks if mask.image == image
    ]
    boxes = [box for box in sample.boxes if box.image == image]
    truth = [mask for mask in sample.masks if mask.image == image]
    return with_truth(tinted(sample.load(image), parts, side), sample.sizes[image], boxes, truth)


def _alone(grounded: GroundedAnswer) -> list[Picture]:
    """Each phrase's map over the image of its largest value."""
    return [
        (
            f"{one.number}: {one.text}",
            overlay(grounded.sample, grounded.tokens, one.map.values, one.image, SMALL),
        )
        for one in grounded.phrases
    ]


def _legend(grounded: GroundedAnswer) -> Markup:
    frame = grounded.to_dataframe()
    colours = {one.number: _colour(one) for one in grounded.phrases}
    several = len(grounded.sample.images) > 1
    lines = [
        (
            join(key(colours[row["number"]]), bold(row["phrase"])),
            row["number"],
            *([row["image"] + 1] if several else []),
            f"({row['x']:.0f}, {row['y']:.0f})" if row["x"] == row["x"] else None,
            "segmentation at that point" if row["refined"] else "the map, cut",
            percent(row["share"], 1),
        )
        for row in frame.to_dict("records")
    ]
    heads = [
        "phrase",
        "number",
        *(["image"] if several else []),
        "largest value at (x, y)",
        "mask",
        "of the image",
    ]
    return table(heads, lines, kind="text")


def _origin(grounded: GroundedAnswer) -> Markup:
    cut = grounded.threshold
    share = CUTS[cut] if isinstance(cut, str) else f"above the {cut:g} quantile of the image's pixels"
    refined = any(one.refined for one in grounded.phrases)
    sizes = ", ".join(f"{width} × {height} pixels" for width, height in grounded.sample.sizes)
    lines = [
        ("model", grounded.model),
        ("prompt", grounded.prompt.template),
        ("images", sizes),
        ("image tokens", str(grounded.tokens.n)),
        ("tokens of the answer", str(len(grounded.maps.ids))),
        ("upsampling", grounded.upsample),
        ("mask", "a segmentation model at the largest value" if refined else share),
    ]
    return table((), lines, kind="text")
