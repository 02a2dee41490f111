from __future__ import annotations

from pathlib import Path
from typing import Any

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from interp.data import mmmu
from interp.errors import DataError
from tests.data.benchmarks.layouts import MMMU, mmmu_folder, mmmu_row
from tests.data.source_files import as_json

SUBJECTS = ["Pharmacy"]


def test_options_written_as_text_and_images_that_are_there(tmp_path: Path) -> None:
    open_row = mmmu_row(2, question_type="open", options="[]", answer="['12', 'twelve']")
    folder = mmmu_folder(tmp_path, mmmu_row(), open_row)
    samples = mmmu(folder, split="validation", subjects=SUBJECTS)
    (sample,) = samples
    assert (sample.options, sample.answer) == (("It's <image 3>", "2-methyl", "None", "Both"), "2-methyl")
    assert sample.sizes == ((12, 8), (6, 5))
    assert (sample.id, sample.meta["image_numbers"]) == ("validation_Pharmacy_1", [1, 3])
    about = {"benchmark": "MMMU", "split": "validation", "kind": "choice", "subject": "Pharmacy"}
    assert about.items() <= sample.meta.items()
    assert "image_1" not in sample.meta
    assert samples.skipped == {"open questions of validation": 1}
    (free,) = mmmu(folder, split="validation", subjects=SUBJECTS, questions="open")
    assert (free.options, free.answer, free.meta["accepted"]) == (None, "12", ["12", "twelve"])
    assert not {"accepted", "options", "question", "answer", "id"} & set(sample.meta)
    (one,) = mmmu(
        mmmu_folder(tmp_path / "one", mmmu_row(question_type="open", options="[]", answer="['12']")),
        split="validation", subjects=SUBJECTS, questions="open", name="mine",
    )  # fmt: skip
    assert (one.answer, "accepted" in one.meta) == ("12", False)


def test_hidden_answers_and_answers_from_elsewhere(tmp_path: Path) -> None:
    folder = mmmu_folder(tmp_path, mmmu_row(split="test", answer="?"), split="test")
    (hidden,) = mmmu(folder, subjects=SUBJECTS)
    assert hidden.answer is None
    for content in (
        {"test_Pharmacy_1": {"question_type": "multiple-choice", "ground_truth": "D"}},
        {"test_Pharmacy_1": "D"},
    ):
        answers = as_json(tmp_path / "answers.json", content)
        assert mmmu(folder, subjects=SUBJECTS, answers=answers)[0].answer == "Both"
    answers = as_json(tmp_path / "answers.json", {"test_Pharmacy_1": {"answer": "D"}})
    with pytest.raises(DataError, match=r"expected id → .*'test_Pharmacy_1' has"):
        mmmu(folder, subjects=SUBJECTS, answers=answers)


def test_the_hidden_answer_of_an_open_question_is_none(tmp_path: Path) -> None:
    row = mmmu_row(split="test", question_type="open", options="[]", answer="?")
    (hidden,) = mmmu(mmmu_folder(tmp_path, row, split="test"), subjects=SUBJECTS, questions="open")
    assert (hidden.answer, hidden.options) == (None, None)


def test_several_subjects_and_splits(tmp_path: Path) -> None:
    for subject in ("Pharmacy", "Public_Health"):
        for split in ("dev", "validation", "test"):
            mmmu_folder(tmp_path, mmmu_row(split=split), split=split, subject=subject)
    samples = mmmu(tmp_path, split="all", subjects=["Pharmacy", "Public_Health"])
    assert [(one.meta["subject"], one.meta["split"]) for one in samples][2:5] == [
        ("Pharmacy", "test"),
        ("Public_Health", "dev"),
        ("Public_Health", "validation"),
    ]
    with pytest.raises(DataError, match=r"MMMU: .*Basic_Medical_Science has no test-\*\.parquet"):
        mmmu(tmp_path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"options": "['a', 'b'"}, r"row 0, field 'options': expected a list of texts, or the text of one"),
        ({"options": "__import__('os').getcwd()"}, "field 'options': expected a list of texts"),
        ({"options": "[]"}, "field 'options': expected the options of a multiple-choice question, got none"),
        ({"answer": "E"}, "field 'answer': expected the letter of one of 4 options, got 'E'"),
        ({"image_1": None, "image_3": None}, "field 'image_1': expected an image, got none"),
    ],
)
def test_a_bad_row_is_named(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    folder = mmmu_folder(tmp_path, mmmu_row(**change))
    with pytest.raises(DataError, match=message):
        mmmu(folder, split="validation", subjects=SUBJECTS)
    with pytest.raises(DataError, match=r'subjects is a list of names, such as \["Pharmacy"\]'):
        mmmu(folder, subjects="Pharmacy")


def test_a_table_without_the_hubs_types(tmp_path: Path) -> None:
    path = tmp_path / "Pharmacy/validation-00000-of-00001.parquet"
    path.parent.mkdir()
    rows = [{**dict.fromkeys(MMMU), **mmmu_row()}]
    pq.write_table(pa.Table.from_pylist(rows), path)
    (sample,) = mmmu(tmp_path, split="validation", subjects=SUBJECTS)
    assert (sample.sizes, sample.meta["image_numbers"]) == (((12, 8), (6, 5)), [1, 3])


def test_the_hub_is_asked_for_each_subject(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[Any, ...]] = []

    def from_hub(*given: Any) -> Any:
        asked.append(given)
        columns = {name: [mmmu_row().get(name)] for name in MMMU}
        part = datasets.Dataset.from_dict(columns, features=datasets.Features(MMMU))
        return datasets.DatasetDict({"validation": part, "test": part})

    monkeypatch.setattr("interp.data.table_rows._from_hub", from_hub)
    samples = mmmu("hub", subjects=["Pharmacy", "Public_Health"], revision="abc")
    assert [sample.meta["subject"] for sample in samples] == ["Pharmacy", "Public_Health"]
    assert asked == [
        ("MMMU/MMMU", "test", subject, "abc", False) for subject in ("Pharmacy", "Public_Health")
    ]
    assert {sample.meta["subject"] for sample in mmmu("hub")} == {
        "Basic_Medical_Science", "Clinical_Medicine", "Diagnostics_and_Laboratory_Medicine", "Pharmacy",
        "Public_Health",
    }  # fmt: skip
    assert len(mmmu(download=True, subjects=SUBJECTS)) == 1
    assert asked[-1] == ("MMMU/MMMU", "test", "Pharmacy", None, True)


@pytest.mark.parametrize(
    ("answer", "first", "accepted"),
    [
        ("12.5", "12.5", None),
        ("['a']", "a", None),
        ("[1, 2.5]", "1", ["1", "2.5"]),
        ("[broken", "[broken", None),
    ],
)
def test_open_answers_as_texts_or_lists(tmp_path: Path, answer: str, first: str, accepted: Any) -> None:
    folder = mmmu_folder(tmp_path, mmmu_row(question_type="open", options="[]", answer=answer))
    (found,) = mmmu(folder, split="validation", subjects=SUBJECTS, questions="all", name="mine")
    assert (found.answer, found.meta.get("accepted"), found.options) == (first, accepted, None)


def test_answers_from_elsewhere_are_by_id_and_leave_the_others(tmp_path: Path) -> None:
    folder = mmmu_folder(
        tmp_path, mmmu_row(1, "test", answer="?"), mmmu_row(2, "test", answer="C"), split="test"
    )
    answers = as_json(tmp_path / "answers.json", {"test_Pharmacy_1": "A", "test_Pharmacy_9": "D"})
    found = mmmu(folder, subjects=SUBJECTS, answers=answers)
    assert [one.answer for one in found] == ["It's <image 3>", "None"]
    assert [one.id for one in found] == ["test_Pharmacy_1", "test_Pharmacy_2"]
