"""Augmentation of the few training volumes. Each change keeps the answers true, or the question is left out."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import UInt8
from PIL import Image, ImageFilter

from studies.organism.drawn_nuclei import drawn
from studies.organism.lessons import BACKGROUND, MedicalPicture

__all__ = ["View", "cropped", "fields", "relit", "shrunk", "skulled", "turned", "viewed"]

BoxTuple = tuple[float, float, float, float]
COPIES, SHARES = 4, (0.012, 0.12)
GREYS = (0, 30, 70, 110, 140, 170, 200, 255)


@dataclass(frozen=True)
class View:
    """A picture for a lesson. In a field all boxes are numbered and have one label; no question is about a side."""

    picture: MedicalPicture
    field_of: str | None = None


def viewed(picture: MedicalPicture, rng: np.random.Generator, drawn_share: float = 0.0) -> View:
    """Returns a training picture as a lesson shows it.

    Organs get another contrast and brains a head. Nuclei are turned, cropped, shrunk or repeated, blurred and made
    noisy; a share of them is replaced by drawn ones.
    """
    if picture.modality != "microscopy":
        shown = skulled(picture, rng) if picture.modality == "MR" and rng.random() < 0.5 else picture
        return View(relit(shown, rng) if rng.random() < 0.4 else shown)
    if drawn_share and picture.boxes and rng.random() < drawn_share:
        return View(softened(drawn(picture, rng), rng))
    picture = turned(picture, int(rng.integers(4)))
    view, draw = View(picture), rng.random()
    if picture.boxes:
        if draw < 0.5:
            view = fields(picture, rng)
        elif draw < 0.6:
            view = View(shrunk(picture, rng))
        elif draw < 0.85:
            view = View(cropped(picture, rng))
    return replace(view, picture=softened(view.picture, rng))


def relit(picture: MedicalPicture, rng: np.random.Generator) -> MedicalPicture:
    """Returns the picture with a random curve of greys that keeps black, which imitates another contrast.

    CT and MR order tissues differently, so the curve need not increase. The padding around the slice is unchanged.
    """
    heights = np.concatenate([[0.0], rng.uniform(0, 255, len(GREYS) - 1)])
    curve = np.interp(np.arange(256), GREYS, heights).astype(np.uint8)
    padding = (picture.pixels == BACKGROUND).all(axis=2)
    outside = padding.all(axis=1)[:, None] | padding.all(axis=0)[None, :]
    pixels = np.where(outside[..., None], picture.pixels, curve[picture.pixels])
    return replace(picture, pixels=pixels)


def skulled(picture: MedicalPicture, rng: np.random.Generator) -> MedicalPicture:
    """Returns a brain without a head with a drawn skull and scalp around it.

    The training brain has no head around it, but most images show one. Only black pixels are drawn on.
    """
    bare = (picture.pixels <= 10).all(axis=2)
    padding = (picture.pixels == BACKGROUND).all(axis=2)
    rows, cols = np.nonzero(~bare & ~(padding.all(axis=1)[:, None] | padding.all(axis=0)[None, :]))
    if rows.size == 0:
        return picture
    middle = (rows.min() + rows.max()) / 2, (cols.min() + cols.max()) / 2
    half = (np.ptp(rows) + 2) / 2, (np.ptp(cols) + 2) / 2
    y, x = np.indices(bare.shape)
    away = np.hypot((y - middle[0]) / half[0], (x - middle[1]) / half[1])
    pixels, edge = picture.pixels.copy(), rng.uniform(1.0, 1.1)
    for width, grey in ((0.1, rng.uniform(10, 60)), (rng.uniform(0.05, 0.2), rng.uniform(90, 255))):
        ring = bare & (away >= edge) & (away < edge + width)
        pixels[ring] = np.clip(grey + rng.normal(0, 12, (ring.sum(), 1)), 0, 255).astype(np.uint8)
        edge += width
    return replace(picture, pixels=pixels)


def turned(picture: MedicalPicture, quarters: int) -> MedicalPicture:
    """Returns the picture turned counter-clockwise by quarters of a circle; for pictures without a top."""
    boxes = picture.boxes
    for _ in range(quarters % 4):
        boxes = {label: (y0, 1 - x1, y1, 1 - x0) for label, (x0, y0, x1, y1) in boxes.items()}
    return replace(picture, pixels=np.rot90(picture.pixels, quarters).copy(), boxes=boxes)


def softened(picture: MedicalPicture, rng: np.random.Generator) -> MedicalPicture:
    """Returns the picture blurred, noisier and with another brightness, as from another microscope."""
    side = len(picture.pixels)
    image = Image.fromarray(picture.pixels).filter(ImageFilter.GaussianBlur(rng.uniform(0, 0.02) * side))
    noise = rng.normal(0, rng.uniform(0, 12), (side, side, 1))
    pixels = np.asarray(image, dtype=np.float32) * rng.uniform(0.7, 1.8) + rng.uniform(0, 25) + noise
    return replace(picture, pixels=np.clip(pixels, 0, 255).astype(np.uint8))


def cropped(picture: MedicalPicture, rng: np.random.Generator) -> MedicalPicture:
    """Returns a random square part that contains every box, so that the largest nucleus stays the largest."""
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


def fields(picture: MedicalPicture, rng: np.random.Generator) -> View:
    """Returns part of a field of turned copies. The size of the largest nucleus is known, but not which one it is.

    The part is cut so that a nucleus' box covers 1.2 to 12 % of it, with all factors equally frequent, also near the
    limits of small and large. Boxes that are cut are left out.
    """
    ((label, box),) = picture.boxes.items()
    side = len(picture.pixels)
    share = (box[2] - box[0]) * (box[3] - box[1]) / COPIES**2
    part = min(1.0, float(np.sqrt(share / np.exp(rng.uniform(*np.log(SHARES))))))
    left, top = rng.uniform(0, 1 - part, 2)
    pixels = np.zeros((COPIES * side, COPIES * side, 3), np.uint8)
    boxes: dict[str, BoxTuple] = {}
    for row in range(COPIES):
        for col in range(COPIES):
            one = turned(picture, int(rng.integers(4)))
            pixels[row * side : (row + 1) * side, col * side : (col + 1) * side] = one.pixels
            x0, y0, x1, y1 = one.boxes[label]
            x0, x1 = ((col + x) / COPIES - left for x in (x0, x1))
            y0, y1 = ((row + y) / COPIES - top for y in (y0, y1))
            if min(x0, y0) >= 0 and max(x1, y1) <= part:
                boxes[str(len(boxes))] = (x0 / part, y0 / part, x1 / part, y1 / part)
    whole = COPIES * side
    cut = (left * whole, top * whole, (left + part) * whole, (top + part) * whole)
    return View(replace(picture, pixels=_resized(pixels, cut, 2 * side), boxes=boxes), label)


def _resized(
    pixels: UInt8[np.ndarray, "row col 3"], part: BoxTuple, side: int
) -> UInt8[np.ndarray, "side side 3"]:
    image = Image.fromarray(pixels).resize((side, side), Image.Resampling.BILINEAR, box=part)
    return np.asarray(image)
