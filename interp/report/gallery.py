"""Pictures of samples: the image with its boxes, a map laid over it, a card of one sample, a grid of maps."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import plotly.graph_objects as go
import xarray as xr
from jaxtyping import Bool
from markupsafe import Markup
from PIL import Image, ImageDraw

from interp.errors import MapError
from interp.inputs.overlays import overlay, picture
from interp.inputs.pictures import BOX_COLOUR, MAP, bounded, data_uri, strengths
from interp.report.figures import TEMPLATE, panels
from interp.report.html import bold, code, join, span

if TYPE_CHECKING:
    from interp.inputs.sample import Sample
    from interp.inputs.tokens import TokenMap

__all__ = [
    "BOX_COLOUR", "Picture", "answers", "crop", "crop_frame", "data_uri", "drawn", "frame_name", "hidden_tokens",
    "origin_line", "overlay", "picture", "picture_grid", "ramp", "sample_card", "show_maps", "shown_frames",
    "strengths", "views",
]  # fmt: skip

Picture = tuple[str, Image.Image]
"""A caption and its picture."""
CARD = Markup("""<div class="card sample">
{pictures}
<p>{score}{question}</p>{lines}</div>""")
PICTURE = Markup("""<figure><img src="{source}" alt="{text}" width="{size.width}" height="{size.height}">
<figcaption>{caption}</figcaption></figure>""")
CROP_COLOUR = (250, 204, 21)
SHADE = 0.22
FIGURE_SIDE, FIGURE_TITLE = 190, 42
CARD_FRAMES, FIGURE_FRAMES = 3, 8
"""Images of a sample, or frames of a video, on a card and in `show_maps`; the captions say of how many."""


def shown_frames(sample: Sample, most: int = CARD_FRAMES) -> list[int]:
    """Which images of a sample, or frames of its video, to draw: all of them, or `most` where there are more.

    Those with boxes or masks come first; what room is left goes to evenly spaced ones. They are in their own order.
    """
    marked = list(dict.fromkeys(one.image for one in sample.masks or sample.boxes))
    n = len(sample.images)
    if len(marked) > most:
        marked = [marked[i] for i in np.linspace(0, len(marked) - 1, most).round().astype(int)]
    chosen = set(marked)
    for size in range(min(most, n) + 1):  # as many evenly spaced ones as fit beside those
        spaced = np.linspace(0, n - 1, size).round().astype(int).tolist()
        if len({*marked, *spaced}) <= most:
            chosen = {*marked, *spaced}
    return sorted(chosen)


def frame_name(sample: Sample, image: int) -> str:
    """What a caption says of a frame or an image: "frame 3 (1.5 s) of 16", "image 1 of 2"; empty for a single image."""
    if sample.video is not None:
        return f"frame {image} ({sample.video.times[image]:.4g} s) of {len(sample.video)}"
    n = len(sample.images)
    return f"image {image + 1} of {n}" if n > 1 else ""


def views(sample: Sample, caption: str, draw: Callable[[int], Image.Image]) -> list[Picture]:
    """One picture of each shown image, or frame of a video, with captions that name them where there are several.

    Args:
        sample: What is drawn.
        caption: What the pictures show.
        draw: Draws the image or frame with this number.
    """
    return [
        (" · ".join(filter(None, (caption, frame_name(sample, i)))), draw(i)) for i in shown_frames(sample)
    ]


def hidden_tokens(
    sample: Sample, tokens: TokenMap, kept: Bool[np.ndarray, " token"], image: int = 0
) -> Image.Image:
    """The image with the footprint of every token that is not kept darkened; the rest stays as it is."""
    shown = picture(sample.replace(boxes=(), masks=()), image)
    seen = tokens.to_pixels(np.asarray(kept, float), image=image).astype(np.float32)
    light = np.asarray(Image.fromarray(seen).resize(shown.size, Image.Resampling.NEAREST))
    weight = np.where(np.isnan(light), 1.0, SHADE + (1 - SHADE) * np.nan_to_num(light))[..., None]
    return Image.fromarray((np.asarray(shown.convert("RGB"), float) * weight).round().astype(np.uint8))


def crop_frame(sample: Sample, edges: Sequence[int]) -> Image.Image:
    """The image with the frame of a crop; `edges`: left, top, right, bottom in pixels of the original."""
    base = sample.load()
    shown = picture(sample.replace(boxes=(), masks=()))
    scale = shown.width / base.width
    left, top, right, bottom = (round(edge * scale) for edge in edges)
    corners = (left, top, max(right - 1, left), max(bottom - 1, top))
    ImageDraw.Draw(shown).rectangle(corners, outline=CROP_COLOUR, width=3)
    return shown


def crop(sample: Sample, edges: Sequence[int]) -> Image.Image:
    """The crop alone, as large as the other pictures."""
    left, top, right, bottom = edges
    found = sample.load().crop((left, top, right, bottom))
    return found.convert("RGB").resize(bounded(found.size), Image.Resampling.LANCZOS)


def drawn(indices: Iterable[int], n: int, seed: int) -> list[int]:
    """Up to `n` of the indices, drawn with a seed, in ascending order."""
    every = np.array(sorted(indices), int)
    if len(every) <= n:
        return every.tolist()
    return np.sort(np.random.default_rng(seed).choice(every, n, replace=False)).tolist()


def sample_card(
    pictures: Sequence[Picture], question: Any, lines: Iterable[Any], *, score: str = "", columns: int = 0
) -> Markup:
    """The card of one sample.

    Args:
        pictures: Caption and picture, side by side.
        question: The question, under the pictures.
        lines: Lines below it; empty ones are left out.
        score: A number beside the question.
        columns: Pictures in a row, where there is room; all of them when left out.
    """
    said = Markup('<span class="score">{}</span>').format(score) if score else ""
    below = Markup("").join([Markup('<p class="soft">{}</p>').format(line) for line in lines if line])
    shown = _pictures(pictures, columns or len(pictures), question)
    return CARD.format(pictures=shown, score=said, question=question, lines=below)


def picture_grid(pictures: Sequence[Picture], columns: int) -> Markup:
    """Pictures with their captions, so many in a row where there is room; empty without pictures."""
    return _pictures(pictures, columns) if pictures else Markup("")


def _pictures(pictures: Iterable[Picture], columns: int, about: Any = "") -> Markup:
    """The pictures with their captions; what they are about is in the text that stands for a picture."""
    shown = [
        PICTURE.format(
            source=data_uri(one),
            text=f"{caption}: {about}" if about else caption,
            size=one,
            caption=caption,
        )
        for caption, one in pictures
    ]
    return Markup('<div class="pictures" style="--columns: {}">{}</div>').format(
        columns, Markup("").join(shown)
    )


def answers(row: Mapping[str, Any]) -> Markup:
    """The sample's own answer and the model's first token, coloured by whether it is right.

    Args:
        row: Has `answer`, `predicted` and `correct`; None where unknown.
    """
    known = isinstance(row["answer"], str)
    answer = join("answer ", bold(row["answer"])) if known else join("no answer given")
    if not isinstance(row["predicted"], str):
        return answer
    judged = known and row["correct"] is not None
    return join(answer, " · model ", bold(row["predicted"], kind=verdict(row["correct"]) if judged else ""))


def verdict(correct: Any) -> str:
    """The class of a right or a wrong answer."""
    return "right" if correct else "wrong"


def origin_line(sample: str, group: str) -> Markup:
    """The sample's id, and its group where that is another name."""
    return join(code(sample), "" if group == sample else f" · group {group}")


def ramp() -> Markup:
    """The colours of a map as a small bar, with "low" before it and "high" after it."""
    bar = span(kind="ramp", style=f"background:linear-gradient(90deg, {', '.join(MAP)})")
    return span("low ", bar, " high", kind="scale")


def show_maps(
    sample: Sample,
    maps: xr.DataArray,
    tokens: TokenMap,
    *,
    columns: int = 4,
    scores: dict[str, np.ndarray] | None = None,
    title: str = "",
) -> go.Figure:
    """A figure of the images with their boxes, and of every map laid over them.

    Each map has a colour scale of its own (see `interp.report.gallery.overlay`): compare where they are
    strong, not how strong they are. Of several images or a video, up to 8 are shown, those with boxes among them, each
    with its maps; a map has one scale over all of them.

    Args:
        sample: What was looked at.
        maps: ([layer or head,] token), one map or several, such as `maps[i]` of an indicator.
        tokens: Where the image's tokens lie: `maps.tokens[i]`.
        columns: Pictures beside each other.
        scores: Name → one number per map, shown above it.
        title: Over the figure.

    Raises:
        MapError: More than two dimensions, or a last dimension that is not the image's tokens.
    """
    if maps.ndim not in (1, 2) or maps.shape[-1] != tokens.n:
        raise MapError(
            f"maps are (token,) or (layer or head, token) with {tokens.n} tokens; got {dict(maps.sizes)}. "
            "Choose one layer first: maps.sel(layer=…)."
        )
    rows = maps.values[None] if maps.ndim == 1 else maps.values
    frames = shown_frames(sample, FIGURE_FRAMES)
    names = [
        " · ".join(filter(None, (name, frame_name(sample, i))))
        for i in frames
        for name in ("image", *_names(maps, scores or {}))
    ]
    n_rows = -(-len(names) // columns)
    spacing = {"horizontal_spacing": 0.015, "vertical_spacing": min(0.3 / n_rows, 0.1)}
    figure = panels(names, rows=n_rows, columns=columns, **spacing)
    pictures = [
        shown
        for i in frames
        for shown in (picture(sample, i), *(overlay(sample, tokens, row, i) for row in rows))
    ]
    for i, shown in enumerate(pictures):
        row, col = i // columns + 1, i % columns + 1
        figure.add_trace(go.Image(z=np.asarray(shown), hoverinfo="skip"), row=row, col=col)
    figure.update_xaxes(visible=False).update_yaxes(visible=False).update_annotations(font_size=12)
    height = (FIGURE_SIDE + FIGURE_TITLE) * n_rows + (60 if title else 30)
    margin = {"l": 20, "r": 20, "t": 80 if title else 40, "b": 10}
    figure.update_layout(template=TEMPLATE, title=title, margin=margin)
    figure.update_layout(width=FIGURE_SIDE * columns + 40, height=height)
    return figure


def _names(maps: xr.DataArray, scores: dict[str, np.ndarray]) -> list[str]:
    if maps.ndim == 1:
        labels = ["map"]
    else:
        dimension = str(maps.dims[0])
        labels = [f"{dimension} {value}" for value in maps[dimension].values]
    parts = [
        " · ".join(f"{name} {float(v[i]):.2f}" for name, v in scores.items()) for i in range(len(labels))
    ]
    return [f"{label}\n{part}" if part else label for label, part in zip(labels, parts, strict=True)]
