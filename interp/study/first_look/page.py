"""The page of a `Look`, and its view in a notebook."""

from __future__ import annotations

import os
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float
from markupsafe import Markup

from interp.inputs.notebook import block, thumbnails
from interp.inputs.sample import Sample
from interp.inputs.tokens import TokenMap
from interp.report.gallery import (
    Picture,
    frame_name,
    overlay,
    picture,
    picture_grid,
    ramp,
    shown_frames,
)
from interp.report.html import (
    bold,
    capital,
    card,
    code,
    definitions,
    join,
    paragraph,
    save_page,
    section,
    table,
)
from interp.report.provenance import opening
from interp.report.tables import number, percent
from interp.study.first_look.shown_map import ShownMap
from interp.study.first_look.trust import Trust

if TYPE_CHECKING:
    from interp.study.first_look.look import Look

__all__ = ["notebook_view", "write_page"]

LARGE, MEDIUM, NOTEBOOK, SMALL = 560, 340, 240, 150
"""Longer sides of the pictures, in pixels."""
MOST_FRAMES, MOST_SMALL = 8, 2
"""The maximum number of a video's frames that are shown large, and of images shown for each layer and head."""
ACROSS = 8
LEAST_SHOWN = 0.01
"""First tokens below this probability are not listed, except the first two."""

SCALE = Markup("""Colours run {ramp}. Each map has its own colour scale, from 0 to its largest values, so compare where
maps are strong, not how strong they are. Parts that no token covers stay grey{boxes}.""")
LAYERS = """The first indicator at every layer that it gives. A pattern at one layer alone is weaker evidence than one
that neighbouring layers share."""
HEADS = (
    """The shown layer, head by head. The map above is the mean over heads, which a few heads can dominate."""
)
INDICATORS = """Each indicator measures something different, so maps can disagree. Where they do, none of them shows the
place of the evidence without further tests."""
TRUST = (
    """None of these checks can show that a map is right. They test for known ways in which maps mislead."""
)
WORDS = {
    "Map": "One number per image token; larger = more important.",
    "Image token": "A position of the prompt that represents one tile of the image.",
    "Uniform map": "A map with the same value at every token, as a reference for chance.",
    "Caution": """A number beyond a limit that this package sets by convention: a mean probability of the answer's
tokens below 0.1; a share s of the weight, where a uniform map has u, with (s − u) / (1 − u) above 0.25; a rank
correlation below 0.3 with another indicator, or above 0.5 with shuffled weights; more than one of 19 random orders that
do as well.""",
}


def write_page(look: Look, path: str | os.PathLike[str]) -> Path:
    """Write the page of a look and return its path."""
    return save_page(
        path,
        title="Where the model looks",
        question=look.sample.question or "(no question)",
        lead=opening(_answer(look), organism=look.organism),
        body=[
            _large(look),
            section("How far to trust this map", card(_trust(look.trust)), intro=TRUST),
            _indicators(look),
            _layers(look),
            _heads(look),
            section("What the words mean", card(definitions({**WORDS, **_abouts(look)}))),
            section("Where this comes from", card(_origin(look))),
        ],
    )


def notebook_view(look: Look) -> str:
    """The image, every indicator's map, the answer and the checks, as a notebook shows them."""
    pictures = _pictures(look.sample, look.first.tokens, None, "image", NOTEBOOK)
    for one in look.shown.values():
        pictures += _pictures(look.sample, one.tokens, one.values, one.name, NOTEBOOK)
    notes = [look.first.rule, look.trust.summary, *_missing(look)]
    return block(
        look.sample.question or "(no question)",
        paragraph(_answer(look)),
        thumbnails(pictures),
        *(paragraph(note) for note in notes),
    )


def _answer(look: Look) -> Markup:
    """The answer with its probability, and the likeliest first tokens."""
    said = (
        join(look.model, " answers ", bold(look.said))
        if look.answer is not None
        else join(look.model, " did not finish its reasoning")
    )
    known = "" if np.isnan(look.probability) else f" with probability {number(look.probability)}"
    listed = [one for place, one in enumerate(look.likely) if place < 2 or one[1] >= LEAST_SHOWN]
    first = ", ".join(f"“{token}” {number(share)}" for token, share in listed)
    expected = f" Expected: “{look.sample.answer}”." if look.sample.answer is not None else ""
    note = f" {look.note}" if look.note else ""
    return join(said, known, ".", expected, f" Likeliest first tokens: {first}.", note)


def _large(look: Look) -> Markup:
    """The image beside the first indicator's map."""
    first, sample = look.first, look.sample
    plain = _pictures(sample, first.tokens, None, "what the model was shown", LARGE)
    maps = _pictures(sample, first.tokens, first.values, first.name, LARGE)
    boxes = "; the outline marks what the answer should depend on" if sample.boxes or sample.masks else ""
    return section(
        "Where it looks",
        card(
            picture_grid([one for pair in zip(plain, maps, strict=True) for one in pair], 2),
            paragraph(first.rule),
            paragraph(SCALE.format(ramp=ramp(), boxes=boxes), kind="soft"),
        ),
    )


def _trust(trust: Trust) -> Markup:
    """The checks, with their summary."""
    return join(paragraph(bold(trust.summary)), trust.table)


def _indicators(look: Look) -> Markup:
    """Every indicator's map side by side."""
    pictures: list[Picture] = []
    for one in look.shown.values():
        pictures += _pictures(look.sample, one.tokens, one.values, one.name, MEDIUM)
    rules = [paragraph(bold(one.label), ": ", one.rule, kind="soft") for one in look.shown.values()]
    missing = [paragraph(line, kind="note") for line in _missing(look)]
    if len(look.shown) < 2 and not missing:
        return Markup("")
    columns = min(max(len(pictures), 1), 3)
    return section(
        "Several indicators", card(picture_grid(pictures, columns), *rules, *missing), intro=INDICATORS
    )


def _layers(look: Look) -> Markup:
    """The first indicator at every layer."""
    first = look.first
    array = look.maps[first.label][0]
    if "layer" not in array.dims or array.sizes["layer"] < 2:
        return Markup("")
    pictures: list[Picture] = []
    for layer, values in zip(array["layer"].values.tolist(), array.values, strict=True):
        name = f"layer {layer}" + (" (shown above)" if layer == first.layer else "")
        pictures += _small(look, first, np.asarray(values, float), name)
    return section("Layers", card(picture_grid(pictures, ACROSS)), intro=LAYERS)


def _heads(look: Look) -> Markup:
    """The heads of the layer that is shown."""
    if look.heads is None:
        return Markup("")
    pictures: list[Picture] = []
    for head, values in zip(look.heads["head"].values.tolist(), look.heads.values, strict=True):
        pictures += _small(look, look.first, np.asarray(values, float), f"head {head}")
    title = f"Heads of layer {look.first.layer}"
    return section(title, card(picture_grid(pictures, ACROSS)), intro=HEADS)


def _small(look: Look, first: ShownMap, values: Float[np.ndarray, " token"], name: str) -> list[Picture]:
    """Small pictures of a layer or a head, for the images with the most weight in the shown map."""
    chosen = _images(look.sample)
    if len(chosen) > MOST_SMALL:
        weight = [float(first.shares[first.tokens.shows(i)].sum()) for i in chosen]
        chosen = sorted(chosen[k] for k in np.argsort(-np.array(weight), kind="stable")[:MOST_SMALL])
    return _pictures(look.sample, first.tokens, values, name, SMALL, chosen)


def _images(sample: Sample) -> list[int]:
    """The indices of the images to show: all images, or some frames of a video."""
    return list(range(len(sample.images))) if sample.video is None else shown_frames(sample, MOST_FRAMES)


def _pictures(
    sample: Sample,
    tokens: TokenMap,
    values: Float[np.ndarray, " token"] | None,
    name: str,
    side: int,
    images: Sequence[int] | None = None,
) -> list[Picture]:
    """Each image with a map over it, or as it is; captions name the image where there are several."""
    found: list[Picture] = []
    for i in _images(sample) if images is None else images:
        drawn = picture(sample, i, side) if values is None else overlay(sample, tokens, values, i, side)
        several = f"image {i + 1} of {len(sample.images)}" if len(sample.images) > 1 else ""
        which = frame_name(sample, i) if sample.video is not None else several
        found.append((" · ".join(filter(None, (name, which))), drawn))
    return found


def _missing(look: Look) -> list[str]:
    """What could not be computed, and why."""
    return [f"{capital(name)} could not be computed: {why}" for name, why in look.missing.items()]


def _abouts(look: Look) -> dict[str, str]:
    return {capital(one.label): one.about for one in look.shown.values() if one.about}


def _origin(look: Look) -> Markup:
    """Model, prompt, tokens, and the command that makes the page again."""
    sample, tokens = look.sample, look.first.tokens
    lines: list[tuple[str, Any]] = [
        ("model", look.model),
        ("prompt", look.prompt.template),
        ("images", ", ".join(f"{width} × {height} pixels" for width, height in sample.sizes)),
        ("image tokens", str(tokens.n)),
    ]
    inside = [one for one in look.trust if one.name == "inside the boxes"]
    lines += [("inside the boxes", percent(one.value)) for one in inside]
    command = _command(sample)
    lines += [("command", code(command))] if command else []
    return table((), lines, kind="text")


def _command(sample: Sample) -> str:
    """The command line that makes the same page, where the images are files; else empty."""
    if sample.video is not None or not all(isinstance(one, str | Path) for one in sample.images):
        return ""
    first, *more = (shlex.quote(str(one)) for one in sample.images)
    words = ["interp look", first, shlex.quote(sample.question)]
    words += ["--more", *more] if more else []
    boxes = [one for one in sample.boxes if one.image == 0]
    for box in boxes:
        words += ["--box", *(f"{edge:g}" for edge in box.as_tuple())]
    return " ".join(words)
