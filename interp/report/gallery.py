"""One sample as a card: its pictures side by side, the question, the answers, a score."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from io import BytesIO
from typing import TYPE_CHECKING, Any

import numpy as np
import plotly.graph_objects as go
import xarray as xr
from jaxtyping import Float, Int
from PIL import Image, ImageDraw
from plotly.colors import hex_to_rgb, sequential
from plotly.subplots import make_subplots

from interp.errors import MapError
from interp.report.html import card, safe, tag
from interp.study.dataframes import records, where

if TYPE_CHECKING:
    from interp.inputs.sample import Box, Sample
    from interp.inputs.tokens import TokenMap
    from interp.study.layer_sweep.result import Cell

__all__ = ["COLOUR_MAP", "RAMP", "data_uri", "overlay", "picture", "portrait", "show_maps", "strengths"]

SIDE = 300
BOX_COLOUR = (34, 211, 238)
GAMMA = 0.7
CLIP = 99.5
COLOUR_MAP = sequential.Inferno


def picture(sample: Sample, image: int = 0) -> Image.Image:
    """The sample's image, at most `SIDE` pixels a side, with the boxes on it."""
    base = sample.load(image)
    return _with_boxes(
        base.resize(_shown_size(base.size), Image.Resampling.LANCZOS), base.size, sample.boxes, image
    )


def overlay(
    sample: Sample, tokens: TokenMap, values: Float[np.ndarray, " token"], image: int = 0
) -> Image.Image:
    """The image in grey with the map over it, and the boxes.

    Each token's footprint has one colour: nothing is smoothed. Strength is the value over the map's 99.5th
    percentile, to the power 0.7; parts that no token sees stay grey.
    """
    base = sample.load(image)
    size = _shown_size(base.size)
    grey = np.asarray(base.convert("L").resize(size, Image.Resampling.LANCZOS), float)[..., None].repeat(
        3, axis=-1
    )
    heat = tokens.to_pixels(strengths(values), image=image).astype(np.float32)
    shown = np.asarray(Image.fromarray(heat).resize(size, Image.Resampling.NEAREST))
    weight = np.where(np.isnan(shown), 0.0, 0.15 + 0.65 * shown)[..., None]
    colours = _look_up()[(np.nan_to_num(shown) * 255).astype(int)]
    mixed = (0.9 * grey * (1 - weight) + colours * weight).round().astype(np.uint8)
    return _with_boxes(Image.fromarray(mixed), base.size, sample.boxes, image)


def strengths(values: Float[np.ndarray, " token"]) -> Float[np.ndarray, " token"]:
    """Values between 0 and 1 for showing: positive part over its 99.5th percentile, to the power 0.7."""
    positive = np.maximum(np.asarray(values, float), 0.0)
    top = np.percentile(positive, CLIP) or positive.max(initial=0.0)
    return np.clip(positive / top, 0.0, 1.0) ** GAMMA if top > 0 else positive


def data_uri(image: Image.Image) -> str:
    """The image as a JPEG inside a URI."""
    buffer = BytesIO()
    image.save(buffer, format="JPEG", quality=88)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode()


def _shown_size(size: tuple[int, int]) -> tuple[int, int]:
    scale = SIDE / max(size)
    return max(1, round(size[0] * scale)), max(1, round(size[1] * scale))


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
    stops = np.array([hex_to_rgb(colour) for colour in COLOUR_MAP], float)
    places = np.linspace(0, 1, len(stops))
    levels = np.linspace(0, 1, 256)
    return (
        np.stack([np.interp(levels, places, stops[:, channel]) for channel in range(3)], axis=-1)
        .round()
        .astype(int)
    )


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


SIDE_look, TITLE = 190, 42


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
    strong, not how strong they are.

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
    names = _names(maps, scores or {})
    n_rows = -(-(len(rows) + 1) // columns)
    figure = make_subplots(
        rows=n_rows, cols=columns, subplot_titles=["image", *names],
        horizontal_spacing=0.015, vertical_spacing=min(0.3 / n_rows, 0.1),
    )  # fmt: skip
    pictures = [picture(sample), *(overlay(sample, tokens, row) for row in rows)]
    for i, shown in enumerate(pictures):
        row, col = i // columns + 1, i % columns + 1
        figure.add_trace(go.Image(z=np.asarray(shown), hoverinfo="skip"), row=row, col=col)
    figure.update_xaxes(visible=False).update_yaxes(visible=False).update_annotations(font_size=12)
    figure.update_layout(
        title=title, width=SIDE_look * columns + 40, height=(SIDE_look + TITLE) * n_rows + (60 if title else 30),
        margin={"l": 20, "r": 20, "t": 80 if title else 40, "b": 10},
    )  # fmt: skip
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
    return [f"{label}<br>{part}" if part else label for label, part in zip(labels, parts, strict=True)]
