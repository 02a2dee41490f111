from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from interp.data import huatuo
from interp.errors import DataError
from tests.data.benchmarks.layouts import huatuo_folder, huatuo_row
from tests.data.source_files import image


def test_what_huatuos_own_scoring_counts(tmp_path: Path) -> None:
    rows = (
        huatuo_row(0),
        huatuo_row(0, question="Again?"),
        huatuo_row(1, question_type="open"),
        huatuo_row(2, options=[]),
        huatuo_row(3, dataset="MMMU-Medical-Tracks", subset="Pharmacy", answer="?"),
        huatuo_row(4, dataset="PMC-VQA"),
    )
    folder = huatuo_folder(tmp_path, *rows)
    samples = huatuo(folder, datasets=["VQA-RAD", "MMMU-Medical-Tracks"])
    first, hidden = samples
    assert (first.options, first.answer, first.id) == (("Yes", "No"), "No", "0")
    assert first.question == "Is there a pleural effusion?"
    assert dict(first.meta) == {
        "subset": "", "question_type": "closed", "test_id": 0, "dataset": "VQA-RAD",
        "benchmark": "VQA-RAD", "split": "test", "kind": "choice",
    }  # fmt: skip
    assert (first.group, first.meta["benchmark"], first.meta["kind"]) == (
        "images/vqarad_1.jpg",
        "VQA-RAD",
        "choice",
    )
    assert (hidden.answer, hidden.meta["subset"]) == (None, "Pharmacy")
    assert samples.skipped == {
        "questions whose test_id came before": 1,
        "open questions, or without options": 2,
        "questions of PMC-VQA": 1,
    }
    assert len(huatuo(folder)) == 3


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"answer": "Perhaps"}, r"data\.json, item 0, field 'answer': expected one of the options"),
        ({"options": "Yes"}, "field 'options': expected a list of texts"),
        ({"image": []}, "field 'image': expected a list of paths"),
        ({"image": ["images/x.jpg"]}, "field 'image': no file 'images/x.jpg'"),
    ],
)
def test_a_bad_row_is_named(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=message):
        huatuo(huatuo_folder(tmp_path, huatuo_row(**change)))


def test_what_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"medical_multimodel_evaluation_data\.json cannot be read"):
        huatuo(tmp_path)
    with pytest.raises(DataError, match="has no SLAKE; it has VQA-RAD"):
        huatuo(huatuo_folder(tmp_path, huatuo_row()), datasets=["SLAKE"])
    with pytest.raises(DataError, match="is all multiple choice: it has no open questions"):
        huatuo(tmp_path, questions="open")
    with pytest.raises(DataError, match="has the splits test, and 'all'"):
        huatuo(tmp_path, split="train")


def test_rows_of_other_sets_do_not_use_up_an_id(tmp_path: Path) -> None:
    image(tmp_path / "images/b.jpg")
    rows = (
        huatuo_row(0, dataset="SLAKE"),
        huatuo_row(0, question_type="open"),
        huatuo_row(0, image=["images/b.jpg", "images/vqarad_1.jpg"], options=[" Yes ", "No "], answer="yes"),
        huatuo_row(None, image="images/b.jpg"),
    )
    folder = huatuo_folder(tmp_path, *rows)
    several, one = huatuo(folder, datasets=["VQA-RAD"], name="mine")
    assert (several.id, several.group, len(several.images)) == ("0", "images/b.jpg", 2)
    assert (several.options, several.answer) == (("Yes", "No"), "Yes")
    assert (one.id, one.group) == ("test:3", "images/b.jpg")
    assert huatuo(folder, split="all", questions="all", name="mine").name == "mine"
