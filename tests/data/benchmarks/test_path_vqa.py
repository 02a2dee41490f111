from __future__ import annotations

from pathlib import Path

import pytest

from interp.data import path_vqa
from interp.errors import DataError
from tests.data.benchmarks.layouts import hub_folder, parquet, picture


def test_closed_questions_are_yes_or_no(tmp_path: Path) -> None:
    pairs = [("Is it benign?", "Yes"), ("What is it?", "no necrosis"), ("Is it?", "no")]
    folder = hub_folder(tmp_path, test=pairs, validation=[("Is it?", "no")])
    closed = path_vqa(folder)
    assert [sample.answer for sample in closed] == ["Yes", "no"]
    assert closed[0].meta == {"benchmark": "PathVQA", "split": "test", "kind": "closed"}
    assert closed.skipped == {"open questions of test": 1}
    assert [sample.answer for sample in path_vqa(folder, questions="open")] == ["no necrosis"]
    assert path_vqa(folder, split="validation").split == "validation"
    with pytest.raises(DataError, match=r"PathVQA: .* has no train-\*\.parquet"):
        path_vqa(folder, split="all")


def test_the_authors_pickles_are_refused(tmp_path: Path) -> None:
    (tmp_path / "qas").mkdir()
    (tmp_path / "qas/test_vqa.pkl").write_bytes(b"cos\nsystem\n(S'touch /tmp/never'\ntR.")
    with pytest.raises(DataError, match=r"test_vqa\.pkl is a pickle, which can run code"):
        path_vqa(tmp_path)
    found = path_vqa(hub_folder(tmp_path, test=[("Is it?", "no")]))  # beside the tables they do not matter
    assert (len(found), found.name, path_vqa(tmp_path, name="mine").name) == (1, "PathVQA test", "mine")
    with pytest.raises(DataError, match="both a folder and the hub"):
        path_vqa(tmp_path, hub=True)
    with pytest.raises(DataError, match="got neither"):
        path_vqa(None)


def test_a_table_without_images(tmp_path: Path) -> None:
    import datasets

    features: dict[str, object] = {"question": datasets.Value("string"), "answer": datasets.Value("string")}
    parquet(tmp_path / "test.parquet", [{"question": "Is it?", "answer": "yes"}], features)
    with pytest.raises(DataError, match=r"test\.parquet, row 0: PathVQA has the columns .*lacks image"):
        path_vqa(tmp_path)
    features["image"] = datasets.Image()
    rows = [
        {"question": "Is it?", "answer": "yes", "image": picture()},
        {"question": "Is it?", "answer": "no"},
    ]
    parquet(tmp_path / "test.parquet", rows, features)
    with pytest.raises(DataError, match="row 1, field 'image': expected an image, got none"):
        path_vqa(tmp_path)
