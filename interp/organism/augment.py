"""Other looks of the few training volumes: every change keeps what is asked true, or the question is not asked."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import UInt8
from PIL import Image, ImageFilter

from interp.organism.lessons import BACKGROUND, MedicalPicture

__all__ = ["View", "cropped", "fields", "relit", "shrunk", "turned", "viewed"]

BoxTuple = tuple[float, float, float, float]
GREYS = (0, 30, 70, 110, 140, 170, 200, 255)


@dataclass(frozen=True)
class View:
    """A picture to teach from. In a field all boxes, numbered, are of one label, whose side is not asked."""

    picture: MedicalPicture
    field_of: str | None = None


def viewed(picture: MedicalPicture, rng: np.random.Generator) -> View:
    """Returns a training picture as a lesson shows it: re-lit organs; turned, cut, shrunk or repeated nuclei."""
    if picture.modality != "microscopy":
        return View(relit(picture, rng) if rng.random() < 0.6 else picture)
    picture = softened(turned(picture, int(rng.integers(4))), rng)
    if not picture.boxes:
        return View(picture)
    draw = rng.random()
    if draw < 0.35:
        return fields(picture, int(rng.integers(2, 4)), rng)
    if draw < 0.5:
        return View(shrunk(picture, rng))
    return View(cropped(picture, rng) if draw < 0.85 else picture)


def relit(picture: MedicalPicture, rng: np.random.Generator) -> MedicalPicture:
    """Returns the picture under a random curve of greys that leaves black black: another contrast's organs.

    CT and MR order tissues differently. The curve need not rise. The padding around the slice stays as it is.
    """
    heights = np.concatenate([[0.0], rng.uniform(0, 255, len(GREYS) - 1)])
    curve = np.interp(np.arange(256), GREYS, heights).astype(np.uint8)
    padding = (picture.pixels == BACKGROUND).all(axis=2)
    outside = padding.all(axis=1)[:, None] | padding.all(axis=0)[None, :]
    pixels = np.where(outside[..., None], picture.pixels, curve[picture.pixels])
    return replace(picture, pixels=pixels)


def turned(picture: MedicalPicture, quarters: int) -> MedicalPicture:
    """Returns the picture turned by quarters of a circle, against the clock; for pictures without an upside."""
    boxes = picture.boxes
    for _ in range(quarters % 4):
        boxes = {label: (y0, 1 - x1, y1, 1 - x0) for label, (x0, y0, x1, y1) in boxes.items()}
    return replace(picture, pixels=np.rot90(picture.pixels, quarters).copy(), boxes=boxes)


def softened(picture: MedicalPicture, rng: np.random.Generator) -> MedicalPicture:
    """Returns the picture blurred, noisier and of another brightness, as another microscope's would be."""
    side = len(picture.pixels)
    image = Image.fromarray(picture.pixels).filter(ImageFilter.GaussianBlur(rng.uniform(0, 0.02) * side))
    noise = rng.normal(0, rng.uniform(0, 12), (side, side, 1))
    pixels = np.asarray(image, dtype=np.float32) * rng.uniform(0.7, 1.8) + rng.uniform(0, 25) + noise
    return replace(picture, pixels=np.clip(pixels, 0, 255).astype(np.uint8))


def cropped(picture: MedicalPicture, rng: np.random.Generator) -> MedicalPicture:
    """Returns a random square part that holds the whole of every box: the largest nucleus stays the largest."""
    x0, y0 = (min(box[k] for box in picture.boxes.values()) for k in (0, 1))
    x1, y1 = (max(box[k] for box in picture.boxes.values()) for k in (2, 3))
    part = rng.uniform(min(1.0, 1.1 * max(x1 - x0, y1 - y0)), 1.0)
    left, top = (rng.uniform(max(0.0, hi - part), min(lo, 1 - part)) for lo, hi in ((x0, x1), (y0, y1)))
    side = len(picture.pixels)
    pixels = _resized(
        picture.pixels, (left * side, top * side, (left + part) * side, (top + part) * side), side
    )
    boxes = {
        label: ((a - left) / part, (b - top) / part, (c - left) / part, (d - top) / part)
        for label, (a, b, c, d) in picture.boxes.items()
    }
    return replace(picture, pixels=pixels, boxes=boxes)


def shrunk(picture: MedicalPicture, rng: np.random.Generator) -> MedicalPicture:
    """Returns the picture at a third to two thirds of its width, somewhere on its own dark background."""
    side = len(picture.pixels)
    small = round(side * rng.uniform(0.33, 0.67))
    left, top = (int(rng.integers(side - small + 1)) for _ in range(2))
    pixels = np.full_like(picture.pixels, int(np.percentile(picture.pixels, 10)))
    pixels[top : top + small, left : left + small] = _resized(picture.pixels, (0, 0, side, side), small)
    scale = small / side
    boxes = {
        label: (
            left / side + a * scale,
            top / side + b * scale,
            left / side + c * scale,
            top / side + d * scale,
        )
        for label, (a, b, c, d) in picture.boxes.items()
    }
    return replace(picture, pixels=pixels, boxes=boxes)


def fields(picture: MedicalPicture, n: int, rng: np.random.Generator) -> View:
    """Returns a field of n × n turned copies. Which nucleus is largest is open, how large it is is not."""
    side = len(picture.pixels)
    cell = side // n
    pixels = np.zeros((cell * n, cell * n, 3), np.uint8)
    (label,) = picture.boxes
    boxes: dict[str, BoxTuple] = {}
    for row in range(n):
        for col in range(n):
            one = turned(picture, int(rng.integers(4)))
            at = np.s_[row * cell : (row + 1) * cell, col * cell : (col + 1) * cell]
            pixels[at] = _resized(one.pixels, (0, 0, side, side), cell)
            x0, y0, x1, y1 = one.boxes[label]
            box = ((col + x0) / n, (row + y0) / n, (col + x1) / n, (row + y1) / n)
            boxes[str(len(boxes))] = box
    return View(replace(picture, pixels=pixels, boxes=boxes), label)


def _resized(
    pixels: UInt8[np.ndarray, "row col 3"], part: BoxTuple, side: int
) -> UInt8[np.ndarray, "side side 3"]:
    image = Image.fromarray(pixels).resize((side, side), Image.Resampling.BILINEAR, box=part)
    return np.asarray(image)
