"""Reads a NIfTI volume and its label map: one sample a slice and label."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence

from interp.data.labelled import VISIBLE, Asked
from interp.data.lines import as_path
from interp.data.samples import Samples
from interp.data.volume_slices import Slices, VolumeFile, label_names

__all__ = ["nifti", "stem"]


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
    top) with square pixels, whatever the order of the axes in the file. Labels on another grid are put on the image's
    by nearest neighbour in millimetres. A sample's boxes are the smallest boxes around the label's 4-connected pieces
    in the slice. Pictures are cut from the file when they are used. `meta` has `label`, `plane`, `slice` (from 0 on,
    from the left, the back or below), `pixel_mm`, `modality` and `present` (every label in the slice); the group is the
    volume, so that its slices stay together.

    Args:
        image: The image volume, .nii or .nii.gz.
        labels: The label map.
        names: Value → name of the labels; other labels are left out and counted. None names them "label 1", …
        name: The name of the samples; by default the image file's, without its ending.
        plane: "axial", "coronal" or "sagittal".
        slices: "all" that hold a label, "largest" (for each label the slice where it is largest), or numbers.
        grey: What is shown black and white: (low, high) in the volume's unit; "percentiles", the 0.5th and 99.5th of
            the volume; or a window of CT, "soft tissue" (−160 … 240), "lung" (−1350 … 150) or "bone" (−500 … 1500).
        question: The question about a label; {label} is its name, {a} "a" or "an".
        answer: The answer of every sample; None for none.
        least: Pieces of fewer pixels of the slice are left out and counted.
        longest: The longest side of a picture in pixels; None keeps the slice's.
        masks: Whether samples hold the label's mask beside its boxes, without the pieces that are left out. It is cut
            when it is used, by nearest neighbours on the picture's grid.
        lesions: Whether each piece of a label that hangs together in the volume (26 neighbours) makes samples of its
            own. `meta["lesion"]` names it by label and number, the same in all its slices, so that
            `interp.study.lesion_hits` counts it once. "largest" is then the slice where the lesion is largest.
        orientation: As for `interp.data.volumes.read_nifti`, for both files.
        modality: Goes to `meta`; a NIfTI file does not say.
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
    """Returns a file's name without .gz and its ending."""
    return name.removesuffix(".gz").removesuffix(".nii")
