"""The builder script on a small synthetic scan: no download."""

from __future__ import annotations

import hashlib
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from interp.data.volumes import Volume, to_ras
from studies.medical_data import build as script
from studies.medical_data import readers

HELD = {"samples": "bd1e5c2aea3294ce", "balanced": "846521d1853ece4e", "pictures": "8d4016c3fe5c8cf3"}


@pytest.fixture
def scan() -> tuple[Volume, Volume]:
    """A body of water, a bright organ (1) at the patient's right, a scattered one (2); stored as LPS."""
    values, labels = np.full((60, 50, 40), -1000.0), np.zeros((60, 50, 40), int)
    values[5:55, 5:45] = 0  # x runs to the patient's left, y to the back
    labels[10:22, 20:32, 10:30] = 1
    labels[40:44, 10:14, 10:30] = labels[48:52, 30:34, 10:30] = 2
    values[labels == 1] = 200
    affine = np.diag([-1.0, -1.0, 4.0, 1.0])
    return to_ras(values, affine), to_ras(labels, affine)


def test_class_names_become_plain_words() -> None:
    plain = readers.plain
    names = ("kidney_left", "lung_upper_lobe_right", "vertebrae_L3", "urinary_bladder", "autochthon_left",
             "rib_left_4", "iliac_vena_right", "small_bowel", "heart_atrium_left")  # fmt: skip
    assert [plain(name) for name in names] == [
        "left kidney", "right lung", "vertebra", "bladder", "left back muscle",
        None, None, "small bowel", "left heart atrium",
    ]  # fmt: skip


def test_validation_is_a_block_with_a_gap() -> None:
    train = readers.Source("ct", "CT", "p: f", "l", "model", "train")
    splits = [readers.split_of(train, at, 100, 4) for at in range(100)]
    assert set(splits[50:60]) == {"validation"}
    assert set(splits[46:50] + splits[60:64]) == {None}
    assert set(splits[:46] + splits[64:]) == {"train"}
    test = readers.Source("ct", "CT", "p: f", "l", "model", "test")
    assert {readers.split_of(test, at, 100, 4) for at in range(100)} == {"test"}


def build(scan: tuple[Volume, Volume], split: str, out: Path) -> list:
    """The rows of the synthetic scan, its dropped structures under `why`."""
    (out / "images").mkdir(exist_ok=True)
    source = readers.Source("toy", "CT", "toy 1: scan", "CC0", "model", split)
    names = {1: "liver", 2: "rib cage"}
    items = list(readers.slices(source, *scan, names, (-160.0, 240.0)))
    build.why = Counter()  # type: ignore[attr-defined]
    return script.build_source(source, items, Counter(), build.why, out)  # type: ignore[attr-defined]


def test_boxes_match_the_bright_organ_in_the_written_picture(
    scan: tuple[Volume, Volume], tmp_path: Path
) -> None:
    rows = build(scan, "test", tmp_path)
    assert len({row["image"] for row in rows}) == 20
    for row in rows:
        assert row["label"] == "liver"
        bright = np.asarray(Image.open(tmp_path / row["image"])) > 200
        ys, xs = np.nonzero(bright)
        assert row["boxes"] == [[xs.min(), ys.min(), xs.max() + 1, ys.max() + 1]]
        assert row["size"] == [bright.shape[1], bright.shape[0]]
        assert row["answer"] == {"Which": "left", "What": "small", "Is": "yes"}[row["question"].split()[0]]
    assert build.why == {"components": 20}  # type: ignore[attr-defined]


def test_only_train_asks_for_what_is_not_there(scan: tuple[Volume, Volume], tmp_path: Path) -> None:
    image, labels = scan
    gone = labels.values.copy()
    gone[:, :, 10:12] = np.where(gone[:, :, 10:12] == 2, 0, gone[:, :, 10:12])
    changed = image, Volume(gone, labels.affine)
    rows = build(changed, "train", tmp_path)
    absent = {(row["image"][-7:-4], row["label"]) for row in rows if row["answer"] == "no"}
    assert absent == {("010", "rib cage"), ("011", "rib cage")}
    assert all(row["boxes"] == [] for row in rows if row["answer"] == "no")
    assert not any(row["answer"] == "no" for row in build(changed, "test", tmp_path))


def test_the_largest_nucleus_must_be_whole_and_stand_out() -> None:
    pick = readers.largest_nucleus
    marks = np.zeros((20, 20), int)
    marks[2:12, 2:12], marks[14:20, 5:17] = 4, 9  # 100 against 72 pixels
    image = marks.astype(np.uint8)
    seen: set[int] = set()
    found = pick(image, marks, seen)
    assert dict(found.names) == {4: "largest nucleus"}
    assert pick(image, marks, seen) is None  # each nucleus once
    marks[13, 5:17] = 9  # 84: the margin of 1.3 is gone
    assert pick(image, marks, set()) is None
    assert pick(image, np.roll(marks, -2, axis=0), set()) is None  # touches the edge
    assert pick(image, marks * 0, set()) is None


def test_a_changed_archive_is_refused(tmp_path: Path) -> None:
    archive = tmp_path / "totalsegmentator/archive/totalsegmentator-2.18.0.tar.gz"
    archive.parent.mkdir(parents=True)
    archive.write_bytes(b"something else")
    with pytest.raises(SystemExit, match=r"has sha256 .* this script was written for 5d4223ef"):
        script.fetch(tmp_path)


def test_a_small_set_has_its_bytes(scan: tuple[Volume, Volume], tmp_path: Path) -> None:
    """Rows byte for byte, pictures pixel for pixel: another zlib packs the same pixels into other bytes."""

    def read(source: readers.Source, work: Path) -> Any:
        head = {1: "left hemisphere", 2: "right hemisphere"}
        names = head if source.key == "mr-head" else {1: "liver", 2: "rib cage"}
        return readers.slices(source, *scan, names, (-160.0, 240.0), step=3)

    sources = [
        (readers.Source("ct-torso", "CT", "toy 1: train", "CC0", "model", "train"), read),
        (readers.Source("ct-abdomen", "CT", "toy 1: test", "CC0", "model", "test"), read),
        (readers.Source("mr-head", "MR", "toy 1: head", "CC0", "derived", "test"), read),
    ]
    told = script.build_set(sources, tmp_path / "work", tmp_path / "out")
    assert "| ct-abdomen | 6 | 0 | 0 |" in told
    held = {}
    for name in ("samples", "balanced"):
        held[name] = hashlib.sha256((tmp_path / f"out/{name}.jsonl").read_bytes()).hexdigest()[:16]
    pixels = hashlib.sha256()
    pictures = sorted((tmp_path / "out/images").iterdir())
    for picture in pictures:
        pixels.update(picture.name.encode() + Image.open(picture).tobytes())
    held["pictures"] = pixels.hexdigest()[:16]
    assert held == HELD
