"""MedTrinity-25M: medical images with descriptions of regions, and the regions' boxes where they are available."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

from interp.data.lines import Row, as_path, collect, json_rows, line_rows, read_json, shown
from interp.data.readers.hub import checked
from interp.data.row_fields import boxes_of, image_in, text_of
from interp.data.samples import Samples
from interp.data.table_rows import is_missing, opened, plain
from interp.errors import DataError
from interp.inputs.argument_checks import check_one_of
from interp.inputs.boxes import check_format
from interp.inputs.sample import Sample
from interp.inputs.text import brief, faulty_text

__all__ = ["medtrinity"]

QUESTION = "Describe the region of interest in the image."
NO_BOX = "rows without a box"
FIELDS = ("bbox", "boxes", "bounding_box", "roi")


def medtrinity(
    source: Any,
    split: str | None = None,
    name: str = "MedTrinity-25M",
    *,
    boxes: str | os.PathLike[str] | None = None,
    without: str = "keep",
    question: str = QUESTION,
    images: str | os.PathLike[str] | None = None,
    config: str | None = None,
    download: bool = False,
    box_format: str | None = None,
    bad_rows: str = "raise",
) -> Samples:
    """Returns one sample for each row of MedTrinity-25M: an image, and its description as the answer.

    A row has `image`, `id` and `caption`. **The rows on the hub describe regions in words and hold no boxes**; the
    boxes and masks behind them come from the source sets. They are read from a column `bbox` (or `boxes`,
    `bounding_box`, `roi`) where the rows have one, or from a file of `id` and `bbox`. `meta` has the other columns.
    The group is the image.

    Args:
        source: A source that `interp.data.hub` reads: a `datasets` object, a folder, an id
            (`UCSC-VLAA/MedTrinity-25M`), or a list of dicts.
        split: The part of a `DatasetDict`, folder or id to read.
        name: The name of the samples.
        boxes: A .jsonl file, or a .json list, of objects with `id` and `bbox` (a box or a list of boxes).
        without: The treatment of rows without a box: "keep" makes samples without one, "skip" leaves them out and
            counts them.
        question: The question of every sample.
        images: The folder of the images, where `image` is a path.
        config: The configuration of the id, "25M_demo" or "25M_full".
        download: Whether an id may be downloaded; otherwise it is read from the cache of `datasets`.
        box_format: The format of the boxes, as for `interp.Sample`. None stands for "xyxy", but refuses boxes that look
            like fractions of the image.
        bad_rows: "raise" raises an error at the first bad row; "record" keeps a stand-in for each, which a study
            records as a failure.

    Raises:
        DataError: Another layout or an invalid row; the message names the row.

    Source: Xie et al., 2024 (arXiv 2408.02900); the columns are those of public loaders of `UCSC-VLAA/MedTrinity-25M`.
    The columns and the file of boxes are our own convention.
    """
    check_format(box_format)
    check_one_of("without", without, ("keep", "skip"), DataError)
    if not isinstance(question, str) or not question.strip() or faulty_text("question", question):
        raise DataError(f"question is a text that is not empty; got {brief(question)}.")
    table = opened(source, split=split, config=config, download=download)
    if "caption" not in table.columns:
        raise DataError(
            f"{table.name} has no column caption of MedTrinity-25M; it has {brief(list(table.columns))}."
        )
    folder = table.folder if images is None else as_path(images, "the folder of images")
    known = None if boxes is None else _boxes_by_id(as_path(boxes, "the file of boxes"))
    reading = _Reading(
        partial(image_in, folder), known, without == "skip", question, box_format, table.split, Counter()
    )
    return checked(Samples(collect(table.rows, reading.samples, bad_rows), name, reading.dropped))


def _boxes_by_id(path: Any) -> dict[str, Any]:
    rows = line_rows(path) if path.suffix.lower() == ".jsonl" else json_rows(path, read_json(path, list))
    found: dict[str, Any] = {}
    for row in rows:
        if not isinstance(row.values, Mapping) or "id" not in row.values or "bbox" not in row.values:
            raise DataError(
                f"{shown(path)}, {row.unit} {row.number}: expected id and bbox, got {brief(row.values)}"
            )
        found[str(row.values["id"])] = row.values["bbox"]
    return found


@dataclass(frozen=True)
class _Reading:
    image: Any
    boxes: Mapping[str, Any] | None
    skips: bool
    question: str
    box_format: str | None
    split: str | None
    dropped: Counter[str]

    def samples(self, row: Row) -> list[Sample]:
        """The sample of a row."""
        key, field = row.values.get("id"), next((one for one in FIELDS if one in row.values), "bbox")
        cell = plain(row.values.get(field) if self.boxes is None else self.boxes.get(str(key)))
        if is_missing(cell) or cell == []:
            if self.skips:
                self.dropped[NO_BOX] += 1
                return []
            cell = []
        if not isinstance(cell, list):
            raise row.bad(field, f"expected a box or a list of boxes, got {brief(cell)}")
        image = self.image(row, "image", row.values.get("image"))
        listed = [cell] if cell and not isinstance(cell[0], list) else cell
        used = ("image", "id", "caption", field)
        return [
            Sample(
                image,
                self.question,
                boxes_of(row, field, listed, [image], self.box_format),
                text_of(row, "caption"),
                meta={
                    **({} if self.split is None else {"split": self.split}),
                    **{name: plain(value) for name, value in row.values.items() if name not in used},
                },
                id=None if is_missing(key) else str(key),
            )
        ]
