"""VQA-RAD: questions on head, chest and abdomen images, asked and answered by clinicians."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from interp.data.benchmarks.benchmark_rows import Published, SplitRow, check_columns, folder_of, question_row
from interp.data.lines import collect, json_rows, read_json
from interp.data.questions import Wanted, chosen_splits, is_yes_or_no
from interp.data.row_fields import as_path_in, optional_text, text_of
from interp.data.samples import Samples
from interp.data.table_rows import plain
from interp.errors import DataError
from interp.inputs.argument_checks import check_one_of
from interp.inputs.sample import Sample

__all__ = ["REPOSITORY", "SPLITS", "vqa_rad"]

SPLITS = ("train", "test")
REPOSITORY = "flaviagiammarino/vqa-rad"
FILE = "VQA_RAD Dataset Public.json"
IMAGES = "VQA_RAD Image Folder"
RULES = ("yes_no", "answer_type")


def vqa_rad(
    folder: str | os.PathLike[str] | None = None,
    *,
    split: str = "test",
    questions: str = "closed",
    closed: str = "yes_no",
    hub: bool = False,
    download: bool = False,
    revision: str | None = None,
    name: str | None = None,
    bad_rows: str = "raise",
) -> Samples:
    """Returns the questions of VQA-RAD, from either of its two public layouts.

    - The authors' (osf.io/89kps): `VQA_RAD Dataset Public.json` beside the folder `VQA_RAD Image Folder`. A row is of
      the test split if its `phrase_type` begins with "test". 2,248 questions.
    - The hub's (`flaviagiammarino/vqa-rad`): parquet files of `image`, `question` and `answer`, without the other
      fields, doubles removed: 1,793 and 451 questions. Reading them needs the extra `data`.

    `meta` has `benchmark`, `split`, `kind` ("closed" or "open"), and in the authors' layout the row's other fields
    (`question_type`, `image_organ`, `phrase_type`, `answer_type`, …). The group is the image. `skipped` counts
    what was left out by kind and split.

    Args:
        folder: The folder of one of the layouts; "hub" is `hub=True`.
        split: The split, "train" or "test"; "all" for both.
        questions: The kind of questions, "closed", "open" or "all".
        closed: The rule for closed questions. "yes_no": the answer is yes or no (251 of the 451 test questions).
            "answer_type": the authors' field of that name says so, which also counts a choice such as "left or right";
            272 of test, 1,299 of all splits, the number of the reference paper's Table 1. The hub's layout lacks the
            field.
        hub: Whether to read the hub's data set from the cache of `datasets`.
        download: Whether `datasets` may download it.
        revision: A commit or tag of the hub's data set; only with `download`.
        name: The name of the samples.
        bad_rows: "raise" raises an error at the first bad row; "record" keeps a stand-in for each, which a study
            records as a failure.

    Raises:
        DataError: A folder in another layout, an unknown split, or an invalid row; the message names the file and the
            row.

    Source: Lau et al., 2018 (doi 10.1038/sdata.2018.251), CC0. The authors' field names and phrase types are from
    public loaders and memory, the numbers from LLaVA-Med's table (arXiv 2306.00890) and memory.
    """
    splits = chosen_splits(split, SPLITS, "VQA-RAD")
    check_one_of("closed", closed, RULES, DataError)
    wanted = Wanted(questions, splits)
    place = folder_of(folder, "VQA-RAD", REPOSITORY, hub, download)
    if place is not None and (place / FILE).is_file():
        rows = _authors_rows(place / FILE)

        def make(row: SplitRow) -> list[Sample]:
            return _of_authors(row, place / IMAGES, closed, wanted)
    else:
        if closed == "answer_type":
            raise DataError(
                "closed='answer_type' needs the authors' layout of VQA-RAD: the hub's has no such field. Use "
                f"closed='yes_no', or give the folder of {FILE!r}."
            )
        rows = Published("VQA-RAD", REPOSITORY, place, download, revision).rows(splits)

        def make(row: SplitRow) -> list[Sample]:
            return question_row(row, "VQA-RAD", wanted)

    samples = collect(rows, make, bad_rows)
    return Samples(samples, f"VQA-RAD {split}" if name is None else name, wanted.left_out)


def _authors_rows(path: Path) -> Iterator[SplitRow]:
    """The rows of the authors' file, each with its split."""
    for row in json_rows(path, read_json(path, list)):
        phrase: Any = row.values.get("phrase_type") if isinstance(row.values, dict) else None
        split = "test" if isinstance(phrase, str) and phrase.strip().startswith("test") else "train"
        yield SplitRow(row.path, row.number, row.values, row.unit, split, row.number)


def _of_authors(row: SplitRow, images: Path, closed: str, wanted: Wanted) -> list[Sample]:
    """The sample of a row of the authors' file."""
    check_columns(row, ("image_name", "question", "answer", "phrase_type"), "VQA-RAD")
    question, answer = text_of(row, "question"), optional_text(row, "answer")
    if answer is None:
        raise row.bad("answer", "expected an answer, got none")
    by_type = closed == "answer_type"
    is_closed = text_of(row, "answer_type").strip().upper() == "CLOSED" if by_type else is_yes_or_no(answer)
    kind = "closed" if is_closed else "open"
    if not wanted.takes(kind, row.split):
        return []
    others = {key: plain(value) for key, value in row.values.items() if key not in ("question", "answer")}
    return [
        Sample(
            as_path_in(images, row, "image_name", row.values.get("image_name")),
            question,
            answer=answer.strip(),
            group=text_of(row, "image_name"),
            meta={**others, "benchmark": "VQA-RAD", "split": row.split, "kind": kind},
            id=str(row.values.get("qid", row.place)),
        )
    ]
