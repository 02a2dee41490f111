"""NIfTI files whose header leaves something open, or says it twice: refused, with what to do."""

from __future__ import annotations

import gzip
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest

from interp.data.volumes import read_nifti
from interp.errors import DataError
from tests.data.volume_files import NIFTI_VALUES as VALUES
from tests.data.volume_files import saved

LPS = np.array([[-1.0, 0, 0, 5], [0, -2, 0, 6], [0, 0, 3.5, -7], [0, 0, 0, 1]])


def patched(path: Path, offset: int, data: bytes) -> Path:
    """The file with some bytes of its header replaced."""
    content = bytearray(path.read_bytes())
    content[offset : offset + len(data)] = data
    path.write_bytes(content)
    return path


PIXDIM, SLOPE = 80, 112  # offsets in the header: pixdim[1], scl_slope


def test_values_are_scaled(tmp_path: Path) -> None:
    image = nibabel.Nifti1Image(VALUES, LPS)
    image.header.set_slope_inter(2, -10)
    nibabel.save(image, tmp_path / "ct.nii.gz")
    volume = read_nifti(tmp_path / "ct.nii.gz")
    stored = np.asanyarray(nibabel.as_closest_canonical(nibabel.load(tmp_path / "ct.nii.gz")).dataobj)
    np.testing.assert_array_equal(volume.values, stored)
    assert volume.spacing == pytest.approx((1, 2, 3.5))


@pytest.mark.parametrize("slope", [0.0, np.nan])
def test_a_slope_of_zero_or_nan_scales_nothing(tmp_path: Path, slope: float) -> None:
    path = patched(saved(tmp_path / "a.nii", LPS), SLOPE, np.array([slope, 7], np.float32).tobytes())
    np.testing.assert_array_equal(read_nifti(path).values, VALUES[::-1, ::-1])


@pytest.mark.parametrize("name", ["a.nii.gz", "a.nii", "a.hdr"])
def test_no_orientation_is_refused(tmp_path: Path, name: str) -> None:
    kind = nibabel.Nifti1Pair if name.endswith("hdr") else nibabel.Nifti1Image
    with pytest.raises(DataError, match=r"does not say where its axes point.*pass orientation=, such as"):
        read_nifti(saved(tmp_path / name, kind=kind))


@pytest.mark.parametrize(
    ("orientation", "expected"),
    [("RAS", VALUES), ("LPS", VALUES[::-1, ::-1]), ("pir", VALUES.transpose(2, 0, 1)[:, ::-1, ::-1])],
)
def test_the_caller_may_say_the_orientation(tmp_path: Path, orientation: str, expected: np.ndarray) -> None:
    image = nibabel.Nifti1Image(VALUES, None)
    image.header.set_zooms((1, 2, 3))
    nibabel.save(image, tmp_path / "a.nii")
    volume = read_nifti(tmp_path / "a.nii", orientation=orientation)
    np.testing.assert_array_equal(volume.values, expected)
    assert volume.spacing == ((3, 1, 2) if orientation == "pir" else (1, 2, 3))


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize("orientation", ["RA", "RAX", "RLS", "RASP", "", 3, ("R", "A", "S")], ids=str)
def test_an_orientation_that_is_none(tmp_path: Path, orientation: Any) -> None:
    with pytest.raises(DataError, match="orientation is three letters"):
        read_nifti(saved(tmp_path / "a.nii"), orientation=orientation)


def test_an_orientation_that_contradicts_the_file(tmp_path: Path) -> None:
    path = saved(tmp_path / "a.nii", LPS)
    with pytest.raises(DataError, match="axes point to LPS; got orientation='RAS'"):
        read_nifti(path, orientation="RAS")
    assert read_nifti(path, orientation="LPS").spacing == pytest.approx((1, 2, 3.5))


@pytest.mark.parametrize("forms", [("sform",), ("qform",), ("sform", "qform")], ids="+".join)
def test_either_form_orients_the_file(tmp_path: Path, forms: tuple[str, ...]) -> None:
    volume = read_nifti(saved(tmp_path / "a.nii", **dict.fromkeys(forms, LPS)))
    np.testing.assert_array_equal(volume.values, VALUES[::-1, ::-1])


FLIPPED, MOVED = LPS.copy(), LPS.copy()
FLIPPED[0] *= -1
MOVED[0, 3] += 2
LARGER = LPS @ np.diag([1.2, 1, 1, 1])


@pytest.mark.parametrize("other", [FLIPPED, MOVED, LARGER], ids=["flipped", "moved", "larger"])
def test_forms_that_disagree_are_refused_or_chosen(tmp_path: Path, other: np.ndarray) -> None:
    path = saved(tmp_path / "a.nii", sform=other, qform=LPS)
    with pytest.raises(DataError, match=r"qform and the sform of .* disagree.*orientation='sform' or"):
        read_nifti(path)
    assert read_nifti(path, orientation="qform").spacing == pytest.approx((1, 2, 3.5))
    np.testing.assert_allclose(
        read_nifti(path, orientation="sform").affine @ [0, 0, 0, 1],
        nibabel.as_closest_canonical(nibabel.Nifti1Image(VALUES, other)).affine[:, 3],
        atol=1e-5,
    )


def test_a_form_that_is_not_there_cannot_be_chosen(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"has no qform \(qform_code is 0\); its header gives sform"):
        read_nifti(saved(tmp_path / "a.nii", LPS), orientation="qform")


@pytest.mark.parametrize("size", [0.0, -1.0, np.nan, np.inf])
def test_voxel_sizes_that_are_none(tmp_path: Path, size: float) -> None:
    """nibabel would take 1 mm."""
    path = patched(saved(tmp_path / "a.nii", qform=LPS), PIXDIM + 4, np.float32(size).tobytes())
    with pytest.raises(DataError, match=r"voxel sizes in the header.*Correct pixdim"):
        read_nifti(path)


@pytest.mark.parametrize("number", [0.0, np.nan], ids=["zero", "NaN"])
def test_a_broken_sform(tmp_path: Path, number: float) -> None:
    path = patched(saved(tmp_path / "a.nii", LPS), 280, np.full(12, number, np.float32).tobytes())
    with pytest.raises(DataError, match=r"singular|NaN or infinity"):
        read_nifti(path)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (VALUES[0], r"shape \(3, 4\); a volume has 3 axes"),
        (np.stack([VALUES, VALUES], -1), r"shape \(2, 3, 4, 2\); a volume has 3 axes. Write one time point"),
        (np.stack([VALUES] * 3, -1)[..., None, :], r"shape \(2, 3, 4, 1, 3\)"),
        (np.zeros((2, 3, 4), [("R", "u1"), ("G", "u1"), ("B", "u1")]), "colours in each voxel"),
        (VALUES.astype(np.complex64), "complex64 in each voxel"),
    ],
    ids=["2-D", "4-D", "5-D", "RGB", "complex"],
)
def test_what_is_no_volume(tmp_path: Path, values: np.ndarray, message: str) -> None:
    with pytest.raises(DataError, match=message):
        read_nifti(saved(tmp_path / "a.nii", LPS, values=values))


def test_a_single_time_point_is_a_volume(tmp_path: Path) -> None:
    path = saved(tmp_path / "a.nii.gz", LPS, values=VALUES[..., None])
    np.testing.assert_array_equal(read_nifti(path).values, VALUES[::-1, ::-1])


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-20])


def cut_behind_the_gzip(path: Path) -> None:
    path.write_bytes(gzip.compress(gzip.decompress(path.read_bytes())[:-20]))


def huge(path: Path) -> None:
    content = bytearray(gzip.decompress(path.read_bytes()))
    content[42:48] = np.array([30000, 30000, 30000], np.int16).tobytes()
    path.write_bytes(gzip.compress(bytes(content)))


def text(path: Path) -> None:
    path.write_text("no volume")


@pytest.mark.parametrize("damage", [cut, cut_behind_the_gzip, huge, text])
def test_a_damaged_file_is_named(tmp_path: Path, damage: Callable[[Path], None]) -> None:
    path = saved(
        tmp_path / "scan.nii.gz", LPS, values=np.random.default_rng(0).integers(0, 99, (9, 9, 9), np.int16)
    )
    damage(path)
    with pytest.raises(DataError, match=r"scan\.nii\.gz'.*Is the file complete\? Copy it again"):
        read_nifti(path)


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize("path", ["nowhere.nii", None, 3, "."])
def test_no_file(path: Any) -> None:
    with pytest.raises(DataError, match=r"no file|cannot be read"):
        read_nifti(path)


def test_a_format_that_need_not_say_its_orientation(tmp_path: Path) -> None:
    nibabel.save(nibabel.MGHImage(VALUES.astype(np.float32), LPS), tmp_path / "a.mgz")
    with pytest.raises(DataError, match="is a MGHImage, not NIfTI"):
        read_nifti(tmp_path / "a.mgz")
