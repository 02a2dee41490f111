"""The balanced questions as bundled: pairs, certainty of absence, and no leak between splits."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from interp.data import Samples, bundled
from interp.data.readers.bundled import MEDICAL

SPLITS = ("train", "validation", "test")
BODY = {"ct-torso", "ct-chest", "ct-abdomen", "mr-abdomen"}
PELVIC = ("bladder", "prostate", "sacrum", "femur", "gluteus maximus", "gluteus medius", "hip bone")


@pytest.fixture(scope="module")
def balanced() -> dict[str, Samples]:
    return {split: bundled("balanced", split) for split in SPLITS}


def rows(samples: Samples, word: str) -> list:
    return [s for s in samples if s.question.startswith(word)]


def stem(sample: object) -> str:
    return Path(str(sample.image)).stem  # type: ignore[attr-defined]


def test_every_modality_and_question_is_half_and_half(balanced: dict[str, Samples]) -> None:
    for split in ("test", "validation"):
        answers = defaultdict(Counter)
        for sample in balanced[split]:
            answers[sample.meta["modality"], sample.question.split()[0]][sample.answer] += 1
        for counts in answers.values():
            assert len(counts) == 2
            assert len(set(counts.values())) == 1
    asked = {s.question.split()[0] for s in balanced["test"] if s.meta["modality"] == "microscopy"}
    assert asked == {"Which", "What", "Is"}
    assert len(rows(balanced["test"], "Which")) >= 100
    assert len(rows(balanced["test"], "What")) >= 40


def in_field(sample: object) -> tuple[float, ...]:
    """The sample's box in pixels of the whole field: tiles are named by where they were cut."""
    _, _, _, y, x = stem(sample).split("-")
    (box,) = sample.boxes  # type: ignore[attr-defined]
    return box.x0 + int(x), box.y0 + int(y), box.x1 + int(x), box.y1 + int(y)


@pytest.mark.parametrize(("word", "answers"), [("Which", {"left", "right"}), ("What", {"large", "small"})])
def test_each_nucleus_is_asked_about_once_with_either_answer(
    balanced: dict[str, Samples], word: str, answers: set[str]
) -> None:
    of_nucleus = defaultdict(list)
    for sample in rows(balanced["test"], word):
        of_nucleus[in_field(sample)].append(sample.answer)
    assert all(sorted(said) == sorted(answers) for said in of_nucleus.values())


def test_answers_follow_from_the_boxes(balanced: dict[str, Samples]) -> None:
    for sample in (*rows(balanced["test"], "Which"), *rows(balanced["test"], "What")):
        width, height = sample.meta["size"]
        (box,) = sample.boxes
        assert sample.answer in {
            "left" if box.x0 + box.x1 < width else "right",
            "large" if box.area > 0.06 * width * height else "small",
        }


@pytest.mark.slow
def test_the_splits_keep_their_volumes_apart(balanced: dict[str, Samples]) -> None:
    plain = {split: bundled("medical", split) for split in SPLITS}
    volumes = {s: {x.group for x in (*plain[s], *balanced[s])} for s in SPLITS}
    assert not volumes["test"] & (volumes["train"] | volumes["validation"])
    images = {s: {stem(x) for x in (*plain[s], *balanced[s])} for s in SPLITS}
    assert not images["train"] & images["validation"]
    pictures = {s: {x.load().tobytes() for x in balanced[s]} for s in SPLITS}
    assert not pictures["test"] & (pictures["train"] | pictures["validation"])
    assert not pictures["train"] & pictures["validation"]
    ids = [i for s in SPLITS for i in (*plain[s].sample_ids, *balanced[s].sample_ids)]
    assert len(set(ids)) == len(ids)


def test_training_tiles_stay_out_of_the_validation_quadrant(balanced: dict[str, Samples]) -> None:
    tiles = [stem(s).split("-") for s in balanced["train"] if len(stem(s).split("-")) == 6]
    assert len(tiles) >= 40
    for _, _, _, side, y, x in tiles:
        assert int(x) + int(side) <= 128 or int(y) + int(side) <= 128


def test_what_is_absent_has_no_box_and_is_marked_nowhere_near(balanced: dict[str, Samples]) -> None:
    """Other rows of the slice never show it; of its own volume, no row within 12 mm does."""
    spacing = {"ct-torso": 3.0, "ct-abdomen": 2.0, "mr-abdomen": 3.0}
    shown = defaultdict(set)
    for sample in (s for split in SPLITS for s in bundled("medical", split) if s.boxes):
        shown[sample.group, sample.meta["label"]].add(stem(sample))
    for split in SPLITS:
        for sample in rows(balanced[split], "Is"):
            assert bool(sample.boxes) == (sample.answer == "yes")
            seen = shown[sample.group, sample.meta["label"]]
            if sample.answer == "yes" or not seen or "empty" in stem(sample) or sample.group == "nuclei-3d":
                continue
            at = int(stem(sample)[-3:])
            assert min(abs(int(other[-3:]) - at) for other in seen) * spacing[sample.group] > 12


def test_regions_are_absent_where_anatomy_says_so(balanced: dict[str, Samples]) -> None:
    absent = {(s.group, s.meta["label"]) for split in SPLITS for s in balanced[split] if s.answer == "no"}
    for group, label in absent:
        assert group
        if group in BODY - {"ct-torso", "ct-abdomen", "mr-abdomen"}:
            assert "hemisphere" in label or label == "largest nucleus" or label.endswith(PELVIC)
        if group.startswith("mr-") and group not in BODY:
            assert "hemisphere" not in label
            assert label not in {"vertebra", "left back muscle", "right back muscle"}


def test_empty_tiles_are_dark(balanced: dict[str, Samples]) -> None:
    empty = {stem(s): s for s in balanced["test"] if "empty" in stem(s)}
    nuclei = rows(balanced["test"], "Which")
    assert len(empty) >= 10

    def grey(sample: object, inside: bool) -> float:
        picture = np.asarray(Image.open(str(sample.image)), float)  # type: ignore[attr-defined]
        if not inside:
            return float(picture.mean())
        x0, y0, x1, y1 = (round(v) for v in sample.boxes[0].as_tuple())  # type: ignore[attr-defined]
        return float(picture[y0:y1, x0:x1].mean())

    assert max(grey(s, False) for s in empty.values()) < min(grey(s, True) for s in nuclei)


def test_train_adds_absence_only_and_keeps_plain_rows(
    balanced: dict[str, Samples],
) -> None:
    assert {s.answer for s in balanced["train"]} == {"no"}
    plain = [json.loads(line) for line in (MEDICAL / "samples.jsonl").read_text().splitlines()]
    assert len(plain) == 3175  # the first two training stages drew from exactly these
    assert not any("empty" in row["image"] for row in plain)


def test_the_counts_are_the_published_ones(balanced: dict[str, Samples]) -> None:
    text = (MEDICAL / "SOURCES.md").read_text().split("Balanced questions")[-1]
    for split, samples in balanced.items():
        for group in {s.group for s in samples}:
            mine = [s for s in samples if s.group == group]
            slices, modality = len({stem(s) for s in mine}), mine[0].meta["modality"]
            assert f"| {split} | {modality} | {group} | {slices} | {len(mine)} |" in text
