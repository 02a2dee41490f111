"""What objects show in a notebook: a title, facts in a small table, pictures with captions. All text is escaped."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

import numpy as np
from markupsafe import Markup
from PIL import Image

from interp.errors import InterpError
from interp.inputs.boxes import Box
from interp.inputs.masks import Mask
from interp.inputs.pictures import data_uri, grid_lines, marked_image

__all__ = ["Drawable", "Located", "block", "facts", "sample_html", "thumbnails", "token_map_html"]

NARROWEST = 240
"""Pixels that a caption may have at least."""
SIDE, MOST = 180, 4
"""Pixels of a picture's longer side, and how many images of one sample are drawn."""
CARD = "display:inline-block;vertical-align:top;margin:0 8px 8px 0;font-size:12px"


def block(title: str, *parts: Markup) -> str:
    """The parts under a title, as HTML."""
    head = Markup("<div style='font-weight:600;margin:4px 0'>{}</div>").format(title)
    return Markup("<div class='interp'>{}{}</div>").format(head, Markup("").join(parts))


def facts(rows: Mapping[str, Any]) -> Markup:
    """Names and values as a table; what is None or empty is left out."""
    cell = "text-align:left;vertical-align:top;padding:1px 12px 1px 0"
    lines = (
        Markup(
            "<tr><th scope='row' style='{0};font-weight:500'>{1}</th><td style='{0}'>{2}</td></tr>"
        ).format(cell, name, value)
        for name, value in rows.items()
        if value is not None and value != ""
    )
    return Markup("<table style='border-collapse:collapse'>{}</table>").format(Markup("").join(lines))


def thumbnails(pictures: Iterable[tuple[str, Image.Image]], *, left: int = 0, of: str = "image") -> Markup:
    """Pictures beside each other, each over its caption.

    Args:
        pictures: Caption and picture.
        left: How many more there are that are not drawn; the last line says so.
        of: What those are.
    """
    each = (
        Markup(
            "<figure style='{0};max-width:{5}px'><img src='{1}' width='{2}' height='{3}' alt='{4}'>"
        ).format(CARD, data_uri(one), one.width, one.height, caption, max(one.width, NARROWEST))
        + Markup("<figcaption>{}</figcaption></figure>").format(caption)
        for caption, one in pictures
    )
    more = Markup("<div style='font-size:12px'>and {} more {}s</div>").format(left, of) if left > 0 else ""
    return Markup("<div>{}</div>{}").format(Markup("").join(each), more)


@runtime_checkable
class Drawable(Protocol):
    """What is shown to a model and asked about, as `Sample` is."""

    question: str
    answer: str | None
    options: tuple[str, ...] | None
    group: str | None
    images: tuple[Any, ...]
    video: Any
    masks: tuple[Mask, ...]

    @property
    def id(self) -> str:
        """What it is called."""
        ...

    @property
    def boxes(self) -> Sequence[Box]:
        """The boxes."""
        ...

    @property
    def sizes(self) -> Sequence[tuple[int, int]]:
        """(width, height) of each image or frame."""
        ...

    def load(self, i: int = 0) -> Image.Image:
        """Image or frame `i`."""
        ...


def sample_html(sample: Drawable) -> str:
    """What a notebook shows of a sample: its images with boxes or outlines, the question and what is known of it."""
    told = {"question": sample.question, "options": ", ".join(sample.options or ()), "answer": sample.answer}
    told |= {"group": sample.group, "id": sample.id}
    n, unit = len(sample.images), "image" if sample.video is None else "frame"
    places = np.linspace(0, n - 1, min(MOST, n)).round().astype(int).tolist()
    try:
        sizes = sample.sizes
        pictures = [(_caption(sample, i, unit, sizes[i]), _thumbnail(sample, i)) for i in places]
    except InterpError as error:
        return block("Sample", facts(told | {"cannot be drawn": str(error)}))
    return block("Sample", thumbnails(pictures, left=n - len(places), of=unit), facts(told))


def _caption(sample: Drawable, i: int, unit: str, size: tuple[int, int]) -> str:
    """Which image or frame it is, its size and what is marked on it."""
    n, marks = len(sample.images), sum(one.image == i for one in sample.masks or sample.boxes)
    place = f" {i + (sample.video is None)} of {n}" if n > 1 else ""
    one, many = ("mask", "masks") if sample.masks else ("box", "boxes")
    marked = f", {marks} {one if marks == 1 else many}" if marks else ""
    return f"{unit}{place}, {size[0]}×{size[1]} px{marked}"


def _thumbnail(sample: Drawable, i: int) -> Image.Image:
    boxes = [one for one in sample.boxes if one.image == i]
    return marked_image(sample.load(i), boxes, [one for one in sample.masks if one.image == i], SIDE)


@runtime_checkable
class Located(Protocol):
    """A map of tokens or patches, as `TokenMap` is."""

    @property
    def footprints(self) -> np.ndarray:
        """(token, 4) xyxy in pixels of the original image."""
        ...

    @property
    def views(self) -> np.ndarray:
        """(token,) name of each token's view."""
        ...

    @property
    def sizes(self) -> Sequence[tuple[int, int]]:
        """(width, height) of each image or frame."""
        ...

    @property
    def spans(self) -> Mapping[str, np.ndarray]:
        """Named groups of positions."""
        ...

    def shows(self, image: int) -> np.ndarray:
        """Which tokens stand for an image."""
        ...


def token_map_html(tokens: Located) -> str:
    """What a notebook shows of a map of tokens: their footprints on each image, and the size of each group."""
    shown = [
        (
            f"image {i + 1}, {size[0]}×{size[1]} px, {int(tokens.shows(i).sum())} tokens",
            grid_lines(tokens.footprints[tokens.shows(i)], size, SIDE),
        )
        for i, size in enumerate(tokens.sizes[:MOST])
    ]
    views, counts = np.unique(tokens.views, return_counts=True)
    told = {
        "views": ", ".join(f"{name}: {n}" for name, n in zip(views, counts, strict=True)),
        "groups": ", ".join(f"{name}: {len(at)}" for name, at in tokens.spans.items()),
    }
    left = len(tokens.sizes) - len(shown)
    return block(repr(tokens), thumbnails(shown, left=left), facts(told))
