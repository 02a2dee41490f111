from __future__ import annotations

import pickle
from functools import partial
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest

from interp.data import Samples, dicom, nifti
from interp.data.volume_slices import Slices
from interp.errors import DataError
from tests.data.volume_files import NAMES, RAS, SHAPE, a_slice, marked_pair, marks, saved_volume


def test_slices_are_shown_as_radiologists_see_them(tmp_path: Path) -> None:
    samples = nifti(*marked_pair(tmp_path), NAMES, modality="CT")
    told = [(sample.meta["slice"], sample.meta["label"]) for sample in samples]
    assert told == [(1, "liver"), (2, "liver"), (2, "tumor")]
    # x 12..17 of 20 is on the patient's right-to-left axis: RAS x grows to the right, shown flipped; y 3..8 of 16 too
    assert [box.as_tuple() for box in samples[0].boxes] == [(2, 7, 8, 13)]
    assert samples[2].boxes[0].as_tuple() == (15, 2, 18, 6)
    assert samples[0].sizes == ((20, 16),)
    assert (samples.name, samples[0].group, samples[0].meta["modality"]) == ("scan_1", "scan_1", "CT")
    assert samples.skipped == {"pieces of a mask under 4 pixels": 1}
    assert samples[0].load().size == (20, 16)


def test_pixels_of_a_slice_become_square(tmp_path: Path) -> None:
    samples = nifti(*marked_pair(tmp_path), NAMES, plane="coronal", slices=[5], least=1)
    (liver,) = samples
    assert liver.sizes == ((20, 12),)  # 4 slices of 3 mm
    assert liver.load().size == (20, 12)
    assert [box.as_tuple() for box in liver.boxes] == [(1, 3, 9, 9)]
    assert liver.meta["pixel_mm"] == 1.0
    (small,) = nifti(*marked_pair(tmp_path), NAMES, plane="coronal", slices=[5], least=1, longest=10)
    assert small.sizes == ((10, 6),)
    assert small.boxes[0].as_tuple() == (0.5, 1.5, 4.5, 4.5)


def test_the_largest_slice_of_each_label(tmp_path: Path) -> None:
    samples = nifti(
        *marked_pair(tmp_path), NAMES, slices="largest", question="Where is {a} {label}?", answer=None
    )
    assert [(sample.meta["slice"], sample.question) for sample in samples] == [
        (2, "Where is a liver?"),
        (2, "Where is a tumor?"),
    ]
    assert samples[0].answer is None


def test_labels_on_another_grid_lie_at_the_same_millimetres(tmp_path: Path) -> None:
    image, labels = marked_pair(tmp_path)
    own = nifti(image, labels, NAMES)
    turned = saved_volume(
        tmp_path / "lps.nii.gz",
        marks()[::-1, ::-1],
        RAS @ np.array([[-1, 0, 0, 19], [0, -1, 0, 15], [0, 0, 1, 0], [0, 0, 0, 1.0]]),
    )
    again = nifti(image, turned, NAMES)
    assert [sample.boxes for sample in again] == [sample.boxes for sample in own]


def test_the_orientation_is_that_of_both_files(tmp_path: Path) -> None:
    """Of two files whose headers do not say where their axes point."""
    own = nifti(*marked_pair(tmp_path), NAMES)
    (tmp_path / "bare").mkdir()
    pair = (tmp_path / "bare/scan_1.nii", tmp_path / "bare/labels.nii")
    for path, file in zip(pair, (tmp_path / "scan_1.nii.gz", tmp_path / "labels.nii.gz"), strict=True):
        image: Any = nibabel.Nifti1Image(np.asanyarray(nibabel.load(file).dataobj)[::-1], None)  # pyright: ignore
        image.header.set_zooms((1, 1, 3))
        nibabel.save(image, path)
    again = nifti(*pair, NAMES, orientation="LAS")
    assert [(one.meta, one.boxes) for one in again] == [(one.meta, one.boxes) for one in own]
    assert np.array_equal(np.asarray(again[0].load()), np.asarray(own[0].load()))


def test_grey_values_and_pickled_samples(tmp_path: Path) -> None:
    first = nifti(*marked_pair(tmp_path), NAMES, grey=(0, 10))[0]
    assert sorted(set(np.asarray(first.load()).ravel().tolist())) == [
        26,
        128,
        230,
        255,
    ]  # 1, 5, 9 and more of 10
    copied = pickle.loads(pickle.dumps(first))
    assert copied.fingerprint == first.fingerprint
    assert len(pickle.dumps(first)) < 5000
    soft = nifti(*marked_pair(tmp_path), NAMES, grey="soft tissue")[0]
    assert soft.fingerprint != first.fingerprint


def test_labels_without_names_are_counted(tmp_path: Path) -> None:
    samples = nifti(*marked_pair(tmp_path), {2: "tumor"})
    assert ({sample.meta["label"] for sample in samples}, samples.skipped) == (
        {"tumor"},
        {"labels without a name": 1},
    )
    assert {sample.meta["label"] for sample in nifti(*marked_pair(tmp_path))} == {"label 1", "label 2"}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"plane": "oblique"}, "plane is 'axial' or"),
        ({"slices": "some"}, "slices is 'all', 'largest' or a list of numbers"),
        ({"slices": [4]}, "a slice's number is a whole number of at least 0 and at most 3; got 4"),
        ({"grey": "brain"}, "grey is .low, high. in the volume's unit"),
        ({"names": {}}, "names maps the values of the label map"),
        ({"names": {9: "x"}}, r"labels\.nii\.gz' marks nothing in .*scan_1"),
        ({"least": 0}, "least is a whole number of at least 1"),
    ],
)
def test_options_are_checked(tmp_path: Path, options: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=message):
        nifti(*marked_pair(tmp_path), **{"names": NAMES, **options})


def test_what_is_no_label_map_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"labels\.nii\.gz' holds values that are no whole numbers"):
        nifti(*marked_pair(tmp_path, np.full(SHAPE, 0.5, np.float32)))
    with pytest.raises(DataError, match="there is no file"):
        nifti(tmp_path / "scan_1.nii.gz", tmp_path / "none.nii")


def lesions() -> np.ndarray:
    """Two tumors (2): one in slices 1 and 2 that meet at a corner only, one in slice 2, each 3 × 3."""
    values = np.zeros(SHAPE, np.int16)
    values[2:5, 2:5, 1] = 2
    values[5:8, 5:8, 2] = 2
    values[12:15, 9:12, 2] = 2
    return values


def test_each_lesion_is_a_sample_in_each_of_its_slices(tmp_path: Path) -> None:
    samples = nifti(*marked_pair(tmp_path, lesions()), NAMES, lesions=True)
    told = [(one.meta["slice"], one.meta["lesion"], len(one.boxes), one.group) for one in samples]
    assert told == [
        (1, "tumor 1", 1, "scan_1"),
        (2, "tumor 1", 1, "scan_1"),
        (2, "tumor 2", 1, "scan_1"),
    ]
    assert samples[2].boxes[0].as_tuple() == (20 - 15, 16 - 12, 20 - 12, 16 - 9)
    assert len(set(samples.sample_ids)) == 3
    assert {one.meta["label"] for one in samples} == {"tumor"}
    largest = nifti(*marked_pair(tmp_path, lesions()), NAMES, lesions=True, slices="largest")
    assert [(one.meta["slice"], one.meta["lesion"]) for one in largest] == [(1, "tumor 1"), (2, "tumor 2")]
    two_values = lesions()
    two_values[..., 1] //= 2
    both = nifti(*marked_pair(tmp_path, two_values), {1: "x", 2: "x"}, lesions=True)
    assert [one.meta["lesion"] for one in both] == ["x 1", "x 1", "x 2"]


def test_masks_are_cut_when_used_on_the_pictures_grid(tmp_path: Path) -> None:
    samples = nifti(*marked_pair(tmp_path), NAMES, masks=True, plane="coronal", slices=[5], least=2)
    (liver,) = samples
    (mask,) = liver.masks
    assert mask.size == liver.sizes[0] == (20, 12)
    assert not isinstance(mask.values, np.ndarray)
    assert mask.box == liver.boxes[0]
    assert mask.inside.sum() == 3 * (6 + 8)  # rows of 3 mm: 6 voxels in slice 1, 8 in slice 2
    liver.check()
    assert pickle.loads(pickle.dumps(liver)).fingerprint == liver.fingerprint
    speck = nifti(*marked_pair(tmp_path), NAMES, masks=True, slices=[1])[0]
    assert speck.masks[0].inside.sum() == 36  # the speck of one pixel is left out of boxes and mask


def test_lesions_have_masks_of_their_own(tmp_path: Path) -> None:
    samples = nifti(*marked_pair(tmp_path, lesions()), NAMES, lesions=True, masks=True)
    for one in samples:
        assert one.masks[0].inside.sum() == 9
        assert one.masks[0].box == one.boxes[0]
    tiny = nifti(*marked_pair(tmp_path, lesions()), NAMES, masks=True, longest=8)
    assert all(one.masks[0].inside.any() for one in tiny)


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


@pytest.mark.parametrize(
    ("tag", "modality"), [("CT", "CT"), ("MR", "MR"), ("US", "ultrasound"), ("PT", "PET"), ("XA", "XA")]
)
def test_the_modality_and_the_grey_values_follow_the_files(tmp_path: Path, tag: str, modality: str) -> None:
    folder, marks = series(tmp_path / "scan"), labels(tmp_path / "l.nii.gz")
    for z, path in enumerate(sorted(folder.iterdir())):
        file = a_slice(z)
        file.Modality = tag
        file.save_as(path)
    (found,) = dicom(folder, marks)
    assert found.meta["modality"] == modality
    (window,) = dicom(folder, marks, grey="soft tissue" if tag == "CT" else "percentiles")
    assert np.array_equal(np.asarray(found.load()), np.asarray(window.load()))
    (lung,) = dicom(folder, marks, grey="lung")
    assert not np.array_equal(np.asarray(found.load()), np.asarray(lung.load()))
    assert (found.masks, "lesion" in found.meta) == ((), False)


def test_files_of_a_series_and_what_it_is_called(tmp_path: Path) -> None:
    folder, marks = series(tmp_path / "scan"), labels(tmp_path / "l.nii.gz")
    for path, name in zip(sorted(folder.iterdir()), ("a.dcm", "b.DCM", "c.IMA", "d"), strict=True):
        path.rename(folder / name)
    (folder / "notes.txt").write_text("no slice")
    (folder / "more").mkdir()
    (found,) = dicom(folder, marks, name="mine", group="patient 1")
    assert found.meta["slice"] == 2
    assert (found.group, dicom(folder, marks, name="mine").name) == ("patient 1", "mine")
    held = labels(tmp_path / "l.nii.gz")
    small = nibabel.load(held)
    values = np.zeros(small.shape, np.uint8)  # pyright: ignore[reportAttributeAccessIssue]
    values[1:4, 1, 2] = 3  # three pixels
    nibabel.save(nibabel.Nifti1Image(values, small.affine), tmp_path / "s.nii.gz")  # pyright: ignore
    with pytest.raises(DataError, match="marks nothing in"):
        dicom(folder, tmp_path / "s.nii.gz")  # a piece has at least 4 pixels
    values[1:3, 1:3, 2] = 3
    nibabel.save(nibabel.Nifti1Image(values, small.affine), tmp_path / "s.nii.gz")  # pyright: ignore
    assert len(dicom(folder, tmp_path / "s.nii.gz")) == 1


OPTIONS: dict[str, Any] = {
    "plane": "coronal", "slices": [1, 2], "grey": (3.0, 9.0), "least": 2, "longest": 99, "masks": True, "lesions": True,
}  # fmt: skip


@pytest.mark.parametrize("reader", ["nifti", "dicom"])
def test_every_option_reaches_the_slices(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, reader: str
) -> None:
    asked: list[Any] = []

    def made(self: Slices, name: str) -> Samples:
        asked.append(self)
        return Samples([], name)

    monkeypatch.setattr(Slices, "samples", made)
    image, marks = marked_pair(tmp_path)
    read = partial(nifti, image) if reader == "nifti" else partial(dicom, series(tmp_path / "scan"))
    words = {"question": "Where is {a} {label}?", "answer": "there"}
    assert read(marks, NAMES, name="mine", group="one", **words, **OPTIONS).name == "mine"
    (found,) = asked
    assert {name: getattr(found, name) for name in OPTIONS} == OPTIONS
    assert (found.names, found.group) == (NAMES, "one")
    assert (found.asked.question, found.asked.answer) == tuple(words.values())
    assert (found.file.kind, found.labels.kind, found.labels.paths) == (reader, "nifti", (str(marks),))


def test_what_is_no_series_is_told(tmp_path: Path, unchecked: None) -> None:
    with pytest.raises(
        DataError, match="a series is a folder of DICOM files, or a list of all of them; got int"
    ):
        dicom(3, tmp_path)  # type: ignore[arg-type]
    folder, marks = series(tmp_path / "a"), labels(tmp_path / "l.nii.gz")
    with pytest.raises(DataError, match="a series needs at least 2 slices"):
        dicom([folder / "0.dcm"], marks)
    with pytest.raises(DataError, match="is no folder; a series is a folder"):
        dicom(folder / "0.dcm", marks)
    (folder / "0.dcm").write_bytes(b"no")
    with pytest.raises(DataError, match=r"0\.dcm' cannot be read as DICOM"):
        dicom(folder, marks)
