"""Reads a DICOM series and its label map: one sample a slice and label."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from interp.data.extra import needs
from interp.data.labelled import VISIBLE, Asked
from interp.data.lines import as_path, shown
from interp.data.samples import Samples
from interp.data.volume_slices import Slices, VolumeFile, label_names
from interp.errors import DataError

__all__ = ["dicom"]

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

    The series is read as by `interp.data.volumes.read_dicom`, the label map from NIfTI; both lie in the patient's
    millimetres, so they need not share a grid. All else is as for `interp.data.nifti`. `meta["modality"]` comes from
    the files. DICOM segmentation objects are not read: convert them to NIfTI, for example with dcmqi's
    segimage2itkimage.

    Args:
        series: A folder with the files of one series (.dcm, or without ending), or a list of all files.
        labels: The label map, .nii or .nii.gz.
        names: As for `interp.data.nifti`.
        name: The name of the samples; by default the folder's.
        plane: As for `interp.data.nifti`.
        slices: As for `interp.data.nifti`.
        grey: As for `interp.data.nifti`; None shows CT in the window "soft tissue", others by percentiles.
        question: As for `interp.data.nifti`.
        answer: As for `interp.data.nifti`.
        least: As for `interp.data.nifti`.
        longest: As for `interp.data.nifti`.
        masks: As for `interp.data.nifti`.
        lesions: As for `interp.data.nifti`.
        group: As for `interp.data.nifti`.

    Raises:
        DataError: Files that are not one series, no label map, labels that mark nothing, or an unknown option.
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
