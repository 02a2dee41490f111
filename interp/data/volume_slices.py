"""Samples of the slices of a volume and its label map. Slices are cut again each time they are looked at."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Integer, UInt8
from PIL import Image

from interp.data.build import (
    LUNG,
    MR_PERCENTILES,
    SOFT_TISSUE,
    piece_boxes,
    scale_box,
    square_pixels,
    square_size,
    window,
)
from interp.data.labelled import Asked
from interp.data.lines import Row
from interp.data.samples import Samples
from interp.data.volumes import Volume, display, read_dicom, read_nifti, resample_nearest
from interp.errors import DataError
from interp.inputs.argument_checks import check_one_of, check_whole
from interp.inputs.images import LazyImage
from interp.inputs.sample import Sample
from interp.inputs.text import brief

__all__ = ["PLANES", "Slices", "VolumeFile", "grey_range", "label_names", "small_pieces"]

PLANES = {"axial": 2, "coronal": 1, "sagittal": 0}
"""Plane → the axis that is cut."""
WINDOWS = {"soft tissue": SOFT_TISSUE, "lung": LUNG, "bone": (-500.0, 1500.0)}
"""Windows of CT in Hounsfield units."""
MOST_LABELS = 10_000


@dataclass(frozen=True)
class VolumeFile:
    """Where a volume is read from: small, so that samples can go to other processes.

    Attributes:
        kind: "nifti" or "dicom".
        paths: The file, or every file of the series.
        orientation: As for `volumes.read_nifti`.
    """

    kind: str
    paths: tuple[str, ...]
    orientation: str | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.orientation, str | None):
            raise DataError(f"orientation is a text, such as 'RAS', or None; got {brief(self.orientation)}.")

    def volume(self) -> Volume:
        """The volume; the last two that were read are kept."""
        return _read(self)


@lru_cache(maxsize=2)
def _read(file: VolumeFile) -> Volume:
    if file.kind == "nifti":
        return read_nifti(file.paths[0], orientation=file.orientation)
    return read_dicom(file.paths)


def label_names(names: Any) -> dict[int, str] | None:
    """Returns value → name of a label map, None where there are none.

    Raises:
        DataError: Anything but whole numbers above 0 with a name each.
    """
    if names is None:
        return None
    pairs = names.items() if isinstance(names, Mapping) else ()
    right = all(
        isinstance(value, int | np.integer) and value > 0 and isinstance(name, str) and name.strip()
        for value, name in pairs
    )
    if not pairs or not right:
        raise DataError(
            f'names maps the values of the label map to names, such as {{1: "liver"}}; got {brief(names)}. 0 is the '
            "background."
        )
    return {int(value): name for value, name in pairs}


def grey_range(volume: Volume, grey: Any) -> tuple[float, float]:
    """Returns the values that are shown black and white.

    Args:
        volume: The image volume.
        grey: (low, high); the name of a window of CT, in Hounsfield units; or "percentiles": the 0.5th and the 99.5th
            percentile of the volume.

    Raises:
        DataError: Anything else, or a volume of one value.
    """
    if isinstance(grey, str) and grey == "percentiles":
        finite = (
            volume.values[np.isfinite(volume.values)] if volume.values.dtype.kind == "f" else volume.values
        )
        low, high = np.percentile(finite, MR_PERCENTILES) if finite.size else (0.0, 0.0)
        if low < high:
            return float(low), float(high)
        low, high = (float(finite.min()), float(finite.max())) if finite.size else (0.0, 0.0)
        return low, high if high > low else low + 1.0
    if isinstance(grey, str) and grey in WINDOWS:
        return WINDOWS[grey]
    pair = grey if isinstance(grey, tuple | list) else ()
    if len(pair) == 2 and all(isinstance(one, int | float) for one in pair) and pair[0] < pair[1]:
        return float(pair[0]), float(pair[1])
    raise DataError(
        f"grey is (low, high) in the volume's unit, 'percentiles', or a window of CT, {', '.join(map(repr, WINDOWS))}; "
        f"got {brief(grey)}."
    )


@dataclass(frozen=True)
class Slices:
    """How the slices of a volume become samples.

    Attributes:
        file: The image volume.
        labels: The label volume.
        names: Value → name of the labels; None names them "label 1", …
        asked: The question about each label.
        plane: "axial", "coronal" or "sagittal".
        slices: "all" with a label in them, "largest" (for each label the slice where it is largest), or their numbers
            from 0 on, from left, posterior or inferior.
        grey: As for `grey_range`.
        least: Pieces of fewer pixels are left out and counted.
        longest: The longest side of a picture in pixels; None for the slice's own.
        group: The group of all samples.
        meta: Goes to every sample.
    """

    file: VolumeFile
    labels: VolumeFile
    names: Mapping[int, str] | None
    asked: Asked
    plane: str
    slices: str | Sequence[int]
    grey: Any
    least: int
    longest: int | None
    group: str
    meta: Mapping[str, Any]

    def __post_init__(self) -> None:
        check_one_of("plane", self.plane, PLANES, DataError)
        check_whole("least", self.least, 1, DataError)
        if self.longest is not None:
            check_whole("longest", self.longest, 8, DataError)
        listed = isinstance(self.slices, Sequence) and not isinstance(self.slices, str)
        if not (listed or (isinstance(self.slices, str) and self.slices in ("all", "largest"))):
            raise DataError(f"slices is 'all', 'largest' or a list of numbers; got {brief(self.slices)}.")

    def samples(self, name: str) -> Samples:
        """Returns the samples, slice by slice and label by label.

        Raises:
            DataError: Labels that are no whole numbers, lie elsewhere than the image, or have no name.
        """
        image = self.file.volume()
        marks = _whole(resample_nearest(self.labels.volume(), image).values, self.labels.paths[0])
        cut, dropped = Volume(marks, image.affine), Counter[str]()
        low, high = grey_range(image, self.grey)
        made: list[Sample] = []
        for index, wanted in self._chosen(marks, dropped):
            picture, spacing = display(cut, self.plane, index)
            size = square_size(picture.shape, spacing, self.longest)
            shown = LazyImage(
                partial(_picture, self.file, self.plane, index, (low, high), self.longest),
                f"image {self.plane} slice {index} of {brief(self.file.paths[0])}",
                size,
            )
            regions = self._regions(picture, wanted, size, dropped)
            row = Row(Path(self.labels.paths[0]), index, unit=f"{self.plane} slice")
            millimetres = max(spacing[1] * picture.shape[1] / size[0], 1e-9)
            more = {
                **self.meta,
                "plane": self.plane,
                "slice": index,
                "pixel_mm": round(float(millimetres), 6),
            }
            made += self.asked.samples(row, shown, regions, size=size, group=self.group, meta=more)
        if not made:
            raise DataError(
                f"{brief(self.labels.paths[0])} marks nothing in {brief(self.file.paths[0])}. Are both of one patient, "
                "and are the label's values among names?"
            )
        return Samples(made, name, dropped)

    def _chosen(
        self, marks: Integer[np.ndarray, "x y z"], dropped: Counter[str]
    ) -> list[tuple[int, list[int]]]:
        """Slices with the labels to look for in each."""
        axis = PLANES[self.plane]
        values = [int(value) for value in np.unique(marks) if value]
        if len(values) > MOST_LABELS:
            raise DataError(f"{brief(self.labels.paths[0])} has {len(values):,} labels. Is it a label map?")
        named = [value for value in values if self.names is None or value in self.names]
        if len(named) < len(values):
            dropped["labels without a name"] += len(values) - len(named)
        around = tuple(one for one in range(3) if one != axis)
        areas = {value: (marks == value).sum(axis=around) for value in named}
        if self.slices == "largest":
            wanted: dict[int, list[int]] = {}
            for value, area in areas.items():
                wanted.setdefault(int(area.argmax()), []).append(value)
            return sorted(wanted.items())
        n = marks.shape[axis]
        chosen = range(n) if isinstance(self.slices, str) else self.slices
        for index in chosen:
            check_whole("a slice's number", index, 0, DataError, most=n - 1)
        return [(int(index), [value for value in named if areas[value][index]]) for index in chosen]

    def _regions(
        self, picture: Any, wanted: Sequence[int], size: tuple[int, int], dropped: Counter[str]
    ) -> dict[str, list[Any]]:
        """Label → boxes in pixels of the picture that is shown."""
        regions: dict[str, list[Any]] = {}
        old = picture.shape[1], picture.shape[0]
        for value in wanted:
            boxes, small = piece_boxes(picture == value, self.least)
            label = f"label {value}" if self.names is None else self.names[value]
            regions.setdefault(label, []).extend(scale_box(box, old, size) for box in boxes)
            dropped[small_pieces(self.least)] += small
        return regions


def small_pieces(least: int) -> str:
    """What is counted where pieces of a mask are left out."""
    return f"pieces of a mask under {least} pixels"


def _whole(values: Any, path: str) -> Integer[np.ndarray, "x y z"]:
    found = np.asarray(values)
    if found.dtype.kind == "f":
        if not np.isfinite(found).all() or (found != np.round(found)).any():
            raise DataError(f"{brief(path)} holds values that are no whole numbers. Is it a label map?")
        found = np.round(found)
    if found.min() < 0 or found.max() > 10**9:
        raise DataError(f"{brief(path)} holds values below 0 or above 10^9. Is it a label map?")
    return found.astype(np.int32)


def _picture(
    file: VolumeFile, plane: str, index: int, grey: tuple[float, float], longest: int | None
) -> Image.Image:
    """A slice as it is displayed, windowed, with square pixels."""
    raw, spacing = display(file.volume(), plane, index)
    shown: UInt8[np.ndarray, "row col"] = window(np.nan_to_num(raw, nan=grey[0]), *grey)
    return square_pixels(shown, spacing, longest)
