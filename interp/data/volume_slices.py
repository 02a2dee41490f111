"""Samples of the slices of a volume and its label map. A slice is cut again each time its image is used."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
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
    large_pieces,
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
from interp.inputs.argument_checks import check_bool, check_one_of, check_whole
from interp.inputs.files import file_state
from interp.inputs.images import LazyImage
from interp.inputs.masks import Mask
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
    """The source of a volume: a small value, so that samples can be sent to other processes.

    Attributes:
        kind: The kind of file, "nifti" or "dicom".
        paths: The file, or every file of the series.
        orientation: The axes of a NIfTI file that does not name them; see `volumes.read_nifti`.
        written: The time and the size of each file, so that a file that was written anew is read anew.
    """

    kind: str
    paths: tuple[str, ...]
    orientation: str | None = None
    written: tuple[tuple[int, int], ...] = field(default=(), repr=False)

    def __post_init__(self) -> None:
        if not isinstance(self.orientation, str | None):
            raise DataError(f"orientation is a text, such as 'RAS', or None; got {brief(self.orientation)}.")
        if not self.written:
            object.__setattr__(self, "written", tuple(map(file_state, self.paths)))

    def volume(self) -> Volume:
        """The volume; the last two volumes that were read are cached."""
        return _read(self)


@lru_cache(maxsize=2)
def _read(file: VolumeFile) -> Volume:
    if file.kind == "nifti":
        return read_nifti(file.paths[0], orientation=file.orientation)
    return read_dicom(file.paths)


def label_names(names: Any) -> dict[int, str] | None:
    """Returns the names of a label map's values, value → name; None for None.

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
    """Returns the two values that are shown as black and as white.

    Args:
        volume: The image volume.
        grey: The range of grey: (low, high); the name of a window of CT, in Hounsfield units; or "percentiles", the
            0.5th and the 99.5th percentile of the volume.

    Raises:
        DataError: A range of another kind.
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
    """A volume and its label map, and how their slices become samples.

    Attributes:
        file: The image volume.
        labels: The label volume.
        names: The names of the labels, value → name; None names them "label 1", …
        asked: The question about each label.
        plane: The plane of the slices, "axial", "coronal" or "sagittal".
        slices: "all" slices with a label in them, "largest" (for each label the slice where it is largest), or the
            slices' numbers from 0 on, from left, posterior or inferior.
        grey: The range of grey; see `grey_range`.
        least: The least number of pixels of a piece; smaller pieces are left out and counted.
        longest: The longest side of a picture in pixels; None for the slice's own.
        group: The group of all samples.
        meta: Entries for the meta of every sample.
        masks: Whether samples hold the label's mask in the slice beside its boxes.
        lesions: Whether each connected piece of a label in the volume makes samples of its own; see `Marks`.
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
    masks: bool = False
    lesions: bool = False

    def __post_init__(self) -> None:
        check_bool("masks", self.masks, DataError)
        check_bool("lesions", self.lesions, DataError)
        check_one_of("plane", self.plane, PLANES, DataError)
        check_whole("least", self.least, 1, DataError)
        if self.longest is not None:
            check_whole("longest", self.longest, 8, DataError)
        listed = isinstance(self.slices, Sequence) and not isinstance(self.slices, str)
        if not (listed or (isinstance(self.slices, str) and self.slices in ("all", "largest"))):
            raise DataError(f"slices is 'all', 'largest' or a list of numbers; got {brief(self.slices)}.")

    def samples(self, name: str) -> Samples:
        """Returns the samples, slice by slice, label by label and lesion by lesion.

        Raises:
            DataError: Labels that are no whole numbers or mark nothing in the image, or that have no name.
        """
        image, dropped = self.file.volume(), Counter[str]()
        marks = Marks(self.labels, self.file, _items(self.names), self.lesions)
        cut, named = marks.volume(), marks.names()
        if n := len(_values(marks.labels, marks.image)) - len(marks.named_values()):
            dropped["labels without a name"] += n
        grey = grey_range(image, self.grey)
        made: list[Sample] = []
        for index, wanted in self._chosen(cut.values, named):
            picture, spacing = display(cut, self.plane, index)
            size = square_size(picture.shape, spacing, self.longest)
            shown = LazyImage(
                partial(_picture, self.file, self.plane, index, grey, self.longest),
                f"image {self.plane} slice {index} of {brief(self.file.paths[0])}",
                size,
            )
            millimetres = max(spacing[1] * picture.shape[1] / size[0], 1e-9)
            more = {
                **self.meta,
                "plane": self.plane,
                "slice": index,
                "pixel_mm": round(float(millimetres), 6),
                "present": _present(picture, named),
            }
            for one in self._things(marks, named, picture, index, wanted, size, dropped):
                made += self._samples(one, shown, index, size, more)
        if not made:
            raise DataError(
                f"{brief(self.labels.paths[0])} marks nothing in {brief(self.file.paths[0])}. Are both of one patient, "
                "and are the label's values among names?"
            )
        return Samples(made, name, dropped)

    def _samples(
        self, thing: _Thing, shown: LazyImage, index: int, size: tuple[int, int], meta: Mapping[str, Any]
    ) -> list[Sample]:
        """The sample of one label or lesion of a slice."""
        row = Row(Path(self.labels.paths[0]), index, unit=f"{self.plane} slice")
        own = {"lesion": thing.lesion} if thing.lesion else {}
        made = self.asked.samples(
            row,
            shown,
            {thing.label: thing.boxes},
            size=size,
            group=self.group,
            meta={**meta, **own},
            masks={thing.label: thing.masks},
        )
        return [one.replace(id=f"{row.id}:{thing.lesion}") for one in made] if thing.lesion else made

    def _chosen(
        self, marks: Integer[np.ndarray, "x y z"], named: Mapping[int, tuple[str, str | None]]
    ) -> list[tuple[int, list[int]]]:
        """The chosen slices, each with the labels to look for in it."""
        axis = PLANES[self.plane]
        areas = _areas(marks, axis, max(named, default=0))
        if self.slices == "largest":
            wanted: dict[int, list[int]] = {}
            for value in named:
                wanted.setdefault(int(areas[value].argmax()), []).append(value)
            return sorted(wanted.items())
        n = marks.shape[axis]
        chosen = range(n) if isinstance(self.slices, str) else self.slices
        for index in chosen:
            check_whole("a slice's number", index, 0, DataError, most=n - 1)
        return [(int(index), [value for value in named if areas[value][index]]) for index in chosen]

    def _things(
        self,
        marks: Marks,
        named: Mapping[int, tuple[str, str | None]],
        picture: Any,
        index: int,
        wanted: Sequence[int],
        size: tuple[int, int],
        dropped: Counter[str],
    ) -> list[_Thing]:
        """The labels or lesions of a slice, with boxes in pixels of the picture that is shown."""
        found: dict[tuple[str, str | None], _Thing] = {}
        old = picture.shape[1], picture.shape[0]
        for value in wanted:
            boxes, small = piece_boxes(picture == value, self.least)
            dropped[small_pieces(self.least)] += small
            if not boxes:
                continue
            thing = found.setdefault(named[value], _Thing(*named[value], [], []))
            thing.boxes.extend(scale_box(box, old, size) for box in boxes)
            if self.masks:
                thing.masks.append(self._mask(marks, index, value, size))
        return [thing for thing in found.values() if self._fits(thing, dropped)]

    def _mask(self, marks: Marks, index: int, value: int, size: tuple[int, int]) -> Mask:
        what = f"mask of {self.plane} slice {index} of {brief(self.labels.paths[0])}"
        read = partial(_inside, marks, self.plane, index, value, self.least, size)
        return Mask(LazyImage(read, what, size))

    def _fits(self, thing: _Thing, dropped: Counter[str]) -> bool:
        """Whether every mask still has a pixel in a picture that is smaller than the slice."""
        if self.longest is None or all(mask.inside.any() for mask in thing.masks):
            return True
        dropped["masks without a pixel in a picture of this size"] += 1
        return False


@dataclass(frozen=True)
class _Thing:
    """The subject of one sample: boxes and masks of a label in a slice, or of one lesion."""

    label: str
    lesion: str | None
    boxes: list[Any]
    masks: list[Mask]


@dataclass(frozen=True)
class Marks:
    """The label map on the image's grid: a small value, so that samples can be sent to other processes.

    Attributes:
        labels: The label volume.
        image: The image volume.
        given: Value and name of each label to read; None reads all.
        lesions: Whether labels with one name are split into connected pieces of the volume (26 neighbours), numbered
            along the axes from left, posterior and inferior on. A piece's value is its number among all pieces.
    """

    labels: VolumeFile
    image: VolumeFile
    given: tuple[tuple[int, str], ...] | None
    lesions: bool

    def volume(self) -> Volume:
        """The labels, or the numbers of the lesions; the last two volumes are cached."""
        return _lesions(self)[0] if self.lesions else _marked(self.labels, self.image)

    def names(self) -> Mapping[int, tuple[str, str | None]]:
        """Value of `volume` → its label, and the name of its lesion."""
        if self.lesions:
            return _lesions(self)[1]
        return {value: (name, None) for value, name in self.named_values().items()}

    def named_values(self) -> dict[int, str]:
        """Value → name of the file's labels that are read."""
        known = None if self.given is None else dict(self.given)
        values = _values(self.labels, self.image)
        return {
            value: f"label {value}" if known is None else known[value]
            for value in values
            if known is None or value in known
        }


def _items(names: Mapping[int, str] | None) -> tuple[tuple[int, str], ...] | None:
    return None if names is None else tuple(names.items())


@lru_cache(maxsize=2)
def _marked(labels: VolumeFile, image: VolumeFile) -> Volume:
    onto = image.volume()
    return Volume(_whole(resample_nearest(labels.volume(), onto).values, labels.paths[0]), onto.affine)


@lru_cache(maxsize=4)
def _values(labels: VolumeFile, image: VolumeFile) -> tuple[int, ...]:
    found = tuple(int(value) for value in np.unique(_marked(labels, image).values) if value)
    if len(found) > MOST_LABELS:
        raise DataError(f"{brief(labels.paths[0])} has {len(found):,} labels. Is it a label map?")
    return found


@lru_cache(maxsize=2)
def _lesions(marks: Marks) -> tuple[Volume, Mapping[int, tuple[str, str | None]]]:
    """The number of each voxel's lesion, 0 outside, and number → its label and the lesion's name."""
    from scipy import ndimage

    whole = _marked(marks.labels, marks.image)
    numbers, names = np.zeros(whole.values.shape, np.int32), dict[int, tuple[str, str | None]]()
    values_of: dict[str, list[int]] = {}
    for value, label in marks.named_values().items():
        values_of.setdefault(label, []).append(value)
    for label, values in values_of.items():
        pieces: Any = np.zeros(whole.values.shape, np.int32)
        n = int(ndimage.label(np.isin(whole.values, values), np.ones((3, 3, 3)), output=pieces))  # pyright: ignore[reportArgumentType]
        if len(names) + n > MOST_LABELS:
            raise DataError(
                f"{brief(marks.labels.paths[0])} marks {label!r} in {n:,} pieces; at most {MOST_LABELS:,} lesions are "
                "read. Is it noise? Remove small pieces from the label map."
            )
        inside = pieces > 0
        numbers[inside] = pieces[inside] + len(names)
        names.update({len(names) + k: (label, f"{label} {k}") for k in range(1, n + 1)})
    return Volume(numbers, whole.affine), names


def _areas(marks: Integer[np.ndarray, "x y z"], axis: int, most: int) -> Integer[np.ndarray, "value slice"]:
    """The number of voxels of each slice that have each value from 0 to `most`."""
    planes = np.moveaxis(marks, axis, 0)
    inside = [np.bincount(plane[plane <= most], minlength=most + 1) for plane in planes]
    return np.stack(inside, axis=1)


def _inside(
    marks: Marks, plane: str, index: int, value: int, least: int, size: tuple[int, int]
) -> Image.Image:
    """The mask of a value in a slice without its small pieces, of the size of the picture, by nearest neighbours."""
    picture, _ = display(marks.volume(), plane, index)
    mask = Image.fromarray(large_pieces(picture == value, least).astype(np.uint8) * 255)
    return mask if mask.size == size else mask.resize(size, Image.Resampling.NEAREST)


def _present(
    picture: Integer[np.ndarray, "row col"], named: Mapping[int, tuple[str, str | None]]
) -> list[str]:
    """Every label in a slice, including labels that make no sample."""
    return sorted({named[value][0] for value in np.unique(picture).tolist() if value in named})


def small_pieces(least: int) -> str:
    """The reason under which small pieces of a mask are counted as left out."""
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
