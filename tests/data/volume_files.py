"""Small DICOM and NIfTI files, whose tags and headers tests change."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pydicom
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian

DICOM_VALUES = np.arange(4 * 5 * 6, dtype=np.int16).reshape(4, 5, 6)
NIFTI_VALUES = np.arange(24, dtype=np.int16).reshape(2, 3, 4)
Change = Callable[[int, Any], None]


def a_slice(z: int) -> Any:
    """Slice z of an upright CT: 5 rows, 6 columns, every 3 mm."""
    meta = pydicom.dataset.FileMetaDataset()
    meta.TransferSyntaxUID, meta.MediaStorageSOPClassUID = ExplicitVRLittleEndian, CTImageStorage
    meta.MediaStorageSOPInstanceUID = f"1.2.3.{z + 1}"
    file = pydicom.dataset.FileDataset("", {}, file_meta=meta, preamble=b"\0" * 128)
    file.SOPClassUID, file.SOPInstanceUID = meta.MediaStorageSOPClassUID, f"1.2.3.{z + 1}"
    file.Modality, file.SeriesInstanceUID, file.StudyInstanceUID = "CT", "1.2.3", "1.2"
    file.Rows, file.Columns, file.SamplesPerPixel = 5, 6, 1
    file.BitsAllocated = file.BitsStored = 16
    file.HighBit, file.PixelRepresentation = 15, 1
    file.PhotometricInterpretation = "MONOCHROME2"
    file.PixelSpacing, file.SliceThickness = [0.5, 0.8], 3
    file.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
    file.ImagePositionPatient = [-10, 20, 5 + 3 * z]
    file.RescaleSlope, file.RescaleIntercept = 2, -1024
    file.PixelData = DICOM_VALUES[z].tobytes()
    return file


def setting(places: Iterable[int] = (2,), **values: Any) -> Change:
    """A change of some slices: tags set, or deleted where the value is None."""

    def change(z: int, file: Any) -> None:
        for tag, value in values.items() if z in places else ():
            if value is None:
                delattr(file, tag)
            else:
                setattr(file, tag, value)

    return change


def saved(
    path: Path, sform: Any = None, qform: Any = None, values: np.ndarray = NIFTI_VALUES, kind: Any = None
) -> Path:
    """A file with these orientations, or with none."""
    image = (kind or nibabel.Nifti1Image)(values, None)
    image.set_sform(sform, 0 if sform is None else 1)
    image.set_qform(qform, 0 if qform is None else 1)
    nibabel.save(image, path)
    return path


RAS = np.diag([1.0, 1.0, 3.0, 1.0])
SHAPE = (20, 16, 4)


def marks() -> np.ndarray:
    """(x, y, z) in RAS: a liver in two slices, largest in slice 2; a speck; a tumor in slice 2."""
    values = np.zeros(SHAPE, np.int16)
    values[12:18, 3:9, 1] = 1
    values[11:19, 2:10, 2] = 1
    values[0, 0, 1] = 1
    values[2:5, 10:14, 2] = 2
    return values


def saved_volume(path: Path, values: np.ndarray, affine: np.ndarray = RAS) -> Path:
    nibabel.save(nibabel.Nifti1Image(values, affine), path)
    return path


def marked_pair(folder: Path, labels: np.ndarray | None = None, **at: Any) -> tuple[Path, Path]:
    ramp = np.arange(np.prod(SHAPE)).reshape(SHAPE).astype(np.int16)
    held = marks() if labels is None else labels
    return saved_volume(folder / "scan_1.nii.gz", ramp), saved_volume(folder / "labels.nii.gz", held, **at)


NAMES = {1: "liver", 2: "tumor"}
