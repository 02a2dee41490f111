"""PMC-VQA: multiple-choice questions on figures of PubMed Central, written by a language model from captions."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from interp.data.benchmarks.benchmark_rows import (
    SplitRow,
    answer_among,
    check_multiple_choice,
    existing_folder,
    letter_place,
    numbered,
    unlettered,
)
from interp.data.lines import as_path, collect, shown
from interp.data.questions import Wanted, chosen_splits
from interp.data.readers.csv import checked_cells, header_and_rows
from interp.data.row_fields import text_of
from interp.data.samples import Samples
from interp.data.table_rows import plain
from interp.errors import DataError
from interp.inputs.argument_checks import check_one_of
from interp.inputs.files import unreadable
from interp.inputs.sample import Sample
from interp.inputs.text import brief

__all__ = ["VERSIONS", "pmc_vqa"]

VERSIONS = {
    "clean": {"test": "test_clean.csv"},
    "1": {"train": "train.csv", "test": "test.csv"},
    "2": {"train": "train_2.csv", "test": "test_2.csv"},
}
"""Version → split → file."""
CHOICES = tuple(f"Choice {letter}" for letter in "ABCD")
FOLDERS = ("images", "figures", "images_2", ".")
"""Where the images are, below the folder: as the archives unpack, and as public loaders rename them."""
ANSWERS = ("Answer", "Anwser")
"""The answer's column; early files misspell it."""


def pmc_vqa(
    folder: str | os.PathLike[str],
    *,
    split: str = "test",
    questions: str = "closed",
    version: str = "clean",
    images: str | os.PathLike[str] | None = None,
    name: str | None = None,
    bad_rows: str = "raise",
) -> Samples:
    """Returns the questions of PMC-VQA: CSV files beside the unpacked images of `RadGenome/PMC-VQA`.

    Version 1 (`train.csv`, `test.csv`, `test_clean.csv`) has the columns `Figure_path`, `Question`, `Answer` (the
    text), `Choice A` … `Choice D` ("A:CT") and `Answer_label` (the letter); version 2 (`train_2.csv`, `test_2.csv`) has
    `index`, `Figure_path`, `Caption`, `Question`, the choices, `Answer` (a letter or the text) and `split`. Letters
    before options are taken off. Every question has four options and is of the kind "choice"; `answer` is the option's
    text. `meta` has `benchmark`, `split`, `kind`, `version` and the row's other columns. The group is the figure. On
    the hub the images are archives, so there is nothing for `datasets` to read: unpack them first.

    Args:
        folder: The folder with the CSV files.
        split: The split, "train" or "test"; "all" for both.
        questions: "closed" or "all", which are the same here.
        version: The version. "clean" is `test_clean.csv`, the 2,000 test questions that were checked by hand and that
            papers report; "1" and "2" are the versions in full, with 226,946 and 186,033 questions.
        images: The folder of the images; None takes the one of `images`, `figures` and `images_2` inside `folder` that
            has the file.
        name: The name of the samples.
        bad_rows: "raise" raises an error at the first bad row; "record" keeps a stand-in for each, which a study
            records as a failure. Rows that give an option twice are bad.

    Raises:
        DataError: A file, a column or an image is missing, an unknown split or version, or an answer that is none of
            the options; the message names the file and the line.

    Source: Zhang et al., 2023 (arXiv 2305.10415) and the data's card; CC-BY-SA. The columns of version 2 are from
    public loaders.
    """
    check_multiple_choice(questions, "PMC-VQA")
    check_one_of("version", version, VERSIONS, DataError)
    files = VERSIONS[version]
    splits = chosen_splits(split, tuple(files), f"version {version!r} of PMC-VQA")
    root = existing_folder(folder, "PMC-VQA")
    given = None if images is None else as_path(images, "the folder of images")
    wanted = Wanted(questions, splits)
    reading = _Reading(version, (given,) if given else tuple(root / one for one in FOLDERS), wanted)
    rows = (row for one in splits for row in _rows(root / files[one], one))
    samples = collect(rows, reading.samples, bad_rows)
    return Samples(samples, f"PMC-VQA {split}" if name is None else name, wanted.left_out)


def _rows(path: Path, split: str) -> Iterator[SplitRow]:
    """The rows of a file, after a check of its columns."""
    if problem := unreadable(path):
        raise DataError(
            f"PMC-VQA: {shown(path)} cannot be read: it {problem} Versions are 'clean' (test_clean.csv), '1' "
            "(train.csv, test.csv) and '2' (train_2.csv, test_2.csv)."
        )
    header, rows = header_and_rows(path, ",")
    needed = ("Figure_path", "Question", *CHOICES)
    missing = [name for name in needed if name not in header]
    if missing or not {*ANSWERS, "Answer_label"} & set(header):
        raise DataError(
            f"{shown(path)}: PMC-VQA has the columns {', '.join(needed)}, and Answer or Answer_label; got "
            f"{brief(header)}."
        )
    return numbered(rows, split)


@dataclass(frozen=True)
class _Reading:
    version: str
    folders: tuple[Path, ...]
    wanted: Wanted

    def samples(self, row: SplitRow) -> list[Sample]:
        """The sample of a row."""
        checked_cells(row)
        question, figure = text_of(row, "Question").strip(), text_of(row, "Figure_path").strip()
        options = unlettered([text_of(row, name) for name in CHOICES])
        answer = self._answer(row, options)
        if not self.wanted.takes("choice", row.split):
            return []
        read = {"Figure_path", "Question", "split", *CHOICES}
        others = {key: plain(value) for key, value in row.values.items() if key not in read}
        about = {"benchmark": "PMC-VQA", "split": row.split, "kind": "choice", "version": self.version}
        return [
            Sample(
                self._image(row, figure),
                question,
                answer=answer,
                options=options,
                group=figure,
                meta={**others, **about},
                id=row.id,
            )
        ]

    def _answer(self, row: SplitRow, options: list[str]) -> str:
        """The right option, by its letter where the row gives one, else by its text."""
        if row.values.get("Answer_label"):
            return options[letter_place(row, "Answer_label", len(options))]
        name = next((one for one in ANSWERS if one in row.values), ANSWERS[0])
        text = text_of(row, name)
        if len(text.strip()) == 1 and text.strip() not in options:
            return options[letter_place(row, name, len(options))]
        lettered = [row.values[choice].strip() for choice in CHOICES]
        if text.strip() in lettered:
            return options[lettered.index(text.strip())]
        return answer_among(row, name, text, options)

    def _image(self, row: SplitRow, figure: str) -> str:
        found = next((one / figure for one in self.folders if unreadable(one / figure) is None), None)
        if found is None:
            places = ", ".join(shown(one) for one in self.folders)
            raise row.bad(
                "Figure_path",
                f"no file {brief(figure)} in {places}. Unpack images.zip (version 1) or images_2.zip (version 2), or "
                "pass images=.",
            )
        return os.fspath(found)
