"""HuatuoGPT-Vision's own evaluation file: six benchmarks in one, every question as multiple choice."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from interp.data.benchmarks.benchmark_rows import (
    SplitRow,
    answer_among,
    check_columns,
    check_multiple_choice,
    existing_folder,
)
from interp.data.lines import collect, json_rows, read_json
from interp.data.questions import Wanted, checked_names, chosen_splits
from interp.data.row_fields import as_path_in, optional_text, text_of
from interp.data.samples import Samples
from interp.data.table_rows import is_missing, plain
from interp.errors import DataError
from interp.inputs.sample import Sample
from interp.inputs.text import brief

__all__ = ["FILE", "huatuo"]

FILE = "medical_multimodel_evaluation_data.json"
READ = ("question", "options", "answer", "image")


def huatuo(
    folder: str | os.PathLike[str],
    *,
    split: str = "test",
    questions: str = "closed",
    datasets: Sequence[str] | None = None,
    name: str | None = None,
    bad_rows: str = "raise",
) -> Samples:
    """Returns the questions of `FreedomIntelligence/Medical_Multimodal_Evaluation_Data`.

    Reads `medical_multimodel_evaluation_data.json` (spelled so), a list of rows with `question`, `options` (texts),
    `answer` (the text of one), `image` (paths such as `images/….jpg`), `dataset`, `subset` and `test_id`, beside the
    unpacked folder `images`. Closed questions of VQA-RAD, SLAKE and PathVQA are here multiple choice too ("yes", "no").
    As in HuatuoGPT-Vision's own scoring, rows without options, open questions, and rows whose `test_id` came before are
    left out and counted. An answer of "?" is no answer. `meta` has `benchmark` (the row's `dataset`), `subset`,
    `split`, `kind` ("choice") and the other fields. The group is the first image's path.

    Args:
        folder: The folder of the data set, with `images.zip` unpacked.
        split: "test" or "all", which are the same: the file mixes the test and validation parts that Huatuo reports.
        questions: "closed" or "all", which are the same here.
        datasets: The values of `dataset` to keep, such as ["VQA-RAD"]; None for all. Others are left out and counted.
        name: The name of the samples.
        bad_rows: "raise" raises an error at the first bad row; "record" keeps a stand-in for each, which a study
            records as a failure. Rows that give an option twice are bad.

    Raises:
        DataError: The file or an image is missing, a value of `datasets` has no row, or a row is invalid; the message
            names the file and the item.

    Source: Chen et al., 2024 (arXiv 2406.19280), Apache-2.0; fields as in HuatuoGPT-Vision's evaluation code.
    Numbers of questions: VQA-RAD 251, SLAKE 416, PathVQA 3,362, PMC-VQA 2,000, OmniMedVQA 11,124, MMMU validation 145.
    """
    check_multiple_choice(questions, "Huatuo's evaluation file")
    splits = chosen_splits(split, ("test",), "Huatuo's evaluation file")
    some = None if datasets is None else checked_names("datasets", datasets, "VQA-RAD")
    root = existing_folder(folder, "Huatuo's evaluation file")
    wanted = Wanted(questions, splits)
    reading = _Reading(root, some, wanted, set(), set())
    rows = (
        SplitRow(row.path, row.number, row.values, row.unit, "test", row.number)
        for row in json_rows(root / FILE, read_json(root / FILE, list))
    )
    samples = collect(rows, reading.samples, bad_rows)
    if unknown := sorted(set(some or ()) - reading.met):
        raise DataError(f"{FILE} has no {', '.join(unknown)}; it has {', '.join(sorted(reading.met))}.")
    return Samples(samples, "Huatuo evaluation" if name is None else name, wanted.left_out)


@dataclass(frozen=True)
class _Reading:
    root: Path
    datasets: tuple[str, ...] | None
    wanted: Wanted
    met: set[str]
    seen: set[str]

    def samples(self, row: SplitRow) -> list[Sample]:
        """The sample of a row, if Huatuo's own scoring counts it."""
        check_columns(row, (*READ, "dataset"), FILE)
        dataset, own = text_of(row, "dataset"), optional_text(row, "test_id") or row.id
        self.met.add(dataset)
        options = row.values["options"]
        if not isinstance(options, list) or not all(isinstance(one, str) for one in options):
            raise row.bad("options", f"expected a list of texts, got {brief(options)}")
        if reason := self._left_out(row, dataset, own, options):
            self.wanted.left_out[reason] += 1
            return []
        self.seen.add(own)
        found = [one.strip() for one in options]
        hidden = row.values["answer"] == "?"
        others = {key: plain(value) for key, value in row.values.items() if key not in READ}
        images = self._images(row)
        return [
            Sample(
                images=images,
                question=text_of(row, "question"),
                answer=None if hidden else answer_among(row, "answer", row.values["answer"], found),
                options=found,
                group=os.path.relpath(images[0], self.root),
                meta={**others, "benchmark": dataset, "split": "test", "kind": "choice"},
                id=own,
            )
        ]

    def _left_out(self, row: SplitRow, dataset: str, own: str, options: list[str]) -> str | None:
        """The reason why a row is left out; None where it is kept."""
        if self.datasets is not None and dataset not in self.datasets:
            return f"questions of {dataset}"
        if row.values.get("question_type") == "open" or not options:
            return "open questions, or without options"
        return "questions whose test_id came before" if own in self.seen else None

    def _images(self, row: SplitRow) -> list[str]:
        cell = row.values["image"]
        listed = [cell] if isinstance(cell, str) else cell
        if not isinstance(listed, list) or not listed or any(is_missing(one) for one in listed):
            raise row.bad("image", f"expected a list of paths, got {brief(cell)}")
        return [as_path_in(self.root, row, "image", one) for one in listed]
