from __future__ import annotations

import importlib
from typing import Any

import nibabel
import numpy as np
import pytest
import SimpleITK
from nibabel.orientations import axcodes2ornt, inv_ornt_aff, ornt_transform

from interp.data.volumes import Volume, display, read_nifti, resample_nearest, to_ras
from interp.errors import DataError

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


def test_a_missing_reader_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(name: str) -> None:
        raise ImportError(name)

    monkeypatch.setattr(importlib, "import_module", absent)
    with pytest.raises(DataError, match=r"needs nibabel; install it.* pip install 'interp\[data\]'"):
        read_nifti("scan.nii.gz")
