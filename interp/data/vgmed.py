"""VGMED: questions on medical images, with the boxes that the answers rest on. `coco` reads the same kind of rows."""

from __future__ import annotations

import json
import math
import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from interp.data.samples import Samples
from interp.errors import DataError, InterpError
from interp.inputs.images import image_size
from interp.inputs.sample import Box, Sample

__all__ = ["KINDS", "RowFormat", "read_rows", "vgmed"]

KINDS = ("localization", "attribute")
BOX_FIELDS = ("bbox", "original_bboxes")
_READ = {"image", "question", "answer", *BOX_FIELDS}


@dataclass(frozen=True)
class RowFormat:
    """How the rows of one source are written.

    Attributes:
        find: Returns the image's file from the folder of images and the row's `image`.
        is_xywh: Whether the boxes of the row's `image` are (x, y, width, height) rather than (x0, y0, x1, y1).
        describe: Returns `group` and `meta` of the row's `image`.
        box_field: The field to read, `bbox` or `original_bboxes`, for rows that have both and whose values differ.
    """

    find: Callable[[Path, str], Path]
    is_xywh: Callable[[str], bool]
    describe: Callable[[str], tuple[str, Mapping[str, Any]]]
    box_field: str | None = None


@dataclass(frozen=True)
class _Row:
    """A row with its file and line for error messages."""

    path: Path
    number: int
    values: Mapping[str, Any] = field(default_factory=dict)

    def bad(self, name: str, problem: str) -> DataError:
        return DataError(f"{self.path}, line {self.number}, field {name!r}: {problem}")

    def text(self, name: str) -> str:
        value = self.values.get(name)
        if not isinstance(value, str) or not value.strip():
            raise self.bad(name, f"expected a text that is not empty, got {value!r}")
        return value


def read_rows(path: Path, images: Path, kind: str, row_format: RowFormat, name: str) -> Samples:
    """Returns the samples of a file of one JSON object a line, each with one or several boxes inside its image.

    Boxes are one list of four numbers or a list of such lists; a number may be written as text. Other fields of a
    row go to `meta`. Ids are `file:line`. The header of each image is read once.

    Raises:
        DataError: The kind is unknown, the file is missing or empty, or a row is invalid: it is not JSON, or has no
            question, no image, no box, an invalid box or a box outside its image. The message names file and line.
    """
    if kind not in KINDS:
        raise DataError(f"kind is {' or '.join(map(repr, KINDS))}; got {kind!r}.")
    if row_format.box_field not in (None, *BOX_FIELDS):
        raise DataError(f"box_field is None, 'bbox' or 'original_bboxes'; got {row_format.box_field!r}.")
    try:
        lines = path.read_text(encoding="utf-8-sig").split("\n")  # splitlines also cuts inside JSON texts
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(
            f"{path} cannot be read as a UTF-8 text file: {error}. Is the folder right?"
        ) from error
    sizes: dict[Path, tuple[int, int]] = {}
    rows = (_parsed(path, number, line) for number, line in enumerate(lines, start=1) if line.strip())
    samples = [_sample(row, images, kind, row_format, sizes) for row in rows]
    if not samples:
        raise DataError(f"{path} holds no rows; expected one JSON object a line.")
    return Samples(samples, name)


def _parsed(path: Path, number: int, line: str) -> _Row:
    try:
        values = json.loads(line)
    except json.JSONDecodeError as error:
        raise DataError(f"{path}, line {number}: not JSON ({error})") from error
    if not isinstance(values, dict):
        raise DataError(f"{path}, line {number}: expected a JSON object, got {type(values).__name__}")
    return _Row(path, number, values)


def _sample(
    row: _Row, images: Path, kind: str, row_format: RowFormat, sizes: dict[Path, tuple[int, int]]
) -> Sample:
    image, question, answer = row.text("image"), row.text("question"), row.values.get("answer")
    if answer is not None and not isinstance(answer, str):
        raise row.bad("answer", f"expected a text or null, got {answer!r}")
    file = row_format.find(images, image)
    if not file.is_file():
        raise row.bad("image", f"no file {image!r} in {images}. Are the images in another folder?")
    group, known = row_format.describe(image)
    others = {name: value for name, value in row.values.items() if name not in _READ}
    try:
        if file not in sizes:
            sizes[file] = image_size(file)
    except InterpError as error:
        raise row.bad("image", str(error)) from error
    return Sample(
        image=str(file),
        question=question,
        boxes=_boxes(row, row_format, image, sizes[file]),
        answer=answer,
        group=group,
        meta={**known, **others, "kind": kind},
        id=f"{row.path.stem}:{row.number}",
    )


def _boxes(row: _Row, row_format: RowFormat, image: str, size: tuple[int, int]) -> tuple[Box, ...]:
    """Returns the row's boxes, half-open xyxy and inside the image."""
    name = _box_field(row, row_format.box_field)
    xywh, written = row_format.is_xywh(image), _listed(row, name)
    boxes = []
    for x, y, a, b in written:
        try:
            box = Box(x, y, x + a, y + b) if xywh else Box(x, y, a, b)
            box.check_inside(size)
        except InterpError as error:
            read = "(x, y, width, height)" if xywh else "(x0, y0, x1, y1)"
            raise row.bad(name, f"{[x, y, a, b]} read as {read}: {error}") from error
        boxes.append(box)
    return tuple(boxes)


def _box_field(row: _Row, wanted: str | None) -> str:
    """Returns the name of the field that holds the boxes."""
    present = [name for name in BOX_FIELDS if row.values.get(name) is not None]
    if not present:
        raise row.bad(
            "bbox", f"expected boxes in 'bbox' or 'original_bboxes'; the row has {sorted(row.values)}"
        )
    if len(present) == 1:
        return present[0]
    if wanted is None and _listed(row, "bbox") != _listed(row, "original_bboxes"):
        raise row.bad(
            "bbox",
            "the row has 'bbox' and 'original_bboxes' and they differ; only boxes in pixels of the image file are "
            "right. Draw one such row and pass box_field=",
        )
    return wanted or present[0]


def _listed(row: _Row, name: str) -> list[tuple[float, float, float, float]]:
    """Returns the field's boxes as they are written, four numbers each."""
    raw = row.values[name]
    flat = isinstance(raw, list) and raw and not any(isinstance(part, list) for part in raw)
    listed = [raw] if flat else raw
    wrong = row.bad(name, f"expected a list of boxes of four numbers, or one such box; got {raw!r}")
    if not isinstance(listed, list) or not listed:
        raise wrong
    boxes = []
    for box in listed:
        numbers = [_number(part) for part in box] if isinstance(box, list) else []
        if len(numbers) != 4 or any(math.isnan(number) for number in numbers):
            raise wrong
        x, y, a, b = numbers
        boxes.append((x, y, a, b))
    return boxes


def _number(value: Any) -> float:
    """Returns a finite number that is written as a number or as text; NaN for anything else."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return math.nan
    try:
        number = float(value)
    except ValueError:
        return math.nan
    return number if math.isfinite(number) else math.nan


_PLAIN = {"ct": "CT", "mr": "MR", "mri": "MR", "pet": "PET", "us": "ultrasound", "oct": "OCT"}
_NUMBER = re.compile(r"_\d+$")


def vgmed(
    root: str | os.PathLike[str], kind: str = "localization", *, box_field: str | None = None
) -> Samples:
    """Returns the questions of one kind of VGMED, from its folder.

    Reads `VGMED_{kind}.jsonl` in `root`; each row's `image` is a path in `root`. A row has `image`, `question`
    and `bbox` or `original_bboxes`: one or several boxes in pixels of the image, which become the sample's boxes
    (metrics take their union). Boxes are (x0, y0, x1, y1), **except** that they are (x, y, width, height) where
    the image's file name, or its path in the row, starts with `Slake`. An `answer` is kept. Other fields go to
    `meta`.

    `meta` has `kind`, `modality` and `source` (the source set). An image named as in SA-Med2D-20M,
    `ct_00--AbdomenCT1K--Case_00011--x_0040.png`, gives modality "CT" and source "AbdomenCT1K"; an image whose name
    starts with `Slake` gives source "SLAKE" and modality None; for other images both are None. A row's own fields
    `modality` and `source` override these values. `group` is the source set and case of such a name,
    `AbdomenCT1K--Case_00011`, so that slices of one volume form one group; for other images it is the image.

    The file names, the fields, the union and the two box formats come from a description of the official code
    (`Guimeng-Leo-Liu/Medical-MLLMs-Fail`); the image names come from SA-Med2D's own description. **They were not
    checked against a real file.** Unverified: that `image` is relative to `root`, that names of 2-D sets have the
    same four parts, and that there are no other fields. The reader raises an error for a row whose two box fields
    differ. Draw a few samples with their boxes before you trust any number.

    Args:
        root: The folder of `VGMED_*.jsonl`, as in the Hugging Face data set `guimeng-liu/VGMED`.
        kind: "localization" or "attribute".
        box_field: The field to read, "bbox" or "original_bboxes", for rows that have both and whose values differ.

    Raises:
        DataError: The kind is unknown, the file is missing or empty, or a row is invalid; the message names file
            and line.

    Source: arXiv 2603.14323 and its code.
    """
    root = Path(root)
    row_format = RowFormat(
        find=lambda folder, image: folder / image, is_xywh=_slake, describe=_described, box_field=box_field
    )
    return read_rows(root / f"VGMED_{kind}.jsonl", root, kind, row_format, f"VGMED {kind}")


def _slake(image: str) -> bool:
    return image.startswith("Slake") or PurePosixPath(image).name.startswith("Slake")


def _described(image: str) -> tuple[str, Mapping[str, Any]]:
    """Returns group and meta, as far as the image's name gives them."""
    parts = PurePosixPath(image).stem.split("--")
    if _slake(image):
        return image, {"modality": None, "source": "SLAKE"}
    if len(parts) < 3 or not all(parts):
        return image, {"modality": None, "source": None}
    modality, source, case = parts[:3]
    return f"{source}--{case}", {"modality": _modality(modality), "source": source}


def _modality(written: str) -> str:
    """Returns a modality in plain words: the part before the first underscore, where that is well known."""
    head = written.split("_")[0].lower()
    return _PLAIN.get(head) or _NUMBER.sub("", written).replace("_", " ")
