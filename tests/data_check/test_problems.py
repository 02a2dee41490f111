"""Each kind of problem is found where it is planted, and nowhere else."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from interp.data import Samples
from interp.data_check import inspect
from interp.data_check.problems import KINDS
from interp.inputs.sample import Box, Sample

LEVELS = iter(range(10**6))


def sample(**fields: Any) -> Sample:
    """A sample that has no problem, on a picture of its own."""
    level = next(LEVELS)
    picture = np.full((40, 50), level % 251, np.uint8)
    picture[0, 0] = level // 251
    return Sample(
        fields.pop("image", picture),
        **{"question": "?", "boxes": [(5, 5, 25, 25)], "id": f"s{level}", **fields},
    )


def kinds(*samples: Sample) -> dict[str, int]:
    return {kind: len(found) for kind, found in inspect(Samples(samples)).by_kind().items()}


def test_good_samples_have_no_problem() -> None:
    assert kinds(sample(), sample(answer="yes"), sample(boxes=())) == {}


def test_rows_images_and_boxes(tmp_path: Path) -> None:
    assert kinds(sample(), Sample.unusable("line 3: bad", id="x")) == {"bad row": 1}
    assert kinds(sample(image=str(tmp_path / "none.png"))) == {"missing image": 1}
    assert kinds(sample(boxes=[(5, 5, 60, 25)])) == {"box outside": 1}
    assert kinds(sample(boxes=[(5, 5, 25, 25, 1)])) == {"box outside": 1}
    assert kinds(sample(boxes=[(5, 5, 8.9, 25), (5, 5, 25, 8)])) == {"tiny box": 2}
    assert kinds(sample(boxes=[(5, 5, 9, 9)])) == {}


def test_duplicates() -> None:
    one = sample()
    assert kinds(one, one.replace(id="other")) == {"same sample twice": 1}
    assert kinds(one, one.replace(question="other?")) == {"same id twice": 1}


def test_splits_that_share_an_image_or_a_group() -> None:
    train, test = sample(meta={"split": "train"}), sample(meta={"split": "test"})
    assert kinds(train, test) == {}
    assert kinds(train, train.replace(question="?!", id="b", meta={"split": "test"})) == {
        "same image in two splits": 1
    }
    assert kinds(train.replace(group="p1"), test.replace(group="p1")) == {"same group in two splits": 1}
    assert kinds(train.replace(group="p1"), train.replace(group="p1", question="?!", id="b")) == {}
    assert kinds(train, train.replace(question="?!", id="b", meta={})) == {}


def test_one_answer_that_is_nearly_always_right() -> None:
    def answered(n_yes: int, n_no: int) -> dict[str, int]:
        return kinds(*(sample(answer=one) for one in ["Yes"] * n_yes + ["no"] * n_no))

    assert answered(16, 4) == {"unbalanced answers": 1}
    assert answered(15, 5) == {}
    assert answered(19, 0) == {}
    assert kinds(*(sample(answer=one) for one in ("yes", " YES ") * 10)) == {"unbalanced answers": 1}


def test_counts_and_errors() -> None:
    findings = inspect(
        Samples(
            [
                sample(meta={"modality": "CT", "label": "liver"}, answer="yes"),
                sample(boxes=[(5, 5, 60, 25)] * 2),
            ],
            skipped={"crowd regions": 3},
        )
    )
    assert findings.counts["boxes a sample"] == "1 to 2, median 1.5"
    assert findings.counts["image width"] == "50"
    assert findings.counts["box, % of its image"].startswith("20 to 55")
    assert (findings.counts["modality"], findings.counts["left out: crowd regions"]) == ("CT ×1", "3")
    assert findings.n_errors == 1
    with pytest.raises(KeyError):
        findings.counts["splits"]


def test_a_box_is_a_share_of_its_own_image() -> None:
    small, large = np.zeros((40, 50), np.uint8), np.ones((300, 400), np.uint8)
    pair = Sample(images=[small, large], question="?", boxes=[Box(0, 0, 10, 10, image=1)], id="pair")
    findings = inspect(Samples([pair]))
    assert findings.counts["box, % of its image"] == "0.0833"  # 100 of 120,000 pixels
    (tiny,) = findings.problems
    assert "has 10 × 10 pixels, 0.08% of its image" in tiny.text
    assert kinds(pair.replace(boxes=[Box(0, 0, 10, 10)])) == {}
    edge = np.zeros((100, 160), np.uint8)  # 4 × 4 pixels are a thousandth of it
    assert kinds(Sample(edge, "?", boxes=[(0, 0, 4, 4)])) == {}


def test_every_count_of_what_samples_hold() -> None:
    picture = np.zeros((40, 50), np.uint8)
    wide = np.zeros((40, 1200), np.uint8)
    samples = Samples(
        [
            Sample(picture, "one?", [(0, 0, 10, 10), (0, 0, 20, 20)], "yes", ["yes", "no"], "p1",
                   {"split": "train", "modality": "CT"}, id="a"),
            Sample(picture, "two?", [(0, 0, 20, 10)], "no", None, "p1", {"split": "train", "label": "liver"}, id="b"),
            Sample(wide, "three?", (), "yes", None, "p2", {"split": "test", "modality": "MR", "label": "x" * 70},
                   id="c"),
            Sample.unusable("broken", id="d"),
        ]
    )  # fmt: skip
    assert inspect(samples).counts == {
        "samples": "4, of which 1 unreadable",
        "fields read": "image or video, question, boxes (2 of 3), answer, options (1 of 3), group",
        "kept as meta": "split, modality, label",
        "images": "2",
        "groups": "3",
        "splits": "train ×2, test ×1",
        "boxes a sample": "0 to 2, median 1",
        "samples without a box": "1",
        "box, % of its image": "5 to 20, median 10",
        "image width": "50 to 1200, median 50",
        "image height": "40",
        "modality": "CT ×1, MR ×1",
        "labels": f"liver ×1, {'x' * 60} ×1",
        "answers": "yes ×2, no ×1",
        "samples with options": "1",
    }


def test_problems_come_errors_first_and_name_the_first() -> None:
    errors = {"bad row", "missing image", "box outside", "same image in two splits"}
    assert {kind for kind, (is_error, _) in KINDS.items() if is_error} == errors
    assert list(KINDS)[: len(errors)] == [kind for kind in KINDS if kind in errors]
    one, other = sample(id="a", meta={"split": "train"}, group="p"), sample(id="z", meta={"split": "train"})
    again = one.replace(id="b")
    test = one.replace(id="c", question="?!", meta={"split": "test"})
    found = inspect(
        Samples([other, one, again, test, Sample.unusable("broken", id="x"), other.replace(question="!")])
    )
    assert [(one.kind, one.where, one.text) for one in found.problems] == [
        ("bad row", "x", "broken"),
        ("same image in two splits", "a", "a in train, c in test"),
        ("same group in two splits", "p", "a in train, c in test"),
        ("same sample twice", "a", "2 samples: a, b"),
        ("same id twice", "z", "2 samples have this id"),
    ]


def test_rows_of_slake_without_an_answer_type_are_noted() -> None:
    about = {"benchmark": "SLAKE", "kind": "open"}
    found = inspect(Samples([sample(meta=about), sample(meta={**about, "answer_type": "OPEN"}), sample()]))
    (problem,) = found.problems
    assert (problem.kind, problem.is_error) == ("no answer type", False)
    assert "1 of 2 rows have no answer_type" in problem.text
