"""S-Chain: brain MR slices with four questions each that build on one another, and the boxes behind the answers."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from interp.data.lines import Row, as_path, collect, parsed_json
from interp.data.readers.hub import checked
from interp.data.row_fields import boxes_of, image_in, text_of
from interp.data.samples import Samples
from interp.data.table_rows import is_missing, opened, plain
from interp.errors import DataError
from interp.inputs.boxes import check_format
from interp.inputs.images import ImageLike, image_size
from interp.inputs.sample import Sample
from interp.inputs.text import brief

__all__ = ["STEPS", "s_chain"]

STEPS = {1: "localization", 2: "description", 3: "grading", 4: "diagnosis"}
"""Number of a question → the step of the reasoning."""
BOXES = "Bbox coordinates normalized (X, Y, W, H)"
SLACK = 1e-3
READ = ("image", "image_with_bboxes", BOXES, *(f"{kind}{step}" for kind in "QA" for step in STEPS))


def s_chain(
    source: Any,
    split: str | None = None,
    name: str = "S-Chain",
    *,
    steps: Sequence[int] = (1, 2, 3, 4),
    images: str | os.PathLike[str] | None = None,
    config: str | None = "English",
    download: bool = False,
    box_format: str | None = None,
    bad_rows: str = "raise",
) -> Samples:
    """Returns one sample for each image and step of the reasoning in S-Chain.

    A row has an `image`, `Patient ID`, `Slide`, and four questions `Q1` … `Q4` with answers `A1` … `A4`: where the
    disease shows (A1 is the boxes), what is seen, its grades, and the diagnosis. The boxes are a text in
    `Bbox coordinates normalized (X, Y, W, H)`, such as `[[0.32, 0.19, 0.25, 0.26]]`, and belong to every step; a row
    without them (no disease) gives samples without boxes. `meta` has `step` (1 … 4), `kind` (`STEPS`), `chain` (the
    questions and answers of the steps before), and the row's other columns. The group is the patient.

    Args:
        source: A source that `interp.data.hub` reads: a `datasets` object, a folder, an id (`leduckhai/S-Chain`), or a
            list of dicts.
        split: The part of a `DatasetDict`, folder or id to read, "train" or "test".
        name: The name of the samples.
        steps: The questions to take, some of 1, 2, 3 and 4.
        images: The folder of the images, where `image` is a path.
        config: The language of an id: "English", "French", …
        download: Whether an id may be downloaded; otherwise it is read from the cache of `datasets`.
        box_format: The format of the boxes, as for `interp.Sample`. None reads a box as (left, top, width, height) in
            fractions of the image, as the column's name says, and refuses one that ends outside. **Public rows hold
            boxes that fit both readings**: draw some, and pass "fraction" if they are (x0, y0, x1, y1).
        bad_rows: "raise" raises an error at the first bad row; "record" keeps a stand-in for each, which a study
            records as a failure.

    Raises:
        DataError: Another layout, an unknown step, or an invalid row; the message names the row.

    Source: Le-Duc et al., 2025 (arXiv 2510.22728) and the card of `leduckhai/S-Chain`. The meaning of the columns is
    inferred from the card and public rows.
    """
    check_format(box_format)
    listed = list(steps) if isinstance(steps, list | tuple | set | range) else []
    if not listed or not all(type(one) is int and one in STEPS for one in listed):
        raise DataError(f"steps are some of 1, 2, 3 and 4, such as steps=[1, 4]; got {brief(steps)}.")
    table = opened(source, split=split, config=config, download=download)
    if "Q1" not in table.columns:
        raise DataError(
            f"{table.name} has no columns Q1 … Q4 of S-Chain; it has {brief(list(table.columns))}."
        )
    folder = table.folder if images is None else as_path(images, "the folder of images")
    reading = _Reading(partial(image_in, folder), listed, box_format, table.split)
    return checked(Samples(collect(table.rows, reading.samples, bad_rows), name))


@dataclass(frozen=True)
class _Reading:
    image: Any
    steps: list[int]
    box_format: str | None
    split: str | None

    def samples(self, row: Row) -> list[Sample]:
        """The samples of a row, one per step."""
        image = self.image(row, "image", row.values.get("image"))
        boxes = self._boxes(row, image)
        patient = plain(row.values.get("Patient ID"))
        turns = {
            step: (text_of(row, f"Q{step}"), plain(row.values.get(f"A{step}"))) for step in sorted(STEPS)
        }
        others = {key: plain(value) for key, value in row.values.items() if key not in READ}
        return [
            Sample(
                image,
                turns[step][0],
                boxes,
                None if is_missing(turns[step][1]) else str(turns[step][1]),
                group=None if is_missing(patient) else str(patient),
                meta={
                    **({} if self.split is None else {"split": self.split}),
                    **others,
                    "step": step,
                    "kind": STEPS[step],
                    "chain": [list(turns[one]) for one in sorted(STEPS) if one < step],
                    "modality": "MR",
                },
                id=f"{row.id}:Q{step}",
            )
            for step in self.steps
        ]

    def _boxes(self, row: Row, image: ImageLike) -> Any:
        cell = plain(row.values.get(BOXES))
        field = BOXES if cell is not None else "A1"
        cell = plain(row.values.get("A1")) if cell is None else cell
        if is_missing(cell):
            return ()
        if isinstance(cell, str):
            if field == "A1" and not cell.strip().startswith("["):
                return ()
            cell = parsed_json(cell, f"{row.at}, field {field!r}", "cell")
        listed = [cell] if isinstance(cell, list) and cell and not isinstance(cell[0], list) else cell
        numbers = isinstance(listed, list) and all(
            isinstance(box, list) and len(box) == 4 and all(isinstance(one, int | float) for one in box)
            for box in listed
        )
        if not numbers:
            raise row.bad(field, f"expected boxes of four fractions, got {brief(cell)}")
        if self.box_format is not None:
            return boxes_of(row, field, listed, [image], self.box_format)
        size = image_size(image) if listed else (1, 1)
        return boxes_of(row, field, [_pixels(row, field, box, size) for box in listed], [image], "xywh")


def _pixels(row: Row, field: str, box: list[float], size: tuple[int, int]) -> tuple[float, ...]:
    """The box in pixels, from left, top, width and height in fractions."""
    x, y, width, height = box
    if min(box) < -SLACK or x + width > 1 + SLACK or y + height > 1 + SLACK:
        raise row.bad(
            field,
            f"the box {box}, read as (left, top, width, height) in fractions, ends outside the image. If these are "
            "(x0, y0, x1, y1), pass box_format='fraction'.",
        )
    return x * size[0], y * size[1], width * size[0], height * size[1]
