"""What benchmarks share: tables of a split in order, letters of options, and the hub in the place of a folder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import datasets
import pytest

from interp.data import path_vqa, vqa_rad
from interp.data.benchmarks.benchmark_rows import Published, answer_among, letter_place, unlettered
from interp.data.lines import Row
from interp.errors import DataError
from tests.data.benchmarks.layouts import IMAGE, hub_folder, parquet, picture


def asked(text: str) -> dict[str, Any]:
    return {"image": picture(), "question": text, "answer": "yes"}


def test_files_of_a_split_come_in_the_order_of_numbers(tmp_path: Path) -> None:
    for number in (2, 0, 1):
        parquet(tmp_path / f"test-{number:05}-of-00003.parquet", [asked(f"{number}?")], IMAGE)
    parquet(tmp_path / "testing-00000-of-00001.parquet", [asked("no?")], IMAGE)
    found = path_vqa(tmp_path)
    assert [(one.question, one.id) for one in found] == [("0?", "test:0"), ("1?", "test:1"), ("2?", "test:2")]
    parquet(tmp_path / "data/test-00000-of-00001.parquet", [asked("inner?")], IMAGE)
    assert [one.question for one in path_vqa(tmp_path)] == ["inner?"]


def test_a_folder_that_the_library_saved_is_read_by_its_splits(tmp_path: Path) -> None:
    parts = {
        split: datasets.Dataset.from_list([asked(f"{split}?")], features=datasets.Features(IMAGE))
        for split in ("train", "test")
    }
    datasets.DatasetDict(parts).save_to_disk(tmp_path / "saved")
    for split in ("train", "test"):
        (found,) = path_vqa(tmp_path / "saved", split=split)
        assert (found.question, found.meta["split"], found.id) == (f"{split}?", split, f"{split}:0")


def test_rows_are_numbered_anew_in_each_split(tmp_path: Path) -> None:
    pairs = [("a?", "yes"), ("b?", "no"), ("c?", "yes")]
    published = Published("X", "x/y", hub_folder(tmp_path, train=pairs[:2], test=pairs))
    rows = list(published.rows(("test", "train")))
    assert [row.id for row in rows] == ["test:0", "test:1", "test:2", "train:0", "train:1"]
    assert [row.values["question"] for row in rows] == ["a?", "b?", "c?", "a?", "b?"]


@pytest.mark.parametrize(
    ("reader", "repository"), [(path_vqa, "flaviagiammarino/path-vqa"), (vqa_rad, "flaviagiammarino/vqa-rad")]
)
def test_the_hub_is_asked_for_the_split_and_the_revision(
    reader: Any, repository: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    given: list[Any] = []

    def from_hub(*asked_for: Any) -> Any:
        given.append(asked_for)
        part = datasets.Dataset.from_list([asked("Is it?")], features=datasets.Features(IMAGE))
        return datasets.DatasetDict({"train": part, "test": part})

    monkeypatch.setattr("interp.data.table_rows._from_hub", from_hub)
    assert [one.meta["split"] for one in reader("hub", split="train", revision="v3")] == ["train"]
    assert len(reader(hub=True)) == len(reader(download=True, revision="v4")) == 1
    assert given == [
        (repository, "train", None, "v3", False),
        (repository, "test", None, None, False),
        (repository, "test", None, "v4", True),
    ]


@pytest.mark.parametrize(
    ("options", "plain"),
    [
        ([" A:Diffuse ", "B: Focal"], ["Diffuse", "Focal"]),
        (["A. CT", "B) MR", "C : x"], ["CT", "MR", "x"]),
        (["A: one\ntwo ", "B:"], ["one\ntwo", ""]),
        (["B: cells", "A: cells"], ["B: cells", "A: cells"]),
        (["A: CT", " MR "], ["A: CT", "MR"]),
        (["a: CT", "b: MR"], ["a: CT", "b: MR"]),
        (["A CT", "B MR"], ["A CT", "B MR"]),
    ],
)
def test_letters_come_off_where_each_option_has_its_own(options: list[str], plain: list[str]) -> None:
    assert unlettered(options) == plain


@pytest.mark.parametrize(
    ("letter", "n", "place"), [("A", 1, 0), (" d ", 4, 3), ("b", 2, 1), ("E", 4, None), ("AB", 4, None),
                               ("", 4, None), (2, 4, None), ("Z", 26, 25)],
)  # fmt: skip
def test_a_letter_is_one_of_the_options(letter: Any, n: int, place: int | None) -> None:
    row = Row(Path("a.json"), 3, {"answer": letter})
    if place is None:
        with pytest.raises(DataError, match=rf"a\.json, line 3, field 'answer': .*one of {n} options"):
            letter_place(row, "answer", n)
    else:
        assert letter_place(row, "answer", n) == place


def test_an_answer_is_the_option_as_it_is_written() -> None:
    row = Row(Path("a.json"), 3)
    assert answer_among(row, "answer", " left LUNG. ", ["Right lung", "Left lung"]) == "Left lung"
    assert answer_among(row, "answer", 4, ["3", "4"]) == "4"
    for wrong in (None, " ", "lung", "both"):
        with pytest.raises(DataError, match="line 3, field 'answer': expected one of the options"):
            answer_among(row, "answer", wrong, ["Right lung", "Left lung"])
