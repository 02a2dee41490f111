"""Slices, masks and their boxes: windows, square pixels, connected pieces, limits of area. All functions are pure."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool, Integer, Shaped, UInt8
from PIL import Image, ImageOps

from interp.data.volumes import Volume, display
from interp.errors import DataError
from interp.inputs.masks import Mask
from interp.inputs.sample import Box, Sample

__all__ = [
    "Finding",
    "Slice",
    "box_of",
    "cut",
    "find",
    "foreground",
    "large_pieces",
    "largest_component",
    "mirror",
    "piece_boxes",
    "scale_box",
    "square_pixels",
    "square_size",
    "window",
]

BoxTuple = tuple[float, float, float, float]

SOFT_TISSUE = (-160.0, 240.0)
LUNG = (-1350.0, 150.0)
MR_PERCENTILES = (0.5, 99.5)
SHARE = 0.8
AREA = (0.005, 0.6)


@dataclass(frozen=True, eq=False)
class Slice:
    """A picture and its labels on the same grid. `names` gives the meaning of each label value."""

    picture: UInt8[np.ndarray, "row col"]
    labels: Integer[np.ndarray, "row col"]
    names: Mapping[int, str]
    spacing: tuple[float, float]


@dataclass(frozen=True)
class Finding:
    """One labelled structure in one slice: its box in pixels of the slice and the box's share of the area."""

    label: str
    box: BoxTuple
    fraction: float


def window(values: Shaped[np.ndarray, "*shape"], low: float, high: float) -> UInt8[np.ndarray, "*shape"]:
    """Returns values as 8-bit grey: `low` and below is 0, `high` and above 255, linear between."""
    if not high > low:
        raise DataError(f"a window needs low < high, got {low} and {high}")
    scaled = (np.asarray(values, dtype=float) - low) / (high - low)
    return np.round(np.clip(scaled, 0, 1) * 255).astype(np.uint8)


def square_pixels(
    picture: UInt8[np.ndarray, "row col"], spacing: tuple[float, float], longest: int | None = None
) -> Image.Image:
    """Returns the slice resized so that its pixels are square, at the finer of its two spacings.

    `longest` limits the longer side in pixels; it never enlarges the picture.
    """
    target = square_size(picture.shape, spacing, longest)
    image = Image.fromarray(picture)
    return image if image.size == target else image.resize(target, Image.Resampling.BICUBIC)


def square_size(
    shape: tuple[int, ...], spacing: tuple[float, float], longest: int | None = None
) -> tuple[int, int]:
    """Returns (width, height) of the picture that `square_pixels` makes of a slice of (rows, columns)."""
    rows, columns = shape
    finest = min(spacing)
    height, width = rows * spacing[0] / finest, columns * spacing[1] / finest
    shrink = min(1.0, longest / max(height, width)) if longest else 1.0
    return max(1, round(width * shrink)), max(1, round(height * shrink))


def largest_component(mask: Bool[np.ndarray, "row col"], share: float = SHARE) -> np.ndarray | None:
    """Returns the mask's largest 4-connected piece, or None when it holds less than `share` of the area."""
    pieces, n = _pieces(mask)
    if n == 0:
        return None
    areas = np.bincount(pieces.ravel())[1:]
    best = int(areas.argmax())
    return pieces == best + 1 if areas[best] >= share * areas.sum() else None


def box_of(mask: Bool[np.ndarray, "row col"]) -> BoxTuple:
    """Returns the smallest half-open xyxy box holding the mask.

    Raises:
        DataError: the mask is empty.
    """
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    if rows.size == 0:
        raise DataError(
            f"the mask of {mask.shape[1]}×{mask.shape[0]} pixels marks none, so it has no box. Leave it out."
        )
    return float(columns[0]), float(rows[0]), float(columns[-1] + 1), float(rows[-1] + 1)


def piece_boxes(mask: Bool[np.ndarray, "row col"], least: int = 1) -> tuple[list[BoxTuple], int]:
    """Returns the half-open xyxy box of each 4-connected piece of a mask, and how many pieces were too small.

    Args:
        mask: The mask.
        least: The least number of pixels of a piece; smaller pieces are only counted.
    """
    from scipy import ndimage

    pieces, n = _pieces(mask)
    areas = np.bincount(pieces.ravel(), minlength=n + 1)[1:]
    found = ndimage.find_objects(pieces)
    boxes = [
        (float(cols.start), float(rows.start), float(cols.stop), float(rows.stop))
        for (rows, cols), area in zip(found, areas, strict=True)
        if area >= least
    ]
    return boxes, n - len(boxes)


def large_pieces(mask: Bool[np.ndarray, "row col"], least: int = 1) -> Bool[np.ndarray, "row col"]:
    """Returns the mask without its 4-connected pieces of fewer than `least` pixels."""
    pieces, n = _pieces(mask)
    areas = np.bincount(pieces.ravel(), minlength=n + 1)
    areas[0] = 0
    return (areas >= max(least, 1))[pieces]


def scale_box(box: BoxTuple, old: tuple[int, int], new: tuple[int, int]) -> BoxTuple:
    """Returns the box of a picture resized from `old` to `new`, both (width, height)."""
    sx, sy = new[0] / old[0], new[1] / old[1]
    return box[0] * sx, box[1] * sy, box[2] * sx, box[3] * sy


def foreground(
    picture: UInt8[np.ndarray, "row col"], threshold: int, margin: float = 0.02
) -> tuple[slice, slice]:
    """Returns the rows and columns that hold the largest piece brighter than `threshold`, with a margin.

    This cuts away the air around a body. `margin` is a share of the piece's size. If nothing is that bright, the whole
    slice is returned.
    """
    pieces, n = _pieces(picture > threshold)
    if n == 0:
        return slice(0, picture.shape[0]), slice(0, picture.shape[1])
    x0, y0, x1, y1 = box_of(pieces == np.bincount(pieces.ravel())[1:].argmax() + 1)
    dx, dy = margin * (x1 - x0), margin * (y1 - y0)
    rows = slice(max(0, int(y0 - dy)), min(picture.shape[0], int(np.ceil(y1 + dy))))
    columns = slice(max(0, int(x0 - dx)), min(picture.shape[1], int(np.ceil(x1 + dx))))
    return rows, columns


def cut(
    image: Volume,
    labels: Volume,
    names: Mapping[int, str],
    plane: str,
    index: int,
    grey: tuple[float, float],
    *,
    crop: bool = True,
) -> Slice:
    """Returns one slice of a volume as it is displayed, windowed and (with `crop`) cut to the body."""
    raw, spacing = display(image, plane, index)
    marks, _ = display(labels, plane, index)
    if raw.shape != marks.shape:
        raise DataError(
            f"the image slice is {raw.shape}, its labels {marks.shape}; use resample_nearest first"
        )
    picture = window(raw, *grey)
    at = foreground(picture, 25) if crop else np.s_[:, :]
    return Slice(picture[at], marks[at], names, spacing)


def find(
    labels: Integer[np.ndarray, "row col"],
    names: Mapping[int, str],
    dropped: Counter[str],
    *,
    area: tuple[float, float] = AREA,
    share: float = SHARE,
) -> list[Finding]:
    """Returns one finding per named structure in a slice of labels; several ids may share a name.

    A structure is dropped and counted in `dropped` if no piece holds `share` of it ("components"), or if its box
    covers less than `area[0]` ("small") or more than `area[1]` ("large") of the slice.
    """
    present = {int(value) for value in np.unique(labels)}
    found = []
    for name in sorted({name for value, name in names.items() if value in present}):
        mask = np.isin(labels, [value for value, other in names.items() if other == name])
        piece = largest_component(mask, share)
        if piece is None:
            dropped["components"] += 1
            continue
        box = box_of(piece)
        fraction = (box[2] - box[0]) * (box[3] - box[1]) / labels.size
        if not area[0] <= fraction <= area[1]:
            dropped["small" if fraction < area[0] else "large"] += 1
            continue
        found.append(Finding(name, box, fraction))
    return found


def mirror(sample: Sample) -> Sample:
    """Returns the mirrored sample: image and boxes are flipped, "left" and "right" are swapped in the text.

    In radiological display the liver is always on the left, so a model can answer from the label alone. Only a model
    that looks at the picture answers correctly for both a slice and its mirror image.
    """
    width, _ = sample.sizes[0]
    if len(sample.images) != 1:
        raise DataError(
            f"mirror takes a sample with one image; got one with {len(sample.images)}. Make one sample per image."
        )
    boxes = [Box(width - box.x1, box.y0, width - box.x0, box.y1, pixels=box.pixels) for box in sample.boxes]
    return sample.replace(
        image=ImageOps.mirror(sample.load()),
        question=_swap(sample.question),
        boxes=boxes,
        masks=[Mask(mask.inside[:, ::-1], mask.image) for mask in sample.masks],
        answer=None if sample.answer is None else _swap(sample.answer),
        options=None if sample.options is None else [_swap(option) for option in sample.options],
        meta={**sample.meta, "mirrored": not sample.meta.get("mirrored", False)},
        id=f"{sample.id}:mirrored",
    )


def _swap(words: str) -> str:
    other = {"left": "right", "Left": "Right", "LEFT": "RIGHT"}
    other |= {right: left for left, right in other.items()}
    return re.sub(rf"\b({'|'.join(other)})\b", lambda match: other[match[0]], words)


def _pieces(mask: Bool[np.ndarray, "*shape"]) -> tuple[Integer[np.ndarray, "*shape"], int]:
    from scipy import ndimage  # half a second, for readers that need no masks

    pieces: Any = np.zeros(mask.shape, dtype=np.int32)
    return pieces, int(ndimage.label(mask, output=pieces))  # pyright: ignore[reportArgumentType]
