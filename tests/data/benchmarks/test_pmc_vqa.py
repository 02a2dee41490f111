from __future__ import annotations

from pathlib import Path

import pytest

from interp.data import pmc_vqa
from interp.errors import DataError
from tests.data.benchmarks.layouts import pmc_vqa_folder, pmc_vqa_row, pmc_vqa_row_2

OPTIONS = ("Diffuse uptake pattern", "Focal uptake pattern", "No uptake pattern", "Cannot determine")


def test_version_1_of_the_clean_test(tmp_path: Path) -> None:
    (sample,) = pmc_vqa(pmc_vqa_folder(tmp_path, pmc_vqa_row()))
    assert (sample.options, sample.answer) == (OPTIONS, "Focal uptake pattern")
    assert sample.question == "What is the uptake pattern in the breast?"
    assert (sample.group, sample.id) == ("PMC1064097_F1.jpg", "test:0")
    about = {"benchmark": "PMC-VQA", "split": "test", "kind": "choice", "version": "clean"}
    assert about.items() <= sample.meta.items()
    assert sample.load().size == (40, 20)


@pytest.mark.parametrize("answer", ["B", "Focal uptake pattern", " B:Focal uptake pattern "])
def test_version_2_with_a_letter_or_a_text(tmp_path: Path, answer: str) -> None:
    row = pmc_vqa_row_2(answer)
    folder = pmc_vqa_folder(tmp_path, row, row, file="test_2.csv", images="figures")
    samples = pmc_vqa(folder, version="2")
    assert [sample.answer for sample in samples] == ["Focal uptake pattern"] * 2
    assert samples[1].meta["Caption"] == "Uptake, in the\nbreast."
    assert samples[1].meta["split"] == "test"


def test_letters_come_off_only_where_every_option_has_its_own(tmp_path: Path) -> None:
    choices = {
        f"Choice {letter}": text
        for letter, text in zip("ABCD", ("B: cells", "T: cells", "NK", "M"), strict=True)
    }
    (sample,) = pmc_vqa(pmc_vqa_folder(tmp_path, pmc_vqa_row(label="A", **choices)))
    assert (sample.options, sample.answer) == (("B: cells", "T: cells", "NK", "M"), "B: cells")


def test_versions_splits_and_names(tmp_path: Path) -> None:
    row = pmc_vqa_row(Figure_path=" PMC1064097_F1.jpg ")
    for file in ("train.csv", "test.csv"):
        pmc_vqa_folder(tmp_path, row, file=file)
    for file in ("train_2.csv", "test_2.csv"):
        pmc_vqa_folder(tmp_path, pmc_vqa_row_2(), file=file)
    for version in ("1", "2"):
        samples = pmc_vqa(tmp_path, split="all", version=version)
        assert [one.meta["split"] for one in samples] == ["train", "test"]
        assert (samples.name, pmc_vqa(tmp_path, version=version, name="mine").name) == ("PMC-VQA all", "mine")
    assert pmc_vqa(tmp_path, version="1")[0].group == "PMC1064097_F1.jpg"
    with pytest.raises(DataError, match="version is 'clean' or '1' or '2'; got '3'"):
        pmc_vqa(tmp_path, version="3")


def test_an_option_of_one_character_goes_by_its_text(tmp_path: Path) -> None:
    choices = {f"Choice {letter}": f" {letter}:{text}" for letter, text in zip("ABCD", "1BC4", strict=True)}
    (sample,) = pmc_vqa(pmc_vqa_folder(tmp_path, pmc_vqa_row("C", "", **choices)))
    assert (sample.options, sample.answer) == (("1", "B", "C", "4"), "C")
    (other,) = pmc_vqa(pmc_vqa_folder(tmp_path, pmc_vqa_row("A", "", **choices)))
    assert other.answer == "1"  # the letter


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (
            pmc_vqa_row(label="E"),
            r"test_clean\.csv, line 2, field 'Answer_label': expected the letter of one of 4",
        ),
        (pmc_vqa_row("Spleen", ""), "line 2, field 'Answer': expected one of the options .*got 'Spleen'"),
        (pmc_vqa_row(**{"Choice A": " A:No uptake pattern "}), "line 2: .*No uptake pattern"),
        (pmc_vqa_row(Figure_path="x.jpg"), "field 'Figure_path': no file 'x.jpg' in .*Unpack images.zip"),
        (pmc_vqa_row(Question=" "), "line 2, field 'Question': expected a text"),
    ],
)
def test_a_bad_row_is_named(tmp_path: Path, row: dict[str, str], message: str) -> None:
    with pytest.raises(DataError, match=message):
        pmc_vqa(pmc_vqa_folder(tmp_path, row))


def test_what_is_no_pmc_vqa(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"test_clean\.csv cannot be read: it does not exist.*Versions are"):
        pmc_vqa(tmp_path)
    with pytest.raises(DataError, match=r"version 'clean' of PMC-VQA has the splits test, .*got 'train'"):
        pmc_vqa(tmp_path, split="train")
    with pytest.raises(DataError, match="PMC-VQA is all multiple choice: it has no open questions"):
        pmc_vqa(tmp_path, questions="open")
    with pytest.raises(DataError, match="PMC-VQA has the columns Figure_path"):
        pmc_vqa(pmc_vqa_folder(tmp_path, {"Figure_path": "a.png"}))


def test_images_are_looked_for_in_order(tmp_path: Path) -> None:
    for place in (".", "images_2", "figures", "images"):  # the later ones come first
        folder = pmc_vqa_folder(tmp_path, pmc_vqa_row(), images=place)
        assert Path(str(pmc_vqa(folder)[0].image)).parent == (tmp_path / place)
    pmc_vqa_folder(tmp_path, pmc_vqa_row(), images="mine")
    assert Path(str(pmc_vqa(tmp_path, images=tmp_path / "mine")[0].image)).parent.name == "mine"
    with pytest.raises(DataError, match=r"no file 'PMC1064097_F1\.jpg' in .*nowhere"):
        pmc_vqa(tmp_path, images=tmp_path / "nowhere")


def test_a_misspelt_column_is_read_and_a_label_comes_first(tmp_path: Path) -> None:
    row = pmc_vqa_row("C")
    del row["Answer_label"]
    row["Anwser"] = row.pop("Answer")
    assert pmc_vqa(pmc_vqa_folder(tmp_path, row))[0].answer == "No uptake pattern"
    both = pmc_vqa_row("Focal uptake pattern", "A")
    found = pmc_vqa(pmc_vqa_folder(tmp_path, both, both))
    assert [(one.id, one.answer) for one in found] == [
        ("test:0", "Diffuse uptake pattern"), ("test:1", "Diffuse uptake pattern"),
    ]  # fmt: skip
