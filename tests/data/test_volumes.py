from __future__ import annotations

import gzip
import importlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
import SimpleITK
from nibabel.orientations import axcodes2ornt, inv_ornt_aff, ornt_transform

from interp.data.volumes import Volume, display, read_nifti, resample_nearest, to_ras
from interp.errors import DataError
from tests.data.volume_files import NIFTI_VALUES as VALUES
from tests.data.volume_files import saved

SPACING = (1.0, 2.0, 3.5)


def ras() -> tuple[np.ndarray, np.ndarray]:
    """A volume of distinct numbers in RAS, with its affine."""
    affine = np.diag([*SPACING, 1.0])
    affine[:3, 3] = (-20, 7, 100)
    return np.arange(4 * 5 * 6).reshape(4, 5, 6), affine


def stored_as(codes: str) -> tuple[np.ndarray, np.ndarray]:
    """The same volume as a file in another axis order would hold it, by nibabel."""
    values, affine = ras()
    turn = ornt_transform(axcodes2ornt("RAS"), axcodes2ornt(codes))
    turned = nibabel.orientations.apply_orientation(values, turn)
    return turned, affine @ inv_ornt_aff(turn, values.shape)


@pytest.mark.parametrize("codes", ["RAS", "LAS", "LPS", "LIA", "PIR", "SAR", "ILP"])
def test_every_orientation_comes_back_to_ras(codes: str) -> None:
    values, affine = ras()
    volume = to_ras(*stored_as(codes))
    np.testing.assert_array_equal(volume.values, values)
    np.testing.assert_allclose(volume.affine, affine)
    assert volume.spacing == pytest.approx(SPACING)


def test_a_tilted_volume_goes_to_the_nearest_axes_as_in_nibabel() -> None:
    values, affine = stored_as("LIA")
    turn = np.eye(4)
    c, s = np.cos(0.3), np.sin(0.3)
    turn[:3, :3] = [[c, -s, 0], [s, c, 0], [0, 0, 1]]
    expected = nibabel.as_closest_canonical(nibabel.Nifti1Image(values.astype(np.int16), turn @ affine))
    volume = to_ras(values, turn @ affine)
    np.testing.assert_array_equal(volume.values, np.asanyarray(expected.dataobj))
    np.testing.assert_allclose(volume.affine, expected.affine, atol=1e-4)


def test_volumes_that_cannot_be_oriented() -> None:
    with pytest.raises(DataError, match=r"needs 3 axes; got shape \(2, 2\)"):
        to_ras(np.zeros((2, 2)), np.eye(4))
    with pytest.raises(DataError, match=r"needs 3 axes; got shape \(2, 0, 2\)"):
        to_ras(np.zeros((2, 0, 2)), np.eye(4))
    with pytest.raises(DataError, match="one real number in each voxel; got complex128"):
        to_ras(np.zeros((2, 2, 2), complex), np.eye(4))


@pytest.mark.parametrize(
    "affine",
    [
        np.zeros((4, 4)),
        np.diag([1, 0, 1, 1]),
        np.full((4, 4), np.nan),
        [[1, 1, 0, 0], [1, 1, 0, 0], *np.eye(4)[2:]],
    ],
    ids=["zero", "flat", "NaN", "two axes that point the same way"],
)
def test_an_affine_that_orients_nothing(affine: Any) -> None:
    with pytest.raises(DataError, match="affine is singular"):
        to_ras(np.zeros((2, 2, 2)), np.asarray(affine, float))


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize("affine", [np.eye(3), None, "RAS"], ids=["3 × 3", "None", "text"])
def test_an_affine_that_is_none(affine: Any) -> None:
    with pytest.raises(DataError, match="an affine is a 4 × 4 array of numbers"):
        to_ras(np.zeros((2, 2, 2)), affine)


def test_small_voxels_are_not_singular() -> None:
    """A microscope's, of a tenth of a micrometre."""
    assert to_ras(np.zeros((2, 2, 2)), np.diag([1e-4, 1e-4, 1e-4, 1])).spacing == pytest.approx((1e-4,) * 3)


@pytest.mark.parametrize("codes", ["RAS", "LPS", "LIA"])
def test_radiological_display(codes: str) -> None:
    """One voxel at the patient's right, front and top lies at the top left, whatever the file's axes."""
    values, affine = ras()
    marked = np.zeros_like(values)
    marked[-1, -1, -1] = 1  # most right, anterior and superior
    turn = ornt_transform(axcodes2ornt("RAS"), axcodes2ornt(codes))
    file = nibabel.orientations.apply_orientation(marked, turn)
    volume = to_ras(file, affine @ inv_ornt_aff(turn, marked.shape))
    for plane, index, shape, spacing in (
        ("axial", 5, (5, 4), (2.0, 1.0)),
        ("coronal", 4, (6, 4), (3.5, 1.0)),
        ("sagittal", 3, (6, 5), (3.5, 2.0)),
    ):
        picture, found = display(volume, plane, index)
        assert picture.shape == shape
        assert found == pytest.approx(spacing)
        assert np.argwhere(picture).tolist() == [[0, 0]]


def test_display_refuses_an_unknown_plane() -> None:
    with pytest.raises(DataError, match="no plane 'oblique'; choose one of"):
        display(Volume(*ras()), "oblique", 0)


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize("index", [6, -1, 1.0, True, "0"])
def test_display_refuses_a_slice_that_is_not_there(index: Any) -> None:
    with pytest.raises(DataError, match="one of the 6 axial slices, from 0 on; got"):
        display(Volume(*ras()), "axial", index)


def itk(volume: Volume) -> Any:
    """The volume as SimpleITK holds it (LPS millimetres)."""
    image = SimpleITK.GetImageFromArray(np.ascontiguousarray(volume.values.T))
    lps = np.diag([-1.0, -1.0, 1.0, 1.0]) @ volume.affine
    image.SetSpacing(volume.spacing)
    image.SetDirection((lps[:3, :3] / np.array(volume.spacing)).ravel().tolist())
    image.SetOrigin(lps[:3, 3].tolist())
    return image


def test_labels_on_another_grid_are_resampled_nearest() -> None:
    rng = np.random.default_rng(0)
    coarse = np.diag([3.0, 3.0, 4.0, 1.0])
    coarse[:3, 3] = (1.3, -2.1, 0.4)
    labels = to_ras(rng.integers(0, 9, (6, 7, 5), dtype=np.int16)[::-1], coarse @ np.diag([-1.0, 1, 1, 1]))
    fine = np.diag([0.9, 1.1, 1.7, 1.0])
    fine[:3, 3] = (-25.2, -5.1, -3.3)
    onto = Volume(np.zeros((40, 25, 17)), fine)
    found = resample_nearest(labels, onto)
    expected = SimpleITK.Resample(
        itk(labels), itk(onto), SimpleITK.Transform(), SimpleITK.sitkNearestNeighbor, 0
    )
    expected = SimpleITK.GetArrayFromImage(expected).T
    assert expected.any()
    np.testing.assert_array_equal(found.values, expected)
    np.testing.assert_array_equal(found.affine, fine)


def test_labels_on_the_same_grid_are_left_alone() -> None:
    labels = Volume(*ras())
    assert resample_nearest(labels, Volume(labels.values * 0, labels.affine)) is labels


def test_labels_of_the_same_shape_at_another_place_are_moved() -> None:
    labels = Volume(*ras())
    moved = labels.affine.copy()
    moved[0, 3] += SPACING[0]  # the grid begins one voxel further right
    found = resample_nearest(labels, Volume(labels.values, moved))
    np.testing.assert_array_equal(found.values[:-1], labels.values[1:])
    assert not found.values[-1].any()


def test_a_missing_reader_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(name: str) -> None:
        raise ImportError(name)

    monkeypatch.setattr(importlib, "import_module", absent)
    with pytest.raises(DataError, match=r"needs nibabel; install it.* pip install 'interp\[data\]'"):
        read_nifti("scan.nii.gz")


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


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_forms_that_differ_by_a_twelfth_of_a_voxel_agree(tmp_path: Path, axis: int) -> None:
    """A tenth of the smallest voxel, 0.1 mm, is the most between the places of a corner."""
    side = VALUES.shape[axis] * (1, 2, 3.5)[axis]
    scale = np.ones(4)
    scale[axis] += 0.08 / side
    assert (
        read_nifti(saved(tmp_path / "a.nii", sform=LPS @ np.diag(scale), qform=LPS)).values.shape
        == VALUES.shape
    )
    scale[axis] += 0.04 / side
    with pytest.raises(DataError, match=r"a corner of the volume 0\.12 mm apart"):
        read_nifti(saved(tmp_path / "b.nii", sform=LPS @ np.diag(scale), qform=LPS))


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
