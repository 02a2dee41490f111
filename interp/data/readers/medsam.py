"""MedSAM's preprocessed volumes: .npz files with grey slices (`imgs`) and their label maps (`gts`)."""

from __future__ import annotations

import os
import zipfile
import zlib
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Shaped

from interp.data.build import piece_boxes
from interp.data.labelled import VISIBLE, Asked
from interp.data.lines import Row, as_path, collect, shown
from interp.data.samples import Samples
from interp.data.volume_slices import label_names, small_pieces
from interp.errors import DataError
from interp.inputs.argument_checks import check_whole
from interp.inputs.files import file_state, unreadable
from interp.inputs.images import LazyImage
from interp.inputs.sample import Sample
from interp.inputs.text import brief

__all__ = ["medsam"]

MOST_BYTES = 8 << 30
"""The largest array that is unpacked."""
DAMAGED = (OSError, ValueError, EOFError, RuntimeError, zipfile.BadZipFile, zlib.error)
"""Errors that numpy and zipfile raise on files that are damaged, encrypted or packed in another way."""
MODALITIES = {"ct": "CT", "mr": "MR", "us": "ultrasound", "xray": "X-ray", "pet": "PET"}


def medsam(
    path: str | os.PathLike[str],
    names: Mapping[int, str] | None = None,
    *,
    name: str | None = None,
    question: str = VISIBLE,
    answer: str | None = "yes",
    least: int = 4,
    modality: str | None = None,
    bad_rows: str = "raise",
) -> Samples:
    """Returns one sample for each slice and label of MedSAM's .npz files.

    A file holds `imgs`, uint8 of (slice, row, column), or (row, column[, 3]) for one picture, and `gts`, whole
    numbers of (slice, row, column) or (row, column); 0 is the background. A sample's boxes are the smallest boxes
    around the label's 4-connected pieces in the slice. Slices are shown as they are stored and unpacked when they
    are used. Arrays of Python objects (pickles) are refused. `meta` has `label`, `slice` and `modality`, from the
    beginning of the file's name (`CT_Abd_…`) unless it is given; the group is the file.

    Args:
        path: A .npz file, or a folder of them.
        names: The names of the labels, value → name; other labels are left out and counted. None names them "label 1",
            …
        name: The name of the samples; by default the path's, without its ending.
        question: The question about a label; {label} is its name, {a} "a" or "an".
        answer: The answer of every sample; None for no answer.
        least: The least number of pixels of a piece; smaller pieces are left out and counted.
        modality: The modality of all files; None takes it from each file's name.
        bad_rows: "raise" raises an error at the first bad file; "record" keeps a stand-in for each, which a study
            records as a failure.

    Raises:
        DataError: There is no .npz file, or a file lacks an array or holds arrays that do not fit; the message names
            the file.

    Source: `pre_CT_MR.py` of github.com/bowang-lab/MedSAM (arXiv 2304.12306). The rule for the modality is inferred.
    """
    asked = Asked(question, answer)
    check_whole("least", least, 1, DataError)
    if not isinstance(modality, str | None):
        raise DataError(f"modality is a text or None; got {brief(modality)}.")
    given, known = as_path(path), label_names(names)
    paths = sorted(given.glob("*.npz")) if os.path.isdir(given) else [given]
    if not paths:
        raise DataError(f"no .npz files in {shown(given)}. Check the path.")
    dropped: Counter[str] = Counter()
    reading = _Reading(known, asked, least, modality, dropped)
    samples = collect((Row(one, 0, unit="slice") for one in paths), reading.samples, bad_rows)
    return Samples(samples, given.stem if name is None else name, dropped)


@dataclass(frozen=True)
class _Reading:
    names: Mapping[int, str] | None
    asked: Asked
    least: int
    modality: str | None
    dropped: Counter[str]

    def samples(self, row: Row) -> list[Sample]:
        """The samples of a file, slice by slice and label by label."""
        path = row.path
        marks, pictures = array_in(path, "gts"), _shape(path, "imgs")
        one = marks.ndim == 2
        fits = pictures[0][: marks.ndim] == marks.shape and pictures[0][marks.ndim :] in ((), (3,))
        if marks.ndim not in (2, 3) or marks.dtype.kind not in "iub" or not fits or pictures[1] != np.uint8:
            raise DataError(
                f"{shown(path)}: expected imgs of uint8 and gts of whole numbers, both (slice, row, column) or (row, "
                f"column); got imgs {pictures[1]} {pictures[0]} and gts {marks.dtype} {marks.shape}."
            )
        made = []
        for index, labels in enumerate(marks[None] if one else marks):
            picture = LazyImage(
                partial(_picture, os.fspath(path), None if one else index),
                f"image slice {index} of {brief(str(path))}",
                (labels.shape[1], labels.shape[0]),
            )
            made += self.asked.samples(
                Row(path, index, unit="slice"),
                picture,
                self._regions(labels),
                size=(labels.shape[1], labels.shape[0]),
                group=path.stem,
                meta={"slice": index, "modality": self.modality or _modality(path.stem)},
            )
        return made

    def _regions(self, labels: Shaped[np.ndarray, "row col"]) -> dict[str, list[Any]]:
        regions: dict[str, list[Any]] = {}
        for value in (int(one) for one in np.unique(labels) if one):
            if self.names is not None and value not in self.names:
                self.dropped["labels without a name"] += 1
                continue
            boxes, small = piece_boxes(labels == value, self.least)
            self.dropped[small_pieces(self.least)] += small
            label = f"label {value}" if self.names is None else self.names[value]
            regions.setdefault(label, []).extend(boxes)
        return regions


def _picture(path: str, index: int | None) -> np.ndarray:
    found = _kept(path, file_state(path))
    return np.ascontiguousarray(found if index is None else found[index])


@lru_cache(maxsize=2)
def _kept(path: str, state: tuple[int, int]) -> np.ndarray:
    """The pictures of a file; those of the last two files are cached until they are written anew."""
    del state
    return array_in(Path(path), "imgs")


def array_in(path: Path, key: str) -> np.ndarray:
    """Returns an array of a .npz file.

    Raises:
        DataError: The file is no .npz file, or the array is missing, damaged, too large, or of Python objects.
    """
    _shape(path, key)
    try:
        with np.load(path, allow_pickle=False) as held:
            return held[key]
    except (*DAMAGED, KeyError) as error:
        raise DataError(f"{shown(path)}: {key} cannot be read ({error}). Copy the file again.") from error


def _shape(path: Path, key: str) -> tuple[tuple[int, ...], np.dtype]:
    """Shape and dtype of an array, from its header alone.

    Raises:
        DataError: No .npz file, no such array, an array of objects, or one too large.
    """
    if problem := unreadable(path):
        raise DataError(f"{shown(path)} cannot be read: it {problem}")
    try:
        with zipfile.ZipFile(path) as packed, packed.open(f"{key}.npy") as file:
            version = np.lib.format.read_magic(file)
            reader = {(1, 0): np.lib.format.read_array_header_1_0}.get(
                version, np.lib.format.read_array_header_2_0
            )
            shape, _, dtype = reader(file)
    except KeyError as error:
        raise DataError(f"{shown(path)} has no array {key!r}; MedSAM's files hold imgs and gts.") from error
    except DAMAGED as error:
        raise DataError(f"{shown(path)} is no .npz file of arrays ({error}). Is it complete?") from error
    if dtype.hasobject:
        raise DataError(
            f"{shown(path)}: {key} holds Python objects (a pickle), which are not "
            "read. Save it again as numbers: numpy.savez(path, imgs=…, gts=…)."
        )
    if int(np.prod([int(side) for side in shape], dtype=object)) * dtype.itemsize > MOST_BYTES:
        raise DataError(
            f"{shown(path)}: {key} of shape {shape} has more than {MOST_BYTES:,} bytes. Split the file."
        )
    return tuple(shape), dtype


def _modality(stem: str) -> str | None:
    return MODALITIES.get(stem.split("_")[0].lower().replace("-", ""))
