"""Reads a volume, a NIfTI file or a DICOM series, and its label map: one sample per slice and label."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from interp.data.labelled import VISIBLE, Asked
from interp.data.lines import as_path, needs, shown
from interp.data.samples import Samples
from interp.data.volume_slices import Slices, VolumeFile, label_names
from interp.errors import DataError

__all__ = ["dicom", "nifti", "stem"]


def nifti(
    image: str | os.PathLike[str],
    labels: str | os.PathLike[str],
    names: Mapping[int, str] | None = None,
    *,
    name: str | None = None,
    plane: str = "axial",
    slices: str | Sequence[int] = "all",
    grey: str | tuple[float, float] = "percentiles",
    question: str = VISIBLE,
    answer: str | None = "yes",
    least: int = 4,
    longest: int | None = None,
    masks: bool = False,
    lesions: bool = False,
    orientation: str | None = None,
    modality: str | None = None,
    group: str | None = None,
) -> Samples:
    """Returns one sample for each slice and label of a NIfTI volume; needs the extra `data`.

    Slices are shown as radiologists see them (the patient's right on the left of the picture, anterior or superior on
    top) with square pixels, whatever the order of the axes in the file. Labels on another grid are resampled to the
    image's by nearest neighbour in millimetres. A sample's boxes are the smallest boxes around the label's 4-connected
    pieces in the slice. Pictures are cut from the file when they are used. `meta` has `label`, `plane`, `slice` (from 0
    on, from the left, the back or below), `pixel_mm`, `modality` and `present` (every label in the slice). The group is
    the volume, so that its slices stay together.

    Args:
        image: The image volume, .nii or .nii.gz.
        labels: The label map.
        names: The names of the labels, value → name; other labels are left out and counted. None names them "label 1",
            …
        name: The name of the samples; by default the image file's, without its ending.
        plane: The plane of the slices, "axial", "coronal" or "sagittal".
        slices: "all" slices that hold a label, "largest" (for each label the slice where it is largest), or numbers.
        grey: The values shown as black and white: (low, high) in the volume's unit; "percentiles", the 0.5th and 99.5th
            of the volume; or a window of CT, "soft tissue" (−160 … 240), "lung" (−1350 … 150) or "bone" (−500 … 1500).
        question: The question about a label; {label} is its name, {a} "a" or "an".
        answer: The answer of every sample; None for no answer.
        least: The least number of pixels of a piece in the slice; smaller pieces are left out and counted.
        longest: The longest side of a picture in pixels; None keeps the slice's.
        masks: Whether samples hold the label's mask beside its boxes, without the pieces that are left out. The mask is
            cut when it is used, by nearest neighbours on the picture's grid.
        lesions: Whether each connected piece of a label in the volume (26 neighbours) makes samples of its own.
            `meta["lesion"]` names it by label and number, the same in all its slices, so that
            `interp.study.lesion_hits` counts it once. "largest" is then the slice where the lesion is largest.
        orientation: The directions of the axes, for both files, as in `interp.data.volumes.read_nifti`.
        modality: The modality, for `meta`, because NIfTI files do not give it.
        group: The group of the samples; by default their name.

    Raises:
        DataError: A file that is no NIfTI volume or no label map, labels that mark nothing, or an unknown option.
    """
    path, marks = as_path(image), as_path(labels, "the label map")
    called = stem(path.name) if name is None else name
    return Slices(
        VolumeFile("nifti", (os.fspath(path),), orientation),
        VolumeFile("nifti", (os.fspath(marks),), orientation),
        label_names(names),
        Asked(question, answer),
        plane,
        slices,
        grey,
        least,
        longest,
        called if group is None else group,
        {"modality": modality},
        masks,
        lesions,
    ).samples(called)


def stem(name: str) -> str:
    """Returns a file's name without .nii or .nii.gz."""
    return name.removesuffix(".gz").removesuffix(".nii")


MODALITIES = {"CT": "CT", "MR": "MR", "PT": "PET", "US": "ultrasound"}


def dicom(
    series: str | os.PathLike[str] | Iterable[str | os.PathLike[str]],
    labels: str | os.PathLike[str],
    names: Mapping[int, str] | None = None,
    *,
    name: str | None = None,
    plane: str = "axial",
    slices: str | Sequence[int] = "all",
    grey: str | tuple[float, float] | None = None,
    question: str = VISIBLE,
    answer: str | None = "yes",
    least: int = 4,
    longest: int | None = None,
    masks: bool = False,
    lesions: bool = False,
    group: str | None = None,
) -> Samples:
    """Returns one sample for each slice and label of a DICOM series; needs the extra `data`.

    `interp.data.volumes.read_dicom` reads the series; the label map is a NIfTI file. Both are in the patient's
    millimetres, so they need not share a grid. Slices, boxes and `meta` are those of `interp.data.nifti`, except that
    `meta["modality"]` comes from the files. DICOM segmentation objects are not read: convert them to NIfTI, for example
    with dcmqi's segimage2itkimage.

    Args:
        series: A folder with the files of one series (.dcm, or without ending), or a list of all files.
        labels: The label map, .nii or .nii.gz.
        names: The names of the labels, value → name; other labels are left out and counted. None names them "label 1",
            …
        name: The name of the samples; by default the folder's.
        plane: The plane of the slices, "axial", "coronal" or "sagittal".
        slices: "all" slices that hold a label, "largest" (for each label the slice where it is largest), or numbers.
        grey: The values shown as black and white, as in `interp.data.nifti`. None shows CT in the window "soft tissue"
            and other modalities by percentiles.
        question: The question about a label; {label} is its name, {a} "a" or "an".
        answer: The answer of every sample; None for no answer.
        least: The least number of pixels of a piece in the slice; smaller pieces are left out and counted.
        longest: The longest side of a picture in pixels; None keeps the slice's.
        masks: Whether samples hold the label's mask beside its boxes, without the pieces that are left out.
        lesions: Whether each connected piece of a label in the volume makes samples of its own, named in
            `meta["lesion"]`.
        group: The group of the samples; by default their name.

    Raises:
        DataError: Files that are not one series, a file that is no label map, labels that mark nothing, or an unknown
            option.
    """
    paths, called = _files(series)
    called = called if name is None else name
    marks = as_path(labels, "the label map")
    file = VolumeFile("dicom", paths)
    file.volume()  # says what is wrong with the series before its header is read
    modality = str(needs("pydicom").dcmread(paths[0], stop_before_pixels=True).get("Modality", ""))
    window = ("soft tissue" if modality == "CT" else "percentiles") if grey is None else grey
    return Slices(
        file,
        VolumeFile("nifti", (os.fspath(marks),)),
        label_names(names),
        Asked(question, answer),
        plane,
        slices,
        window,
        least,
        longest,
        called if group is None else group,
        {"modality": MODALITIES.get(modality, modality or None)},
        masks,
        lesions,
    ).samples(called)


def _files(series: Any) -> tuple[tuple[str, ...], str]:
    """The files of a series, and a name for it."""
    if isinstance(series, str | os.PathLike):
        folder = as_path(series, "the series")
        if not os.path.isdir(folder):
            raise DataError(
                f"{shown(folder)} is no folder; a series is a folder of DICOM files, or a list of all of them."
            )
        found = sorted(
            one for one in folder.iterdir() if one.is_file() and one.suffix.lower() in ("", ".dcm", ".ima")
        )
        return tuple(map(os.fspath, found)), folder.resolve().name
    if not isinstance(series, Iterable):
        raise DataError(
            f"a series is a folder of DICOM files, or a list of all of them; got {type(series).__name__}."
        )
    paths = tuple(os.fspath(as_path(one)) for one in series)
    return paths, Path(paths[0]).parent.name if paths else "series"
