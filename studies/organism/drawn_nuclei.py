"""Draws fields of nuclei as in fluorescence microscopy; the box of the largest nucleus is known exactly.

All real training nuclei come from one volume, and an organism that learns "small" from one microscope does not apply it
to another. Here number, shape, texture, brightness, background and size vary between pictures.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Bool, Float
from scipy import ndimage

from studies.organism.lessons import MedicalPicture

__all__ = ["SMALL_SHARES", "drawn"]

SIDE = 192
SMALL_SHARES, LARGE_SHARES = (0.01, 0.045), (0.075, 0.3)
"""Ranges of the largest box's share of the picture; both ranges and all factors within them are equally frequent."""
CLEAR = 0.87
"""The largest allowed ratio of the next nucleus' width to the largest one's: 1.3 in area, as in the real tiles."""
TRIES = 12

Picture = Float[np.ndarray, "row col"]
Mask = Bool[np.ndarray, "row col"]


@dataclass(frozen=True)
class Look:
    """The properties that all nuclei of one picture share."""

    length: float
    """The longer half axis divided by the shorter one."""
    wobble: float
    grain: float
    contrast: float
    dimmest: float


def drawn(picture: MedicalPicture, rng: np.random.Generator) -> MedicalPicture:
    """Returns a field of drawn nuclei with the box of the largest one; the label and the absent names are kept."""
    look = Look(*(rng.uniform(*ends) for ends in ((1.0, 2.0), (0, 0.08), (0.03, 0.2), (0, 0.6), (0.35, 1.0))))
    share = np.exp(rng.uniform(*np.log((SMALL_SHARES, LARGE_SHARES)[rng.integers(2)])))
    radius = float(np.sqrt(share / 4)) * SIDE
    largest = _blob(rng, look, radius, rng.uniform(1.6 * radius, SIDE - 1.6 * radius, 2))
    masks = [largest, *_others(rng, look, radius, largest)]
    grain = ndimage.gaussian_filter(rng.normal(size=largest.shape), max(0.6, look.grain * radius))
    texture = 1 + look.contrast * np.clip(grain / grain.std(), -1, 2) / 2
    light = np.zeros_like(texture)
    for mask in masks:
        light = np.where(mask, texture * rng.uniform(look.dimmest, 1.0), light)
    grey = np.clip(_lit(light, radius, rng), 0, 255).astype(np.uint8)
    (label,) = picture.boxes
    rows, cols = np.nonzero(largest)
    box = (cols.min() / SIDE, rows.min() / SIDE, (cols.max() + 1) / SIDE, (rows.max() + 1) / SIDE)
    return replace(picture, pixels=np.repeat(grey[..., None], 3, axis=2), boxes={label: box})


def _blob(rng: np.random.Generator, look: Look, radius: float, middle: np.ndarray) -> Mask:
    """Returns a wobbly ellipse of about the area of a circle of that radius; parts outside are cut off."""
    y, x = np.indices((SIDE, SIDE)) + 0.5 - np.asarray(middle)[:, None, None]
    turn, long = rng.uniform(0, np.pi), np.sqrt(rng.uniform(1.0, look.length))
    along, across = x * np.cos(turn) + y * np.sin(turn), y * np.cos(turn) - x * np.sin(turn)
    angle, edge = np.arctan2(across, along), np.ones_like(x)
    for k in (2, 3, 4):
        edge += look.wobble * rng.normal() / k * np.cos(k * angle + rng.uniform(0, 2 * np.pi))
    return np.hypot(along / long, across * long) < radius * edge


def _others(rng: np.random.Generator, look: Look, radius: float, largest: Mask) -> list[Mask]:
    """Returns smaller nuclei that hardly overlap, until they cover a random part of the picture."""
    taken, kept = largest.copy(), []
    wanted, least, gap = rng.uniform(0, 0.4), rng.uniform(0.35, 0.8), rng.random() < 0.5
    widened = ndimage.binary_dilation(taken, iterations=3) if gap else taken
    misses, covered = 0, 0
    while misses < TRIES and covered < wanted * SIDE**2:
        mask = _blob(rng, look, radius * rng.uniform(least, CLEAR), rng.uniform(0, SIDE, 2))
        if (mask & widened).sum() > 0.03 * mask.sum() or 1.3 * mask.sum() > largest.sum():
            misses += 1
            continue
        mask &= ~taken
        taken |= mask
        widened = ndimage.binary_dilation(taken, iterations=3) if gap else taken
        covered += int(mask.sum())
        kept.append(mask)
    return kept


def _lit(light: Picture, radius: float, rng: np.random.Generator) -> Picture:
    """Returns grey values: blurred nuclei, their haze, an uneven background, and sometimes bright debris."""
    shown = ndimage.gaussian_filter(light, rng.uniform(0.3, 1.5))
    shown += rng.uniform(0, 0.4) * ndimage.gaussian_filter(light, rng.uniform(0.3, 1.0) * radius)
    slope = rng.normal(size=2) @ np.moveaxis(np.indices(light.shape), 0, 1) / SIDE
    grey = rng.uniform(60, 255) * shown + rng.uniform(0, 40) + 10 * slope
    if rng.random() < 0.25:
        debris = np.zeros_like(grey)
        for row, col in rng.integers(SIDE, size=(rng.integers(1, 4), 2)):
            debris[row, col] = 1.0
        spread = rng.uniform(0.1, 0.3) * radius
        grey += 1500 * spread**2 / 10 * ndimage.gaussian_filter(debris, spread)
    return grey
