from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from interp.data import question_counts, vqa_rad
from interp.errors import DataError
from tests.data.benchmarks.layouts import hub_folder, vqa_rad_folder, vqa_rad_row
from tests.data.source_files import as_json

ROWS = (
    vqa_rad_row(1, "Is there an infarct?", "Yes"),
    vqa_rad_row(2, "Left or right?", "Left", "test_para"),
    vqa_rad_row(3, "How many lesions?", 4, "test_freeform", answer_type="OPEN", image_organ="CHEST"),
    vqa_rad_row(4, "Is it normal?", "no ", "freeform", answer_type="CLOSED "),
    vqa_rad_row(5, "Which organ?", "Liver", "para", answer_type="OPEN"),
)


@pytest.fixture
def authors(tmp_path: Path) -> Path:
    return vqa_rad_folder(tmp_path, *ROWS)


def test_the_authors_layout_by_split_and_kind(authors: Path) -> None:
    (closed,) = vqa_rad(authors)
    assert (closed.id, closed.question, closed.answer, closed.options) == (
        "1",
        "Is there an infarct?",
        "Yes",
        None,
    )
    assert closed.group == "synpic54610.jpg"
    about = {"benchmark": "VQA-RAD", "split": "test", "kind": "closed", "image_organ": "HEAD"}
    assert about.items() <= closed.meta.items()
    samples = vqa_rad(authors, questions="open")
    assert [sample.answer for sample in samples] == ["Left", "4"]
    assert samples.skipped == {
        "closed questions of test": 1,
        "closed questions of train": 1,
        "open questions of train": 1,
    }


def test_closed_by_the_authors_own_field(authors: Path) -> None:
    both = vqa_rad(authors, split="all", closed="answer_type")
    assert [(sample.id, sample.meta["split"]) for sample in both] == [
        ("1", "test"),
        ("2", "test"),
        ("4", "train"),
    ]
    assert both[2].answer == "no"
    assert question_counts(vqa_rad(authors, split="all", questions="all")) == {
        ("VQA-RAD", "test", "closed"): 1,
        ("VQA-RAD", "test", "open"): 2,
        ("VQA-RAD", "train", "closed"): 1,
        ("VQA-RAD", "train", "open"): 1,
    }


def test_the_hubs_layout_in_several_files(tmp_path: Path) -> None:
    pairs = [(f"Is it {i}?", "yes" if i % 2 else "ct scan") for i in range(5)]
    folder = hub_folder(tmp_path, test=pairs, train=[("Is it?", "no")])
    samples = vqa_rad(folder)
    assert [sample.id for sample in samples] == ["test:1", "test:3"]
    assert [sample.load().getpixel((0, 0)) for sample in samples] == [(11, 11, 11), (10, 10, 10)]
    assert samples.skipped == {"open questions of test": 3}
    assert [sample.id for sample in vqa_rad(folder, split="all", questions="all")][:2] == [
        "train:0",
        "test:0",
    ]
    whole = vqa_rad(folder, questions="all")
    assert len({*whole.groups}) == 3  # three pictures, in five rows
    with pytest.raises(DataError, match="closed='answer_type' needs the authors' layout"):
        vqa_rad(folder, closed="answer_type")


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (vqa_rad_row(1, "", "yes"), r"Public\.json, item 0, field 'question': expected a text"),
        (vqa_rad_row(1, "?", None), "item 0, field 'answer': expected an answer, got none"),
        (vqa_rad_row(1, "?", "no", image_name="x.jpg"), "item 0, field 'image_name': no file 'x.jpg' in"),
        ({"question": "?"}, "item 0: VQA-RAD has the columns .*lacks image_name, answer, phrase_type"),
        (3, "item 0: expected an object of fields"),
    ],
)
def test_a_bad_row_is_named(tmp_path: Path, row: Any, message: str) -> None:
    with pytest.raises(DataError, match=message):
        vqa_rad(vqa_rad_folder(tmp_path, row))
    (stand_in,) = vqa_rad(tmp_path, bad_rows="record")
    assert not stand_in.is_usable


def test_what_is_no_vqa_rad(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"read from a folder, or with hub=True as flavia.*; got neither"):
        vqa_rad()
    with pytest.raises(DataError, match="got both a folder and the hub"):
        vqa_rad(tmp_path, hub=True)
    with pytest.raises(DataError, match=r"has no test-\*\.parquet, nor has its folder data"):
        vqa_rad(tmp_path)
    with pytest.raises(DataError, match=r"there is no folder .*none"):
        vqa_rad(tmp_path / "none")
    with pytest.raises(
        DataError, match="VQA-RAD has the splits train, test, and 'all' for every one; got 'dev'"
    ):
        vqa_rad(tmp_path, split="dev")
    with pytest.raises(DataError, match="questions is 'closed' or 'open' or 'all'; got 'some'"):
        vqa_rad(tmp_path, questions="some")
    as_json(tmp_path / "VQA_RAD Dataset Public.json", {})
    with pytest.raises(DataError, match="expected a JSON list of rows, got dict"):
        vqa_rad(tmp_path)


def test_the_hub_is_read_from_the_cache_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path)
    for folder in ("hub", None):
        with pytest.raises(DataError, match=r"no data set of that id in the cache .*pass download=True"):
            vqa_rad(folder, hub=True)


def test_spaces_and_case_of_the_authors_fields(tmp_path: Path) -> None:
    rows = [
        vqa_rad_row(1, "Is it?", "Yes", " test_para", answer_type=" closed"),
        vqa_rad_row(2, "Which?", "CT", "para", answer_type="OPEN"),
    ]
    folder = vqa_rad_folder(tmp_path, *rows)
    found = vqa_rad(folder, split="all", questions="all", closed="answer_type", name="mine")
    assert [(one.meta["split"], one.meta["kind"]) for one in found] == [("test", "closed"), ("train", "open")]
    assert (found.name, vqa_rad(folder).name) == ("mine", "VQA-RAD test")
    with pytest.raises(DataError, match="closed is 'yes_no' or 'answer_type'; got 'type'"):
        vqa_rad(folder, closed="type")
    for name in ("question", "answer", "image_name", "phrase_type"):
        lacking = {key: value for key, value in rows[0].items() if key != name}
        with pytest.raises(DataError, match=rf"this table lacks {name}\."):
            vqa_rad(vqa_rad_folder(tmp_path, lacking), split="all")


def test_a_row_without_an_id_is_named_by_its_place(tmp_path: Path) -> None:
    rows = [vqa_rad_row(1, "Is it?", "yes", "para"), vqa_rad_row(2, "Is it?", "no")]
    for row in rows:
        del row["qid"]
    found = vqa_rad(vqa_rad_folder(tmp_path, *rows), split="all")
    assert [one.id for one in found] == ["0", "1"]
    assert "answer" not in found[0].meta
