from __future__ import annotations

import pickle
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from interp.data import medsam
from interp.errors import DataError
from tests.data.source_files import HEIGHT, WIDTH, marked, medsam_file


def test_slices_and_labels(tmp_path: Path) -> None:
    path = medsam_file(tmp_path / "CT_Abd_FLARE22_Tr_0001.npz")
    samples = medsam(path, {1: "liver"})
    (liver,) = samples
    assert [box.as_tuple() for box in liver.boxes] == [(2, 2, 8, 8), (20, 4, 30, 12)]
    assert (liver.question, liver.group) == ("Is the liver visible?", "CT_Abd_FLARE22_Tr_0001")
    assert (liver.meta["slice"], liver.meta["modality"]) == (1, "CT")
    assert (liver.sizes, np.asarray(liver.load()).max()) == (((WIDTH, HEIGHT),), 50)
    assert samples.skipped == {"pieces of a mask under 4 pixels": 1, "labels without a name": 1}
    assert pickle.loads(pickle.dumps(liver)).fingerprint == liver.fingerprint
    assert [sample.meta["label"] for sample in medsam(path)] == ["label 1", "label 5"]


def test_a_folder_of_files_and_one_picture_in_colour(tmp_path: Path) -> None:
    medsam_file(tmp_path / "MR_a.npz")
    medsam_file(
        tmp_path / "b.npz", imgs=np.full((HEIGHT, WIDTH, 3), (9, 8, 7), np.uint8), gts=marked((1, 1, 5, 5))
    )
    samples = medsam(tmp_path, {1: "heart"})
    assert [sample.meta["modality"] for sample in samples] == ["MR", None]
    assert samples[1].load().getpixel((0, 0)) == (9, 8, 7)


@pytest.mark.parametrize(
    ("stem", "modality"),
    [("CT_a", "CT"), ("mr_a", "MR"), ("US_a", "ultrasound"), ("X-Ray_1", "X-ray"), ("XRay_1", "X-ray"),
     ("PET_b", "PET"), ("CTA_b", None)],
)  # fmt: skip
def test_the_modality_is_the_beginning_of_the_name(tmp_path: Path, stem: str, modality: str | None) -> None:
    path = medsam_file(tmp_path / f"{stem}.npz")
    found = medsam(path)
    assert {one.meta["modality"] for one in found} == {modality}
    assert [one.id for one in found] == [f"{stem}:1:label 1", f"{stem}:2:label 5"]
    assert found.name == stem
    assert medsam(path, name="mine", modality="OCT")[0].meta["modality"] == "OCT"
    assert medsam(path, name="mine").name == "mine"


def test_a_file_that_was_written_anew_is_read_anew(tmp_path: Path) -> None:
    first = medsam(medsam_file(tmp_path / "CT_a.npz"))[0]
    assert first.load().getpixel((0, 0)) == (50, 50, 50)
    again = medsam(medsam_file(tmp_path / "CT_a.npz", imgs=np.full((3, HEIGHT, WIDTH), 7, np.uint8)))[0]
    assert again.load().getpixel((0, 0)) == (7, 7, 7)


def test_labels_of_one_name_keep_the_boxes_of_all(tmp_path: Path) -> None:
    labels = marked((2, 2, 8, 8)) + marked((20, 4, 30, 12), inside=5)
    pictures = np.zeros((HEIGHT, WIDTH), np.uint8)
    (sample,) = medsam(medsam_file(tmp_path / "a.npz", imgs=pictures, gts=labels), {1: "lung", 5: "lung"})
    assert [box.as_tuple() for box in sample.boxes] == [(2, 2, 8, 8), (20, 4, 30, 12)]


def test_pickles_are_refused(tmp_path: Path) -> None:
    objects = np.array([{"a": 1}], dtype=object)
    with pytest.raises(DataError, match=r"a\.npz: gts holds Python objects \(a pickle\)"):
        medsam(medsam_file(tmp_path / "a.npz", gts=objects))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"gts": np.zeros((2, 2), np.uint8)}, r"a\.npz: expected imgs of uint8 and gts of whole numbers"),
        ({"imgs": np.zeros((3, HEIGHT, WIDTH))}, r"a\.npz: expected imgs of uint8 .* got imgs float64"),
        ({"gts": np.zeros((3, HEIGHT, WIDTH))}, "gts float64"),
        ({"gts": np.zeros((2, HEIGHT, WIDTH), np.uint8)}, r"expected imgs of uint8 and gts of whole numbers"),
        ({"imgs": np.zeros((3, HEIGHT, WIDTH, 4), np.uint8)}, r"got imgs uint8 \(3, 20, 40, 4\)"),
        ({"gts": np.zeros(3, np.uint8)}, r"gts uint8 \(3,\)"),
    ],
)
def test_arrays_that_do_not_fit_are_named(tmp_path: Path, changes: Any, message: str) -> None:
    with pytest.raises(DataError, match=message):
        medsam(medsam_file(tmp_path / "a.npz", **changes))


def test_damaged_and_missing_files(tmp_path: Path) -> None:
    path = medsam_file(tmp_path / "a.npz")
    path.write_bytes(path.read_bytes()[:300])
    with pytest.raises(DataError, match=r"a\.npz is no \.npz file of arrays"):
        medsam(path)
    np.savez(path, other=np.zeros(3))
    with pytest.raises(DataError, match="has no array 'gts'"):
        medsam(path)
    with pytest.raises(DataError, match=r"no .npz files in"):
        medsam(tmp_path / "..")
    with zipfile.ZipFile(path, "w") as packed, packed.open("gts.npy", "w") as file:
        np.lib.format.write_array_header_1_0(
            file, {"descr": "|u1", "fortran_order": False, "shape": (10**6, 10**6)}
        )
    with pytest.raises(DataError, match=r"gts of shape .* has more than"):
        medsam(path)
    with pytest.raises(DataError, match="names maps the values of the label map"):
        medsam(path, {0: "background"})
    with pytest.raises(DataError, match=r"nowhere\.npz cannot be read: it does not exist"):
        medsam(tmp_path / "nowhere.npz")


def test_files_of_a_folder_come_in_order_with_own_groups(tmp_path: Path) -> None:
    for name in ("MR_b", "CT_a"):
        medsam_file(tmp_path / f"{name}.npz")
    found = medsam(tmp_path, {1: "liver"})
    assert [(one.group, one.meta["modality"]) for one in found] == [("CT_a", "CT"), ("MR_b", "MR")]
    assert found.name == tmp_path.stem
    (tmp_path / "MR_b.npz").write_bytes(b"no")
    assert [one.is_usable for one in medsam(tmp_path, {1: "liver"}, bad_rows="record")] == [True, False]
