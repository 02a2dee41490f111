"""Each kind of problem is found where it is planted, and nowhere else."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from interp.data import Samples
from interp.data_check import inspect
from interp.inputs.sample import Sample

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
    assert answered(10, 0) == {}


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


def test_rows_of_slake_without_an_answer_type_are_noted() -> None:
    about = {"benchmark": "SLAKE", "kind": "open"}
    found = inspect(Samples([sample(meta=about), sample(meta={**about, "answer_type": "OPEN"}), sample()]))
    (problem,) = found.problems
    assert (problem.kind, problem.is_error) == ("no answer type", False)
    assert "1 of 2 rows have no answer_type" in problem.text
