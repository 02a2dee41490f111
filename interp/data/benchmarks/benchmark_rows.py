"""Rows of benchmarks published as one table per split, and the options and answers of multiple-choice rows."""

from __future__ import annotations

import os
import re
import string
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from interp.data.lines import Row, as_path, shown
from interp.data.questions import QUESTIONS, Wanted, is_yes_or_no
from interp.data.row_fields import text_of
from interp.data.table_rows import Table, is_missing, opened, plain
from interp.errors import DataError
from interp.inputs.answers import named_option
from interp.inputs.argument_checks import check_bool, check_one_of
from interp.inputs.images import ImageLike, LazyImage
from interp.inputs.sample import Sample
from interp.inputs.text import brief

__all__ = [
    "HUB",
    "Published",
    "SplitRow",
    "answer_among",
    "check_columns",
    "check_multiple_choice",
    "existing_folder",
    "folder_of",
    "has_image",
    "image_cell",
    "letter_place",
    "numbered",
    "question_row",
    "unlettered",
]


COLUMNS = ("image", "question", "answer")
HUB = "hub"
"""The word that stands for the hub in the place of a folder."""


@dataclass(frozen=True)
class SplitRow(Row):
    """A row with its split and its number in the split, which together name its sample.

    Attributes:
        split: The split.
        place: The row's number in the split, from 0, over all of the split's files.
    """

    split: str = ""
    place: int = 0

    @property
    def id(self) -> str:
        """The id of the row's sample, the same for a folder and for the hub."""
        return f"{self.split}:{self.place}"


@dataclass(frozen=True)
class Published:
    """The place of a benchmark's tables.

    Attributes:
        source: The benchmark's name, for messages.
        repository: The benchmark's id on the hub.
        folder: The folder to read; None for the hub.
        download: Whether `datasets` may download from the hub; else only its cache is read.
        revision: A commit or tag of the hub's data set.
    """

    source: str
    repository: str
    folder: Path | None
    download: bool = False
    revision: str | None = None

    def rows(self, splits: Sequence[str], config: str | None = None) -> Iterator[SplitRow]:
        """Yields the rows of some splits, in order; `config` is a configuration, which is a folder inside the folder.

        Raises:
            DataError: A split has no table, or a table cannot be read.
        """
        for split in splits:
            tables = self._tables(split, config)
            yield from numbered((row for table in tables for row in table.rows), split)

    def _tables(self, split: str, config: str | None) -> list[Table]:
        if self.folder is None:
            options: dict[str, Any] = {"config": config, "download": self.download}
            return [opened(self.repository, split=split, revision=self.revision, **options)]
        folder = self.folder if config is None else self.folder / config
        if (folder / "dataset_dict.json").is_file():
            return [opened(folder, split=split)]
        return [opened(path) for path in self._files(folder, split)]

    def _files(self, folder: Path, split: str) -> list[Path]:
        """The parquet files of a split, in the order of their numbers."""
        for place in (folder / "data", folder):
            found = sorted([*place.glob(f"{split}-*.parquet"), *place.glob(f"{split}.parquet")])
            if found:
                return found
        raise DataError(
            f"{self.source}: {shown(folder)} has no {split}-*.parquet, nor has its folder data. Give the folder of "
            f"{self.repository} as the hub has it, or pass hub=True to read what `datasets` has downloaded."
        )


def folder_of(
    folder: str | os.PathLike[str] | None, source: str, repository: str, hub: bool, download: bool
) -> Path | None:
    """Returns the folder to read, None for the hub.

    Args:
        folder: The folder that the caller gave; "hub" stands for the hub.
        source: The benchmark's name, for messages.
        repository: The benchmark's id on the hub.
        hub: Whether the hub is to be read.
        download: Whether `datasets` may download, which implies the hub.

    Raises:
        DataError: Neither a folder nor the hub was given, or both, or the folder does not exist.
    """
    check_bool("hub", hub, DataError)
    check_bool("download", download, DataError)
    named = isinstance(folder, str) and folder == HUB
    asked = hub or download or named
    if asked and (folder is None or named):
        return None
    if folder is None or asked:
        got = "both a folder and the hub" if asked else "neither"
        raise DataError(
            f"{source} is read from a folder, or with hub=True as {repository} (download=True allows `datasets` to "
            f"download it); got {got}."
        )
    return existing_folder(folder, source)


def existing_folder(folder: str | os.PathLike[str], source: str) -> Path:
    """Returns the path of a folder.

    Raises:
        DataError: The argument is no path, or no folder exists there; the message names the benchmark.
    """
    given = as_path(folder, "the folder")
    if not os.path.isdir(given):  # also of a name that no file can have
        raise DataError(f"{source}: there is no folder {shown(given)}. Check the path.")
    return given


def numbered(rows: Iterator[Row], split: str) -> Iterator[SplitRow]:
    """Yields the rows with their split and their number in it."""
    for place, row in enumerate(rows):
        yield SplitRow(row.path, row.number, row.values, row.unit, split, place)


def has_image(row: Row, name: str) -> bool:
    """Whether a cell holds an image: one that is not read yet, or encoded bytes in a table without the hub's types."""
    cell = row.values.get(name)
    return isinstance(cell, LazyImage) or (isinstance(cell, Mapping) and isinstance(cell.get("bytes"), bytes))


def image_cell(row: Row, name: str) -> ImageLike:
    """Returns the image in a cell, whose bytes are decoded when they are used.

    Raises:
        DataError: The cell holds no image; the message names row and column.
    """
    if not has_image(row, name):
        raise row.bad(name, "expected an image, got none. Was the table saved without its images?")
    cell = row.values[name]
    return (
        cell
        if isinstance(cell, LazyImage)
        else LazyImage(partial(bytes, cell["bytes"]), f"image {row.at}, {name}")
    )


def check_columns(row: Row, needed: Sequence[str], source: str) -> None:
    """Checks that a row has the columns of its benchmark.

    Raises:
        DataError: A column is missing.
    """
    missing = [name for name in needed if name not in row.values]
    if missing:
        raise DataError(
            f"{row.at}: {source} has the columns {', '.join(needed)}; this table lacks {', '.join(missing)}. Is it "
            "another data set?"
        )


def question_row(row: SplitRow, benchmark: str, wanted: Wanted) -> list[Sample]:
    """Returns the sample of a row of image, question and answer; questions answered yes or no are closed."""
    check_columns(row, COLUMNS, benchmark)
    question, answer = text_of(row, "question"), text_of(row, "answer")
    kind = "closed" if is_yes_or_no(answer) else "open"
    if not wanted.takes(kind, row.split):
        return []
    others = {key: plain(value) for key, value in row.values.items() if key not in COLUMNS}
    meta = {**others, "benchmark": benchmark, "split": row.split, "kind": kind}
    return [Sample(image_cell(row, "image"), question, answer=answer, meta=meta, id=row.id)]


def unlettered(options: Sequence[str]) -> list[str]:
    """Returns options without the letters before them: "A: CT", "B: MRI" become "CT", "MRI".

    Letters are removed only where every option has its own, so that "B: cells" among others stays as it is.

    >>> unlettered([" A:Diffuse ", "B: Focal"]), unlettered(["B: cells", "T: cells"])
    (['Diffuse', 'Focal'], ['B: cells', 'T: cells'])
    """
    found = [
        re.fullmatch(rf"\s*{letter}\s*[:.)]\s*(.*?)\s*", option, re.DOTALL)
        for letter, option in zip(string.ascii_uppercase, options, strict=False)
    ]
    if all(found) and len(found) == len(options):
        return [match.group(1) for match in found if match]
    return [option.strip() for option in options]


def letter_place(row: Row, name: str, n: int) -> int:
    """Returns the index of the option whose letter a cell holds.

    Raises:
        DataError: The cell holds no letter of the row's `n` options; the message names the row and the field.
    """
    value = row.values.get(name)
    letter = value.strip().upper() if isinstance(value, str) else ""
    letters = string.ascii_uppercase[:n]
    if len(letter) != 1 or letter not in letters:
        raise row.bad(name, f"expected the letter of one of {n} options, got {brief(value)}")
    return letters.index(letter)


def answer_among(row: Row, name: str, answer: Any, options: Sequence[str]) -> str:
    """Returns the option that an answer's text names.

    Raises:
        DataError: The text is none of the options, or fits several equally; the message names the row and the field.
    """
    place = None if is_missing(answer) else named_option(str(answer).strip(), options)
    if place is None:
        raise row.bad(name, f"expected one of the options {brief(list(options))}, got {brief(answer)}")
    return options[place]


def check_multiple_choice(questions: str, source: str) -> None:
    """Refuses open questions of a benchmark that has none.

    Raises:
        DataError: `questions` is "open", or is not known.
    """
    check_one_of("questions", questions, QUESTIONS, DataError)
    if questions == "open":
        raise DataError(f"{source} is all multiple choice: it has no open questions. Use questions='closed'.")
