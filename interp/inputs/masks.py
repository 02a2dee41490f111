"""Masks: which pixels of an image belong to the finding, from a file, a PIL image or an array."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Mapping
from typing import Any, TypeAlias

import numpy as np
from jaxtyping import Bool, Float
from PIL import Image, ImageOps

from interp.errors import BoxError, ImageError
from interp.inputs.boxes import Box
from interp.inputs.images import LazyImage, grey_values, image_size, normalise, readable_file
from interp.inputs.text import brief

__all__ = ["Mask", "MaskLike", "as_masks", "covered_by", "filled", "union"]

Size = tuple[int, int]  # (width, height)


class Mask:
    """Which pixels of an image belong to the finding. Immutable; a file is read when it is needed.

    Args:
        values: Path of a grey or palette image, a PIL image, a `LazyImage` in grey that is read at each use, or an
            (H, W) array of bool or of whole numbers. It has the size of its image as displayed.
        image: Index of the image in its sample (0-based).
        label: The value inside, for a map of labels. None: every pixel that is not 0 is inside. A palette image has
            the indices of its palette as values, not the colours.

    Raises:
        BoxError: `image` or `label` is no whole number, or the array is no mask.
        ImageError: A path that no file can have, or an image in colours.

    Example:
        >>> inside = np.zeros((4, 6), bool)
        >>> inside[1:3, 2:5] = True
        >>> Mask(inside).box.as_tuple()
        (2.0, 1.0, 5.0, 3.0)
    """

    __slots__ = ("_cache", "image", "label", "values")

    values: Any
    image: int
    label: int | None

    def __init__(self, values: Any, image: int = 0, label: int | None = None) -> None:
        whole = isinstance(image, int | np.integer) and not isinstance(image, bool)
        if not whole or image < 0:
            raise BoxError(
                f"a mask's image is an index 0, 1, … into the sample's images; got {brief(image)}."
            )
        if label is not None and (not isinstance(label, int | np.integer) or isinstance(label, bool)):
            raise BoxError(
                f"a mask's label is a whole number, or None for every pixel but 0; got {brief(label)}."
            )
        put = object.__setattr__
        put(self, "values", _kept(values))
        put(self, "image", int(image))
        put(self, "label", None if label is None else int(label))
        put(self, "_cache", {})

    @property
    def in_memory(self) -> bool:
        """Whether the mask is in memory rather than in a file."""
        return not isinstance(self.values, str | os.PathLike)

    @property
    def size(self) -> Size:
        """(width, height); reads only the header of a file.

        Raises:
            ImageError: A file that is missing or not an image.
        """
        if isinstance(self.values, np.ndarray):
            return self.values.shape[1], self.values.shape[0]
        return image_size(self.values)

    @property
    def inside(self) -> Bool[np.ndarray, "row col"]:
        """Which pixels are inside; a file is read at each call.

        Raises:
            ImageError: A file that is missing, not an image, or in colours.
        """
        values = self.values if isinstance(self.values, np.ndarray) else grey_values(self.values)
        return values != 0 if self.label is None else values == self.label

    @property
    def box(self) -> Box:
        """The smallest half-open box that holds every pixel inside. It is computed once.

        Raises:
            BoxError: No pixel is inside.
            ImageError: As `inside`.
        """
        if "box" not in self._cache:
            self._cache["box"] = self._box()
        return self._cache["box"]

    @property
    def fingerprint(self) -> str:
        """Hex SHA-256 of the file's bytes or the array's pixels inside, with the label and the image's index.

        Raises:
            ImageError: A file that cannot be read.
        """
        if "fingerprint" not in self._cache:
            self._cache["fingerprint"] = self._digest()
        return self._cache["fingerprint"]

    def check(self, size: Size) -> None:
        """Raises unless the mask has the size (width, height) of its image and a pixel inside.

        Raises:
            BoxError: Another size, or no pixel inside.
            ImageError: As `inside`.
        """
        pair = tuple(size) if isinstance(size, tuple | list) else ()
        if len(pair) != 2 or not all(isinstance(side, int | np.integer) for side in pair):
            raise BoxError(f"an image's size is (width, height) in pixels; got {brief(size)}.")
        if self.size != pair:
            raise BoxError(
                f"a mask has the size of its image; the mask is {self.size[0]}×{self.size[1]}, image {self.image} is "
                f"{size[0]}×{size[1]} (width×height). Resize the mask with nearest neighbours: "
                "mask.resize(image.size, PIL.Image.Resampling.NEAREST)."
            )
        _ = self.box

    def to_dict(self) -> dict[str, Any]:
        """Returns the mask as JSON values, which `as_masks` reads.

        Raises:
            BoxError: The mask is in memory only.
        """
        if self.in_memory:
            raise BoxError(
                "a mask is in memory and has no path to write down. Save it as a PNG file and pass its path."
            )
        return {"path": os.fspath(self.values), "image": self.image, "label": self.label}

    def _box(self) -> Box:
        inside = self.inside
        rows, columns = np.flatnonzero(inside.any(axis=1)), np.flatnonzero(inside.any(axis=0))
        if not len(rows):
            wanted = "that is not 0" if self.label is None else f"of the value {self.label}"
            raise BoxError(f"{self._name()} has no pixel {wanted}, so nothing is inside. Leave the mask out.")
        edges = (columns[0], rows[0], columns[-1] + 1, rows[-1] + 1)
        return Box(*(float(edge) for edge in edges), image=self.image, pixels=True)

    def _name(self) -> str:
        return "the mask" if self.in_memory else f"the mask {brief(os.fspath(self.values))}"

    def _digest(self) -> str:
        words = f"{self.label} {self.image} ".encode()
        if not self.in_memory:
            with readable_file(self.values) as file:
                return hashlib.sha256(words + file.read()).hexdigest()
        inside = self.inside
        return hashlib.sha256(words + f"{inside.shape}".encode() + np.packbits(inside).tobytes()).hexdigest()

    def __setattr__(self, name: str, value: Any) -> None:
        raise AttributeError("a Mask is immutable; make a new one: interp.Mask(values, image, label).")

    def __delattr__(self, name: str) -> None:
        raise AttributeError("a Mask is immutable; make a new one: interp.Mask(values, image, label).")

    def __eq__(self, other: object) -> bool:
        return self.fingerprint == other.fingerprint if isinstance(other, Mask) else NotImplemented

    def __hash__(self) -> int:
        return hash(self.fingerprint)

    def __reduce__(self) -> tuple[Any, ...]:
        return _rebuild, (self.values, self.image, self.label, dict(self._cache))

    def __repr__(self) -> str:
        shown = "array" if self.in_memory else repr(os.fspath(self.values))
        label = "" if self.label is None else f", label={self.label}"
        return f"Mask({shown}, image={self.image}{label})"


MaskLike: TypeAlias = Mask | str | os.PathLike[str] | Image.Image | LazyImage | np.ndarray | Mapping[str, Any]


def as_masks(masks: Iterable[Any]) -> tuple[Mask, ...]:
    """Returns the masks as `Mask` values; accepts paths, PIL images, arrays and what `Mask.to_dict` wrote.

    Raises:
        BoxError: A single mask where a list is expected, or something that is no mask.
        ImageError: A path that no file can have, or an image in colours.
    """
    if (
        isinstance(masks, Mask | str | os.PathLike | Image.Image | LazyImage)
        or getattr(masks, "ndim", 3) == 2
    ):
        raise BoxError("expected a list of masks, got one mask; write masks=[mask].")
    if isinstance(masks, bytes | Mapping) or not isinstance(masks, Iterable):
        raise BoxError(f"expected a list of masks, got {brief(masks)}.")
    return tuple(_as_mask(mask) for mask in masks)


def _as_mask(mask: Any) -> Mask:
    if isinstance(mask, Mask):
        return mask
    if isinstance(mask, Mapping):
        unknown = set(mask) - {"path", "image", "label"}
        if unknown or "path" not in mask:
            raise BoxError(f"a mask is written as path, image and label; got {brief(dict(mask))}.")
        return Mask(mask["path"], mask.get("image", 0), mask.get("label"))
    return Mask(mask)


def union(masks: Iterable[Mask], size: Size) -> Bool[np.ndarray, "row col"]:
    """The pixels inside any of the masks of one image of (width, height).

    Raises:
        BoxError: A mask of another size, or without a pixel inside.
    """
    found = np.zeros((size[1], size[0]), bool)
    for mask in masks:
        mask.check(size)
        found |= mask.inside
    return found


def filled(boxes: Iterable[Box], size: Size) -> Bool[np.ndarray, "row col"]:
    """The pixels of one image of (width, height) whose centres lie in any of the boxes; `image` is not looked at."""
    found = np.zeros((size[1], size[0]), bool)
    for box in boxes:
        x0, y0, x1, y1 = (max(int(np.ceil(edge - 0.5)), 0) for edge in box.as_tuple())
        found[y0:y1, x0:x1] = True
    return found


def covered_by(
    regions: Float[np.ndarray, "region 4"], inside: Bool[np.ndarray, "row col"]
) -> Float[np.ndarray, " region"]:
    """Returns the exact area of each region, xyxy in pixels, that lies inside; 0 for NaN rows.

    A region's edge may cut a pixel: the integral of the mask is bilinear between the corners of pixels.
    """
    total = np.zeros((inside.shape[0] + 1, inside.shape[1] + 1))
    total[1:, 1:] = inside.cumsum(axis=0, dtype=float).cumsum(axis=1)
    x0, y0, x1, y1 = np.nan_to_num(np.asarray(regions, float)).T
    area = (
        _integral(total, x1, y1)
        - _integral(total, x0, y1)
        - _integral(total, x1, y0)
        + _integral(total, x0, y0)
    )
    return np.maximum(area, 0.0)


def _integral(total: np.ndarray, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """The integral from the image's first corner to (x, y), with coordinates cut to the image."""
    x, y = np.clip(x, 0, total.shape[1] - 1), np.clip(y, 0, total.shape[0] - 1)
    column, row = np.minimum(x.astype(int), total.shape[1] - 2), np.minimum(y.astype(int), total.shape[0] - 2)
    dx, dy = x - column, y - row
    upper = (1 - dx) * total[row, column] + dx * total[row, column + 1]
    lower = (1 - dx) * total[row + 1, column] + dx * total[row + 1, column + 1]
    return (1 - dy) * upper + dy * lower


def _kept(values: Any) -> Any:
    """The path as it is, or a copy of the values that cannot change."""
    if isinstance(values, Image.Image):
        values = grey_values(ImageOps.exif_transpose(values))
    if isinstance(values, str | os.PathLike | LazyImage):
        return normalise(values)
    if not isinstance(values, np.ndarray):
        raise BoxError(f"a mask is a path, a PIL image or an (H, W) array; got {brief(values)}.")
    if values.ndim != 2 or 0 in values.shape or values.dtype.kind not in "bui":
        raise BoxError(
            f"a mask is an (H, W) array of bool or of whole numbers; got {values.dtype} of shape {values.shape}. "
            "Threshold a map of probabilities: mask > 0.5."
        )
    if np.ma.is_masked(values):
        raise ImageError(
            "a mask is a plain array; this masked array hides values. Fill them: array.filled(0)."
        )
    kept = np.array(values)
    kept.setflags(write=False)
    return kept


def _rebuild(values: Any, image: int, label: int | None, cache: dict[str, Any]) -> Mask:
    mask = Mask(values, image, label)
    mask._cache.update(cache)
    return mask
