"""Pictures of samples: the image with its boxes, and a map laid over it."""

from __future__ import annotations

import base64
from io import BytesIO
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float, Int
from PIL import Image, ImageDraw
from plotly.colors import hex_to_rgb, sequential

if TYPE_CHECKING:
    from interp.sample import Box, Sample
    from interp.tokens import TokenMap

__all__ = ["COLOUR_MAP", "data_uri", "overlay", "picture", "strengths"]

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
