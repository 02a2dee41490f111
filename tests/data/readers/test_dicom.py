from __future__ import annotations

from pathlib import Path

import nibabel
import numpy as np
import pytest

from interp.data import dicom
from interp.errors import DataError
from tests.data.volume_files import a_slice


def series(folder: Path) -> Path:
    """4 slices of 5 rows × 6 columns, 0.5 × 0.8 mm, every 3 mm; x and y of DICOM point left and back."""
    folder.mkdir(exist_ok=True)
    for z in range(4):
        a_slice(z).save_as(folder / f"{z}.dcm")
    return folder


def labels(path: Path) -> Path:
    """On the series' own grid, in NIfTI's directions: column 1..3 and row 1..2 of slice 2."""
    values = np.zeros((6, 5, 4), np.uint8)
    values[1:4, 1:3, 2] = 3
    affine = np.diag([-1.0, -1.0, 1.0, 1.0]) @ np.array(
        [[0.8, 0, 0, -10], [0, 0.5, 0, 20], [0, 0, 3, 5], [0, 0, 0, 1.0]]
    )
    nibabel.save(nibabel.Nifti1Image(values, affine), path)
    return path


def test_a_folder_and_its_label_map(tmp_path: Path) -> None:
    folder = series(tmp_path / "CT_17")
    samples = dicom(folder, labels(tmp_path / "l.nii.gz"), {3: "cyst"})
    (cyst,) = samples
    assert (cyst.meta["modality"], cyst.meta["slice"], cyst.group, samples.name) == (
        "CT",
        2,
        "CT_17",
        "CT_17",
    )
    assert cyst.sizes == ((10, 5),)  # 4.8 × 2.5 mm in pixels of 0.5 mm
    x0, y0, x1, y1 = cyst.boxes[0].as_tuple()
    assert (y0, y1) == (1, 3)  # rows as in the file: it is axial and upright already
    assert (x0, x1) == pytest.approx((10 / 6, 40 / 6))
    assert dicom(sorted(folder.iterdir()), tmp_path / "l.nii.gz", {3: "cyst"})[0] == cyst
    assert cyst.load().size == (10, 5)


def test_what_is_no_series_is_told(tmp_path: Path) -> None:
    folder, marks = series(tmp_path / "a"), labels(tmp_path / "l.nii.gz")
    with pytest.raises(DataError, match="a series needs at least 2 slices"):
        dicom([folder / "0.dcm"], marks)
    with pytest.raises(DataError, match="is no folder; a series is a folder"):
        dicom(folder / "0.dcm", marks)
    (folder / "0.dcm").write_bytes(b"no")
    with pytest.raises(DataError, match=r"0\.dcm' cannot be read as DICOM"):
        dicom(folder, marks)
