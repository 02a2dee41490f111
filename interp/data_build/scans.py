"""Reads a folder of volumes or pictures with label maps, in the layout of nnU-Net or with plain names."""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from interp.data.labelled import VISIBLE, Asked, mask_values
from interp.data.lines import Row, as_path, file_bytes, parsed_json, shown
from interp.data.readers.nifti_and_dicom import dicom, nifti, stem
from interp.data.samples import Samples
from interp.data.volume_slices import label_names
from interp.errors import DataError
from interp.inputs.images import image_size
from interp.inputs.masks import Mask
from interp.inputs.sample import Sample
from interp.inputs.text import brief

__all__ = ["is_scans", "scans"]

LAYOUTS = (("imagesTr", "labelsTr"), ("images", "labels"), ("images", "masks"))
VOLUMES = (".nii", ".nii.gz")
PICTURES = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff")
MOST_VALUES = 1000


def is_scans(root: Path) -> bool:
    """Whether a folder has the layout that `scans` reads."""
    try:
        return bool(_label_files(root))
    except DataError:
        return False


def scans(
    root: str | os.PathLike[str],
    names: Mapping[int, str] | None = None,
    *,
    name: str | None = None,
    plane: str = "axial",
    slices: str | Sequence[int] = "all",
    grey: str | tuple[float, float] | None = None,
    longest: int | None = None,
    orientation: str | None = None,
    modality: str | None = None,
    region: str | None = None,
) -> Samples:
    """Returns samples with masks of every volume or picture in a folder that has a label map.

    The folder holds `images` and `labels` (or `masks`), or nnU-Net's `imagesTr` and `labelsTr`. A label map
    `labels/NAME.nii.gz` belongs to `images/NAME.nii.gz`, `NAME_0000.nii.gz` (the first channel) or the DICOM series in
    the folder `images/NAME`; a label map `NAME.png` to a picture `NAME.png`, `.jpg`, `.bmp` or `.tif` of the same size.
    Names of labels, and the modality, are read from `dataset.json` (nnU-Net's, both versions) or `labels.json`
    (`{"1": "liver"}`) where they are not given. A map with the values 0 and 255 has one label, 255. The group is the
    volume or the picture. No piece of a label is too small to be kept.

    Args:
        root: The folder.
        names: Value → name of the labels; None takes those of the folder's JSON file, else "label 1", …
        name: The name of the samples; by default the folder's.
        plane: The plane of the slices, "axial", "coronal" or "sagittal".
        slices: The slices to take, as in `interp.data.nifti`.
        grey: The grey values that are shown, as in `interp.data.nifti`. None shows CT in the window "soft tissue" and
            other modalities by percentiles.
        longest: The longest side of a slice in pixels; pictures are never resized.
        orientation: The axes of NIfTI files that do not name them, as in `interp.data.nifti`.
        modality: The modality, for `meta`; None takes nnU-Net's or that of the DICOM files.
        region: The body region, for `meta`.

    Raises:
        DataError: Another layout, a label map without its image, or what the readers of volumes refuse.
    """
    folder = as_path(root, "the folder")
    for what, value in (("modality", modality), ("region", region)):
        if value is not None and not isinstance(value, str):
            raise DataError(f"{what} is a text or None; got {brief(value)}.")
    given = label_names(names)
    said = _described(folder, named=given is not None)
    reading = _Reading(
        given or said.names,
        {"plane": plane, "slices": slices, "longest": longest},
        grey,
        orientation,
        modality or said.modality,
        region,
    )
    made: list[Sample] = []
    skipped: Counter[str] = Counter()
    for file in _label_files(folder):
        found = reading.samples(_image_of(folder, file), file)
        made += found
        skipped.update(found.skipped)
    return Samples(made, folder.resolve().name if name is None else name, skipped)


@dataclass(frozen=True)
class _Described:
    """The content of a folder's JSON file."""

    names: dict[int, str] | None
    modality: str | None


@dataclass(frozen=True)
class _Reading:
    """How each image of a folder is read."""

    names: dict[int, str] | None
    cut: dict[str, Any]
    grey: Any
    orientation: str | None
    modality: str | None
    region: str | None

    def samples(self, image: Path, labels: Path) -> Samples:
        """The samples of one image and its label map."""
        if image.suffix.lower() in PICTURES:
            return self._picture(image, labels)
        options = {**self.cut, "masks": True, "least": 1, "name": stem(labels.name)}
        if image.is_dir():
            made = dicom(image, labels, self.names, grey=self.grey, **options)
        else:
            ct = str(self.modality).upper() == "CT"
            grey = ("soft tissue" if ct else "percentiles") if self.grey is None else self.grey
            made = nifti(image, labels, self.names, grey=grey, orientation=self.orientation, **options)
        return made.like(one.replace(meta={**one.meta, **self._meta(one.meta)}) for one in made)

    def _meta(self, known: Mapping[str, Any]) -> dict[str, Any]:
        own = {"modality": self.modality or known.get("modality"), "region": self.region}
        return {key: value for key, value in own.items() if value is not None}

    def _picture(self, image: Path, labels: Path) -> Samples:
        values = mask_values(labels, image_size(image))
        present = [int(value) for value in np.unique(values) if value]
        if len(present) > MOST_VALUES:
            raise DataError(f"{shown(labels)} has {len(present):,} values. Is it a label map, and not lossy?")
        wanted = [value for value in present if self.names is None or value in self.names]
        names = self.names or {value: f"label {value}" for value in wanted}
        masks: dict[str, list[Mask]] = {}
        for value in wanted:
            masks.setdefault(names[value], []).append(Mask(labels, label=value))
        boxes = {label: [mask.box.as_tuple() for mask in listed] for label, listed in masks.items()}
        row = Row(labels, 0, unit="picture")
        made = Asked(VISIBLE, "yes").samples(
            row, image, boxes, group=image.stem, meta=self._meta({}), masks=masks
        )
        return Samples(made, image.stem, {"labels without a name": len(present) - len(wanted)})


def _described(folder: Path, *, named: bool) -> _Described:
    """The modality, and unless the caller `named` labels their names, from `labels.json` or `dataset.json`."""
    for name in ("labels.json", "dataset.json"):
        path = folder / name
        if not os.path.isfile(path):
            continue
        content = parsed_json(file_bytes(path), shown(path))
        held = content.get("labels", content) if isinstance(content, dict) else None
        channels = (
            (content.get("channel_names") or content.get("modality")) if isinstance(content, dict) else None
        )
        first = channels.get("0") if isinstance(channels, dict) else None
        return _Described(
            None if named else _label_names(path, held), first if isinstance(first, str) and first else None
        )
    return _Described(None, None)


def _label_names(path: Path, held: Any) -> dict[int, str]:
    """Value → name, from {"1": "liver"} or {"liver": 1}; the background is left out."""
    found = {}
    for left, right in held.items() if isinstance(held, dict) else ():
        value, label = (left, right) if isinstance(right, str) else (right, left)
        try:
            found[int(value)] = str(label)
        except (TypeError, ValueError):
            raise DataError(
                f"{shown(path)}: a label is one value and its name, such as {json.dumps({'1': 'liver'})}; got "
                f"{json.dumps({left: right})[:100]}. Name the labels with names=."
            ) from None
    found.pop(0, None)
    return label_names(found) or {}


def _layout(folder: Path) -> tuple[Path, Path]:
    """The folders of the images and of the label maps."""
    for images, labels in LAYOUTS:
        if os.path.isdir(folder / images) and os.path.isdir(folder / labels):
            return folder / images, folder / labels
    raise DataError(
        f"{shown(folder)} has no folders images and labels (or masks), nor imagesTr and labelsTr. Sort the files so, "
        "or call a reader in Python, such as interp.data.nifti(image, labels, masks=True)."
    )


def _label_files(folder: Path) -> list[Path]:
    """The label maps of a folder, by name."""
    _, place = _layout(folder)
    found = sorted(one for one in place.iterdir() if one.name.lower().endswith((*VOLUMES, *PICTURES)))
    return [one for one in found if not one.name.startswith(".")]


def _image_of(folder: Path, labels: Path) -> Path:
    """The volume, series or picture that a label map belongs to."""
    place, _ = _layout(folder)
    volume = labels.name.lower().endswith(VOLUMES)
    plain = stem(labels.name) if volume else labels.stem
    endings = VOLUMES if volume else PICTURES
    wanted = [place / f"{plain}{part}{ending}" for part in ("", "_0000") for ending in endings]
    found = [one for one in (*wanted, place / plain) if one.is_file() or (volume and one.is_dir())]
    if not found:
        raise DataError(
            f"{shown(labels)} has no image: expected {shown(wanted[0])}. Add it, or remove the label map."
        )
    return found[0]
