"""Pictures of samples: the image with its boxes, a map laid over it, a card of one sample, a grid of maps."""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterable, Mapping, Sequence
from io import BytesIO
from typing import TYPE_CHECKING, Any

import numpy as np
import plotly.graph_objects as go
import xarray as xr
from jaxtyping import Bool, Float, Int
from markupsafe import Markup
from PIL import Image, ImageDraw
from plotly.colors import hex_to_rgb
from scipy import ndimage

from interp.errors import MapError
from interp.inputs.masks import union
from interp.report.figures import panels
from interp.report.html import bold, code, join, macros
from interp.report.theme import MAP, TEMPLATE

if TYPE_CHECKING:
    from interp.inputs.sample import Box, Sample
    from interp.inputs.tokens import TokenMap

__all__ = [
    "Picture", "answers", "crop", "crop_frame", "data_uri", "drawn", "frame_name", "hidden_tokens",
    "notebook_pictures", "origin_line", "overlay", "picture", "picture_grid", "ramp", "sample_card", "show_maps",
    "shown_frames", "strengths", "views",
]  # fmt: skip

Picture = tuple[str, Image.Image]
"""A caption and its picture."""
SIDE = 300
BOX_COLOUR = (34, 211, 238)
CROP_COLOUR = (250, 204, 21)
SHADE = 0.22
GAMMA = 0.7
CLIP = 99.5
FIGURE_SIDE, FIGURE_TITLE = 190, 42
CARD_FRAMES, FIGURE_FRAMES = 3, 8
"""Frames of a video on a card, and in `show_maps`; the captions say of how many."""


def picture(sample: Sample, image: int = 0, side: int = SIDE) -> Image.Image:
    """The sample's image with the boxes or the masks' outlines on it; its longer side has `side` pixels."""
    base = sample.load(image)
    return _with_truth(
        base.resize(_shown_size(base.size, side), Image.Resampling.LANCZOS), base.size, sample, image
    )


def overlay(
    sample: Sample, tokens: TokenMap, values: Float[np.ndarray, " token"], image: int = 0, side: int = SIDE
) -> Image.Image:
    """The image in grey with the map over it, and the boxes or the masks' outlines; its longer side has `side` pixels.

    Each token's footprint has one colour: nothing is smoothed. Strength is the value over the map's 99.5th
    percentile, to the power 0.7; parts that no token sees stay grey.
    """
    base = sample.load(image)
    size = _shown_size(base.size, side)
    grey = np.asarray(base.convert("L").resize(size, Image.Resampling.LANCZOS), float)[..., None].repeat(
        3, axis=-1
    )
    heat = tokens.to_pixels(strengths(values), image=image).astype(np.float32)
    shown = np.asarray(Image.fromarray(heat).resize(size, Image.Resampling.NEAREST))
    weight = np.where(np.isnan(shown), 0.0, 0.15 + 0.65 * shown)[..., None]
    colours = _look_up()[(np.nan_to_num(shown) * 255).astype(int)]
    mixed = (0.9 * grey * (1 - weight) + colours * weight).round().astype(np.uint8)
    return _with_truth(Image.fromarray(mixed), base.size, sample, image)


def shown_frames(sample: Sample, most: int = CARD_FRAMES) -> list[int]:
    """Which images of a sample to draw: of images the one with the first box; of a video up to `most` frames.

    Frames with boxes or masks come first; what room is left goes to evenly spaced ones. They are in the order of time.
    """
    marked = list(dict.fromkeys(one.image for one in sample.masks or sample.boxes))
    if sample.video is None:
        return marked[:1] or [0]
    n = len(sample.video)
    if len(marked) > most:
        marked = [marked[i] for i in np.linspace(0, len(marked) - 1, most).round().astype(int)]
    chosen = set(marked)
    for size in range(min(most, n) + 1):  # as many evenly spaced ones as fit beside those
        spaced = np.linspace(0, n - 1, size).round().astype(int).tolist()
        if len({*marked, *spaced}) <= most:
            chosen = {*marked, *spaced}
    return sorted(chosen)


def frame_name(sample: Sample, image: int) -> str:
    """What a caption says of a frame: "frame 3 (1.5 s) of 16"; empty for images."""
    if sample.video is None:
        return ""
    return f"frame {image} ({sample.video.times[image]:.4g} s) of {len(sample.video)}"


def views(sample: Sample, caption: str, draw: Callable[[int], Image.Image]) -> list[Picture]:
    """One picture of an image, or one of each shown frame of a video, with captions that name the frames.

    Args:
        sample: What is drawn.
        caption: What the pictures show.
        draw: Draws the image or frame with this number.
    """
    return [
        (" · ".join(filter(None, (caption, frame_name(sample, i)))), draw(i)) for i in shown_frames(sample)
    ]


def strengths(values: Float[np.ndarray, " token"]) -> Float[np.ndarray, " token"]:
    """Values between 0 and 1 for showing: positive part over its 99.5th percentile, to the power 0.7."""
    positive = np.maximum(np.asarray(values, float), 0.0)
    top = np.percentile(positive, CLIP) or positive.max(initial=0.0)
    return np.clip(positive / top, 0.0, 1.0) ** GAMMA if top > 0 else positive


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
    return found.convert("RGB").resize(_shown_size(found.size), Image.Resampling.LANCZOS)


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
    shown = _embedded(pictures)
    return macros().sample(shown, columns or len(shown), question, score, list(lines))


def picture_grid(pictures: Sequence[Picture], columns: int) -> Markup:
    """Pictures with their captions, so many in a row where there is room; empty without pictures."""
    return macros().pictures(_embedded(pictures), columns) if pictures else Markup("")


def notebook_pictures(
    title: Any, lines: Iterable[Any], pictures: Sequence[Picture], notes: Iterable[Any] = ()
) -> Markup:
    """Pictures between lines of text, for a notebook, where no style sheet is loaded.

    Args:
        title: In bold.
        lines: Above the pictures.
        pictures: Caption and picture, side by side where there is room.
        notes: Below them, in small type.
    """
    return macros().notebook(title, list(lines), _embedded(pictures), list(notes))


def _embedded(pictures: Iterable[Picture]) -> list[tuple[str, dict[str, Any]]]:
    """The captions, and each picture as the attributes of an element."""
    return [
        (caption, {"src": data_uri(one), "width": one.width, "height": one.height})
        for caption, one in pictures
    ]


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
    """The colours of a map from low to high, as a small bar."""
    return macros().ramp(MAP)


def show_maps(
    sample: Sample,
    maps: xr.DataArray,
    tokens: TokenMap,
    *,
    columns: int = 4,
    scores: dict[str, np.ndarray] | None = None,
    title: str = "",
) -> go.Figure:
    """A figure of the image with its boxes, and of every map laid over it.

    Each map has a colour scale of its own (see `interp.report.gallery.overlay`): compare where they are
    strong, not how strong they are. Of a video, up to 8 frames are shown, the frames with boxes among them, each with
    its maps; a map has one scale over all its frames.

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
    frames = [0] if sample.video is None else shown_frames(sample, FIGURE_FRAMES)
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


def data_uri(image: Image.Image, *, lossless: bool = False) -> str:
    """The image inside a URI, as a JPEG or losslessly as a PNG; the pixels alone, without any metadata."""
    kind: dict[str, Any] = (
        {"format": "PNG", "compress_level": 6} if lossless else {"format": "JPEG", "quality": 88}
    )
    buffer = BytesIO()
    Image.frombytes(image.mode, image.size, image.tobytes()).save(buffer, **kind)
    return f"data:image/{kind['format'].lower()};base64,{base64.b64encode(buffer.getvalue()).decode()}"


def _shown_size(size: tuple[int, int], side: int = SIDE) -> tuple[int, int]:
    scale = side / max(size)
    return max(1, round(size[0] * scale)), max(1, round(size[1] * scale))


def _with_truth(shown: Image.Image, original: tuple[int, int], sample: Sample, image: int) -> Image.Image:
    """The picture with the outlines of the sample's masks, or with its boxes where it has no mask."""
    masks = [mask for mask in sample.masks if mask.image == image]
    if not masks:
        return _with_boxes(shown, original, sample.boxes, image)
    inside = Image.fromarray(union(masks, original)).resize(shown.size, Image.Resampling.NEAREST)
    within = np.asarray(inside.convert("L")) > 0
    core = np.asarray(ndimage.binary_erosion(within, np.ones((3, 3)), iterations=2), bool)
    pixels = np.array(shown.convert("RGB"))
    pixels[within & ~core] = BOX_COLOUR
    return Image.fromarray(pixels)


def _with_boxes(
    shown: Image.Image, original: tuple[int, int], boxes: tuple[Box, ...], image: int
) -> Image.Image:
    draw = ImageDraw.Draw(shown)
    x, y = shown.width / original[0], shown.height / original[1]
    for box in (box for box in boxes if box.image == image):
        left, top = round(box.x0 * x), round(box.y0 * y)
        right, bottom = max(round(box.x1 * x) - 1, left), max(round(box.y1 * y) - 1, top)
        draw.rectangle((left - 1, top - 1, right + 1, bottom + 1), outline=(0, 0, 0), width=1)
        draw.rectangle((left, top, right, bottom), outline=BOX_COLOUR, width=2)
    return shown


def _look_up() -> Int[np.ndarray, "level rgb"]:
    """256 colours of the map."""
    stops = np.array([hex_to_rgb(colour) for colour in MAP], float)
    places = np.linspace(0, 1, len(stops))
    levels = np.linspace(0, 1, 256)
    return (
        np.stack([np.interp(levels, places, stops[:, channel]) for channel in range(3)], axis=-1)
        .round()
        .astype(int)
    )


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
