"""MMMU: exam questions with several images; by default those of its Health & Medicine subjects."""

from __future__ import annotations

import ast
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from interp.data.benchmarks.benchmark_rows import (
    Published,
    SplitRow,
    check_columns,
    folder_of,
    has_image,
    image_cell,
    letter_place,
)
from interp.data.lines import as_path, collect, read_json, shown
from interp.data.questions import Wanted, checked_names, chosen_splits
from interp.data.row_fields import optional_text, text_of
from interp.data.samples import Samples
from interp.data.table_rows import is_missing, plain
from interp.errors import DataError
from interp.inputs.sample import Sample
from interp.inputs.text import brief

__all__ = ["HEALTH_AND_MEDICINE", "REPOSITORY", "SPLITS", "mmmu"]

SPLITS = ("dev", "validation", "test")
REPOSITORY = "MMMU/MMMU"
HEALTH_AND_MEDICINE = (
    "Basic_Medical_Science",
    "Clinical_Medicine",
    "Diagnostics_and_Laboratory_Medicine",
    "Pharmacy",
    "Public_Health",
)
IMAGES = tuple(f"image_{number}" for number in range(1, 8))
NEEDED = ("id", "question", "options", "answer", "question_type", IMAGES[0])
HIDDEN = "?"
"""The answer of test questions in files from before the answers were published."""


def mmmu(
    folder: str | os.PathLike[str] | None = None,
    *,
    split: str = "test",
    questions: str = "closed",
    subjects: Sequence[str] = HEALTH_AND_MEDICINE,
    answers: str | os.PathLike[str] | None = None,
    hub: bool = False,
    download: bool = False,
    revision: str | None = None,
    name: str | None = None,
    bad_rows: str = "raise",
) -> Samples:
    """Returns the questions of some subjects of MMMU from the parquet files of `MMMU/MMMU`.

    A row has `id`, `question`, `options` (a list written as text), `answer` (a letter; of open questions a text or a
    list written as text), `question_type` ("multiple-choice" or "open"), `image_1` to `image_7`, `explanation`,
    `topic_difficulty`, `subfield` and `img_type`. The images of a sample are those that the row has, in order. The
    markers `<image 1>` stay in the question and the options; `meta["image_numbers"]` says which number each image has.
    `meta` has `benchmark`, `split`, `kind` ("choice" or "open"), `subject`, and of an open question with several right
    answers `accepted` (`answer` is the first). The group is the first image, by content. `skipped` counts what was
    left out. Needs the extra `data`.

    Args:
        folder: The folder of the hub's data set, with `Pharmacy/test-00000-of-00001.parquet` and so on; "hub" is
            `hub=True`.
        split: The split, "dev" (5 questions a subject, for examples in prompts), "validation" (30 a subject) or "test";
            "all" for every one.
        questions: The kind of questions, "closed" (multiple choice), "open" or "all".
        subjects: The subjects, configurations of the hub's data set.
        answers: A JSON file of `id` → {"ground_truth": …} or of `id` → answer, which replaces the files' own answers.
            The answers of the test split are hidden ("?") in files from before 2026-02; samples then have no answer,
            and scorers give None.
        hub: Whether to read the hub's data set from the cache of `datasets`.
        download: Whether `datasets` may download it.
        revision: A commit or tag of the hub's data set; only with `download`.
        name: The name of the samples.
        bad_rows: "raise" raises an error at the first bad row; "record" keeps a stand-in for each, which a study
            records as a failure.

    Raises:
        DataError: A folder in another layout, an unknown split, or an invalid row; the message names the file and the
            row.

    Source: Yue et al., 2024 (arXiv 2311.16502), Apache-2.0. Columns and splits are from the data's card, the form of
    `options` and of open answers from its own evaluation code.
    """
    splits = chosen_splits(split, SPLITS, "MMMU")
    chosen = checked_names("subjects", subjects, "Pharmacy")
    wanted = Wanted(questions, splits)
    place = folder_of(folder, "MMMU", REPOSITORY, hub, download)
    published = Published("MMMU", REPOSITORY, place, download, revision)
    reading = _Reading(wanted, {} if answers is None else _answers(answers))
    samples = collect(_rows(published, splits, chosen), reading.samples, bad_rows)
    return Samples(samples, f"MMMU {split}" if name is None else name, wanted.left_out)


def _rows(published: Published, splits: Sequence[str], subjects: Sequence[str]) -> Iterator[SplitRow]:
    """The rows of every subject, each with its subject."""
    for subject in subjects:
        for row in published.rows(splits, subject):
            yield replace(row, values={**row.values, "subject": subject})


def _answers(path: str | os.PathLike[str]) -> Mapping[str, Any]:
    """The answers of a file, by `id`."""
    place = as_path(path, "answers")
    content = read_json(place, dict)
    found = {key: one.get("ground_truth") if isinstance(one, dict) else one for key, one in content.items()}
    if unknown := [key for key, one in found.items() if not isinstance(one, str | list | int | float)]:
        raise DataError(
            f'{shown(place)}: expected id → {{"ground_truth": answer}} or id → answer; {brief(unknown[0])} has '
            f"{brief(content[unknown[0]])}."
        )
    return found


@dataclass(frozen=True)
class _Reading:
    wanted: Wanted
    answers: Mapping[str, Any]

    def samples(self, row: SplitRow) -> list[Sample]:
        """The sample of a row."""
        check_columns(row, NEEDED, "MMMU")
        question, own, options = text_of(row, "question"), text_of(row, "id"), _options(row)
        if own in self.answers:
            row = replace(row, values={**row.values, "answer": self.answers[own]})
        kind = "open" if text_of(row, "question_type") == "open" else "choice"
        if not self.wanted.takes(kind, row.split):
            return []
        numbers = [number for number, name in enumerate(IMAGES, 1) if has_image(row, name)]
        answer, accepted = _answer(row, options) if kind == "choice" else _open_answer(row)
        read = ("question", "options", "answer", "id", *IMAGES)
        return [
            Sample(
                images=[image_cell(row, IMAGES[number - 1]) for number in numbers or [1]],
                question=question,
                answer=answer,
                options=options if kind == "choice" else None,
                meta={
                    **{key: plain(value) for key, value in row.values.items() if key not in read},
                    **({"accepted": accepted} if accepted else {}),
                    "benchmark": "MMMU",
                    "split": row.split,
                    "kind": kind,
                    "image_numbers": numbers,
                },
                id=own,
            )
        ]


def _options(row: SplitRow) -> list[str]:
    """The options of a row, a list or the text of one."""
    value = plain(row.values.get("options"))
    if isinstance(value, str):
        value = _literal(value)
    if not isinstance(value, list) or not all(isinstance(one, str) for one in value):
        raise row.bad("options", f"expected a list of texts, or the text of one; got {brief(value)}")
    return [one.strip() for one in value]


def _answer(row: SplitRow, options: list[str]) -> tuple[str | None, list[str]]:
    """The option whose letter the answer is; None where the answer is hidden."""
    if not options:
        raise row.bad("options", "expected the options of a multiple-choice question, got none")
    if is_missing(row.values.get("answer")) or row.values["answer"] == HIDDEN:
        return None, []
    return options[letter_place(row, "answer", len(options))], []


def _open_answer(row: SplitRow) -> tuple[str | None, list[str]]:
    """The first of the right answers, and all of them where there are several."""
    value = plain(row.values.get("answer"))
    listed = _literal(value) if isinstance(value, str) and value.strip().startswith("[") else value
    if isinstance(listed, list) and listed:
        texts = [str(one) for one in listed]
        return texts[0], texts if len(texts) > 1 else []
    text = optional_text(row, "answer")
    return (None if text == HIDDEN else text), []


def _literal(text: str) -> Any:
    """The value of a Python literal; None for anything else. No code is run."""
    try:
        return ast.literal_eval(text.strip())
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return None
