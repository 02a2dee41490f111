"""Images drawn with what lies over them: boxes, outlines of masks, heat. Plain pixels in, a PIL image out."""

from __future__ import annotations

import base64
from collections.abc import Iterable, Sequence
from io import BytesIO
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int
from PIL import Image, ImageColor, ImageDraw

from interp.inputs.boxes import Box
from interp.inputs.masks import Mask, union

__all__ = [
    "BOX_COLOUR", "MAP", "SIDE", "bounded", "data_uri", "grid_lines", "heated", "marked_image", "overlaid",
    "strengths", "tinted", "with_truth",
]  # fmt: skip

SIDE = 300
BOX_COLOUR = (34, 211, 238)
MAP = (
    "#000004", "#1b0c41", "#4a0c6b", "#781c6d", "#a52c60", "#cf4446", "#ed6925", "#fb9b06", "#f7d13d", "#fcffa4",
)  # fmt: skip
"""Colours of a map laid over an image, low to high: Inferno, which grows lighter all the way."""
GAMMA = 0.7
CLIP = 99.5
PAPER = (245, 245, 245)


def bounded(size: tuple[int, int], side: int = SIDE) -> tuple[int, int]:
    """(width, height) scaled so that the longer side has `side` pixels."""
    scale = side / max(size)
    return max(1, round(size[0] * scale)), max(1, round(size[1] * scale))


def marked_image(
    base: Image.Image, boxes: Iterable[Box], masks: Sequence[Mask], side: int = SIDE
) -> Image.Image:
    """The image with its boxes or the outlines of its masks; its longer side has `side` pixels."""
    shown = base.resize(bounded(base.size, side), Image.Resampling.LANCZOS)
    return with_truth(shown, base.size, boxes, masks)


def with_truth(
    shown: Image.Image, original: tuple[int, int], boxes: Iterable[Box], masks: Sequence[Mask]
) -> Image.Image:
    """The picture with the outlines of the masks, or with the boxes where there is no mask.

    Args:
        shown: The image at any scale; it may be changed.
        original: Its (width, height) before it was scaled.
        boxes: The boxes of this image.
        masks: The masks of this image.
    """
    if not masks:
        return _with_boxes(shown, original, boxes)
    from scipy import ndimage

    inside = Image.fromarray(union(masks, original)).resize(shown.size, Image.Resampling.NEAREST)
    within = np.asarray(inside.convert("L")) > 0
    core = np.asarray(ndimage.binary_erosion(within, np.ones((3, 3)), iterations=2), bool)
    return _painted(shown, within & ~core)


def overlaid(base: Image.Image, heat: Float[np.ndarray, "row col"], size: tuple[int, int]) -> Image.Image:
    """The image in grey with heat between 0 and 1 over it; where the heat is NaN it stays grey.

    Args:
        base: The original image.
        heat: One value per pixel of the original image.
        size: (width, height) of the picture.
    """
    grey = np.asarray(base.convert("L").resize(size, Image.Resampling.LANCZOS), float)[..., None]
    return _mixed(0.9 * grey.repeat(3, axis=-1), heat, size)


def tinted(
    base: Image.Image, parts: Sequence[tuple[Bool[np.ndarray, "row col"], str]], side: int = SIDE
) -> Image.Image:
    """The image in grey with masks in colours over it; its longer side has `side` pixels.

    Args:
        base: The original image.
        parts: The pixels inside of each mask, at the original size, and its colour such as "#0072B2"; a later one
            lies over an earlier one.
        side: Pixels of the longer side.
    """
    size = bounded(base.size, side)
    shown = np.asarray(base.convert("L").resize(size, Image.Resampling.LANCZOS), float)[..., None]
    shown = 0.9 * shown.repeat(3, axis=-1)
    for inside, colour in parts:
        scaled = Image.fromarray(inside).convert("L").resize(size, Image.Resampling.NEAREST)
        within = np.asarray(scaled)[..., None] > 0
        shown = np.where(within, 0.45 * shown + 0.55 * np.array(ImageColor.getrgb(colour), float), shown)
    return Image.fromarray(shown.round().astype(np.uint8))


def heated(heat: Float[np.ndarray, "row col"], size: tuple[int, int]) -> Image.Image:
    """Heat between 0 and 1 on light paper, for a map whose image is not at hand."""
    return _mixed(np.full((size[1], size[0], 3), PAPER, float), heat, size)


def strengths(values: Float[np.ndarray, " token"]) -> Float[np.ndarray, " token"]:
    """Values between 0 and 1 for showing: positive part over its 99.5th percentile, to the power 0.7."""
    positive = np.maximum(np.asarray(values, float), 0.0)
    top = (np.percentile(positive, CLIP) or positive.max()) if positive.size else 0.0
    return np.clip(positive / top, 0.0, 1.0) ** GAMMA if top > 0 else positive


def grid_lines(footprints: Float[np.ndarray, "token 4"], size: tuple[int, int], side: int) -> Image.Image:
    """The outlines of tokens' footprints on light paper; `size` is the image's (width, height) in pixels."""
    shown = Image.new("RGB", bounded(size, side), PAPER)
    draw, x, y = ImageDraw.Draw(shown), shown.width / size[0], shown.height / size[1]
    for x0, y0, x1, y1 in footprints[~np.isnan(footprints).any(axis=1)]:
        corners = (round(x0 * x), round(y0 * y), max(round(x1 * x) - 1, round(x0 * x)))
        draw.rectangle((*corners, max(round(y1 * y) - 1, round(y0 * y))), outline=(150, 160, 175))
    return shown


def data_uri(image: Image.Image, kind: str = "webp") -> str:
    """The image inside a URI, "webp" or "jpeg", or losslessly as "png"; the pixels alone, without any metadata."""
    options: dict[str, Any] = {
        "webp": {"quality": 75, "method": 4},
        "jpeg": {"quality": 88},
        "png": {"compress_level": 6},
    }[kind]
    buffer = BytesIO()
    Image.frombytes(image.mode, image.size, image.tobytes()).save(buffer, format=kind.upper(), **options)
    return f"data:image/{kind};base64,{base64.b64encode(buffer.getvalue()).decode()}"


def _mixed(
    paper: Float[np.ndarray, "height width 3"], heat: Float[np.ndarray, "row col"], size: tuple[int, int]
) -> Image.Image:
    """Heat over paper: the stronger, the less of the paper is seen."""
    scaled = Image.fromarray(heat.astype(np.float32)).resize(size, Image.Resampling.NEAREST)
    shown = np.asarray(scaled)
    weight = np.where(np.isnan(shown), 0.0, 0.15 + 0.65 * shown)[..., None]
    colours = _look_up()[(np.nan_to_num(shown) * 255).astype(int)]
    return Image.fromarray((paper * (1 - weight) + colours * weight).round().astype(np.uint8))


def _painted(shown: Image.Image, where: Bool[np.ndarray, "row col"]) -> Image.Image:
    pixels = np.array(shown.convert("RGB"))
    pixels[where] = BOX_COLOUR
    return Image.fromarray(pixels)


def _with_boxes(shown: Image.Image, original: tuple[int, int], boxes: Iterable[Box]) -> Image.Image:
    draw = ImageDraw.Draw(shown)
    x, y = shown.width / original[0], shown.height / original[1]
    for box in boxes:
        left, top = round(box.x0 * x), round(box.y0 * y)
        right, bottom = max(round(box.x1 * x) - 1, left), max(round(box.y1 * y) - 1, top)
        draw.rectangle((left - 1, top - 1, right + 1, bottom + 1), outline=(0, 0, 0), width=1)
        draw.rectangle((left, top, right, bottom), outline=BOX_COLOUR, width=2)
    return shown


def _look_up() -> Int[np.ndarray, "level rgb"]:
    """256 colours of the map."""
    stops = np.array([ImageColor.getrgb(colour) for colour in MAP], float)
    places = np.linspace(0, 1, len(stops))
    levels = np.linspace(0, 1, 256)
    return (
        np.stack([np.interp(levels, places, stops[:, channel]) for channel in range(3)], axis=-1)
        .round()
        .astype(int)
    )
