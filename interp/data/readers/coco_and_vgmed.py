"""VGMED: questions on medical images, with the boxes that the answers rest on.

`coco` reads rows of the same format: the natural images that VGMED is compared with, and two kinds of questions.
"""

from __future__ import annotations

import math
import os
import posixpath
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from interp.data.lines import Row, as_path, read_lines, shown
from interp.data.row_fields import as_number
from interp.data.samples import Samples
from interp.errors import DataError, InterpError
from interp.inputs.boxes import check_format
from interp.inputs.files import unreadable
from interp.inputs.images import image_size
from interp.inputs.sample import Box, Sample, as_boxes
from interp.inputs.text import brief, storable

__all__ = ["KINDS", "RowFormat", "check_kind", "coco", "described", "read_rows", "vgmed"]


KINDS = ("localization", "attribute")
BOX_FIELDS = ("bbox", "original_bboxes")
_READ = {"image", "question", "answer", *BOX_FIELDS}


@dataclass(frozen=True)
class RowFormat:
    """The format of the rows of one source.

    Attributes:
        find: A function that returns the image's file, from the folder of images and the row's `image`.
        box_format: A function that returns the format of the boxes of the row's `image`, as for `interp.Sample`; None
            stands for "xyxy".
        describe: A function that returns `group` and `meta` of the row's `image`.
        box_field: The field to read, `bbox` or `original_bboxes`, for rows that have both and whose values differ.
    """

    find: Callable[[Path, str], Path]
    box_format: Callable[[str], str | None]
    describe: Callable[[str], tuple[str, Mapping[str, Any]]]
    box_field: str | None = None


_READING = {
    "xywh": "(x, y, width, height)",
    "cxcywh": "(centre x, centre y, width, height)",
    "fraction": "(x0, y0, x1, y1) as fractions of the image",
}


def _text(row: Row, name: str) -> str:
    value = row.values.get(name)
    if not isinstance(value, str) or not value.strip():
        raise row.bad(name, f"expected a text that is not empty, got {brief(value)}")
    return value


def check_kind(kind: Any) -> None:
    """Raises `DataError` unless `kind` is one of `KINDS`."""
    if not isinstance(kind, str) or kind not in KINDS:
        raise DataError(f"kind is {' or '.join(map(repr, KINDS))}; got {brief(kind)}.")


def read_rows(
    path: Path, images: Path, kind: str, row_format: RowFormat, name: str, bad_rows: str = "raise"
) -> Samples:
    """Returns the samples of a file of one JSON object a line, each with one or several boxes inside its image.

    Boxes are one list of four numbers or a list of such lists; a number may be written as text. Other fields of a
    row go to `meta`. Ids are `file:line`. The header of each image is read once.

    Raises:
        DataError: The kind is unknown, the file is missing or empty, or a row is invalid: it is not JSON, or has no
            question, no image, no box, an invalid box or a box outside its image. The message names file and line.
    """
    check_kind(kind)
    field = row_format.box_field
    if field is not None and not (isinstance(field, str) and field in BOX_FIELDS):
        raise DataError(f"box_field is None, 'bbox' or 'original_bboxes'; got {brief(row_format.box_field)}.")
    sizes: dict[Path, tuple[int, int]] = {}
    return Samples(
        read_lines(path, lambda row: _sample(row, images, kind, row_format, sizes), bad_rows), name
    )


def _sample(
    row: Row, images: Path, kind: str, row_format: RowFormat, sizes: dict[Path, tuple[int, int]]
) -> Sample:
    image, question, answer = _text(row, "image"), _text(row, "question"), row.values.get("answer")
    if answer is not None and not isinstance(answer, str):
        raise row.bad("answer", f"expected a text or null, got {brief(answer)}")
    file = row_format.find(images, image)
    if problem := unreadable(file):
        where = f"no file {brief(image)} in {shown(images)}. Are the images in another folder?"
        raise row.bad("image", f"{where} It {problem}")
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
        group=storable(group),
        meta={**known, **others, "kind": kind},
        id=f"{storable(row.path.stem)}:{row.number}",
    )


def _boxes(row: Row, row_format: RowFormat, image: str, size: tuple[int, int]) -> tuple[Box, ...]:
    """Returns the row's boxes, half-open xyxy and inside the image."""
    name = _box_field(row, row_format.box_field)
    box_format, boxes = row_format.box_format(image), []
    for written in _listed(row, name):
        try:
            (box,) = as_boxes([written], box_format, lambda _: size)
            box.check_inside(size)
        except InterpError as error:
            read = _READING.get(str(box_format), "(x0, y0, x1, y1)")
            raise row.bad(name, f"{list(written)} read as {read}: {error}") from error
        boxes.append(box)
    return tuple(boxes)


def _box_field(row: Row, wanted: str | None) -> str:
    """Returns the name of the field that holds the boxes."""
    present = [name for name in BOX_FIELDS if row.values.get(name) is not None]
    if not present:
        raise row.bad(
            "bbox", f"expected boxes in 'bbox' or 'original_bboxes'; the row has {brief(sorted(row.values))}"
        )
    if len(present) == 1:
        return present[0]
    if wanted is None and _listed(row, "bbox") != _listed(row, "original_bboxes"):
        raise row.bad(
            "bbox",
            "the row has 'bbox' and 'original_bboxes' and they differ; only boxes in pixels of the image file are "
            "right. Draw one such row and pass box_field='bbox' or box_field='original_bboxes'.",
        )
    return wanted or present[0]


def _listed(row: Row, name: str) -> list[tuple[float, float, float, float]]:
    """Returns the field's boxes as they are written, four numbers each."""
    raw = row.values[name]
    flat = isinstance(raw, list) and raw and not any(isinstance(part, list) for part in raw)
    listed = [raw] if flat else raw
    wrong = row.bad(name, f"expected a list of boxes of four numbers, or one such box; got {brief(raw)}")
    if not isinstance(listed, list) or not listed:
        raise wrong
    boxes = []
    for box in listed:
        numbers = [as_number(part) for part in box] if isinstance(box, list) else []
        if len(numbers) != 4 or any(math.isnan(number) for number in numbers):
            raise wrong
        x, y, a, b = numbers
        boxes.append((x, y, a, b))
    return boxes


_PLAIN = {"ct": "CT", "mr": "MR", "mri": "MR", "pet": "PET", "us": "ultrasound", "oct": "OCT"}
_NUMBER = re.compile(r"_\d+$")


def vgmed(
    root: str | os.PathLike[str],
    kind: str = "localization",
    *,
    box_field: str | None = None,
    box_format: str | None = None,
    bad_rows: str = "raise",
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
        kind: The kind of questions, "localization" or "attribute".
        box_field: The field to read, "bbox" or "original_bboxes", for rows that have both and whose values differ.
        box_format: The format of all boxes, as for `interp.Sample`; None reads them as above.
        bad_rows: "raise" raises an error at the first bad row; "record" keeps a stand-in for each, which a study
            records as a failure.

    Raises:
        DataError: The kind is unknown, the file is missing or empty, or a row is invalid; the message names file
            and line.
        BoxError: The format of boxes is unknown.

    Source: arXiv 2603.14323 and its code.
    """
    root = as_path(root, "the folder")
    check_kind(kind)
    check_format(box_format)
    row_format = RowFormat(
        find=lambda folder, image: folder / image,
        box_format=lambda image: box_format or ("xywh" if _slake(image) else None),
        describe=described,
        box_field=box_field,
    )
    path = root / f"VGMED_{kind}.jsonl"
    return read_rows(path, root, kind, row_format, f"VGMED {kind}", bad_rows)


def _slake(image: str) -> bool:
    return image.startswith("Slake") or PurePosixPath(image).name.startswith("Slake")


def described(image: str) -> tuple[str, Mapping[str, Any]]:
    """Returns the group and the meta that an image's name gives."""
    parts = PurePosixPath(image).stem.split("--")
    if _slake(image):
        return posixpath.normpath(image), {"modality": None, "source": "SLAKE"}
    if len(parts) < 3 or not all(parts):
        return posixpath.normpath(image), {"modality": None, "source": None}
    modality, source, case = parts[:3]
    return f"{source}--{case}", {"modality": _modality(modality), "source": source}


def _modality(written: str) -> str:
    """Returns a modality in plain words: the part before the first underscore, where that is well known."""
    head = written.split("_")[0].lower()
    return _PLAIN.get(head) or _NUMBER.sub("", written).replace("_", " ")


def coco(
    root: str | os.PathLike[str],
    annotations: str | os.PathLike[str],
    kind: str = "localization",
    *,
    box_field: str | None = None,
    box_format: str | None = None,
    bad_rows: str = "raise",
) -> Samples:
    """Returns the questions of one kind on COCO's val2014, from the file that comes with VGMED.

    Reads `COCO_{kind}.jsonl` in `annotations`. An image lies in `root` under the path that its row gives, or else
    under the last part of that path (so `val2014/COCO_val2014_….jpg` is found when `root` is `val2014`). Rows are as
    in `vgmed`, except that **every box is (x, y, width, height)**. `meta` has `kind`, `modality` "photograph" and
    `source` "COCO val2014", unless the row gives other values. `group` is the image.

    The file names, the fields and the box format come from a description of the official code. **They were not
    checked against a real file.** Draw a few samples with their boxes before you trust any number.

    Args:
        root: The folder of the images.
        annotations: The folder of `COCO_*.jsonl`.
        kind: The kind of questions, "localization" or "attribute".
        box_field: The field to read, "bbox" or "original_bboxes", for rows that have both and whose values differ.
        box_format: The format of all boxes, as for `interp.Sample`; None reads them as (x, y, width, height).
        bad_rows: "raise" raises an error at the first bad row; "record" keeps a stand-in for each, which a study
            records as a failure.

    Raises:
        DataError: The kind is unknown, the file is missing or empty, or a row is invalid; the message names file
            and line.
        BoxError: The format of boxes is unknown.

    Source: arXiv 2603.14323 and its code; images of Lin et al., 2014.
    """
    check_kind(kind)
    check_format(box_format)
    row_format = RowFormat(
        find=_find, box_format=lambda image: box_format or "xywh", describe=_described, box_field=box_field
    )
    path = as_path(annotations, "the folder of annotations") / f"COCO_{kind}.jsonl"
    images = as_path(root, "the folder of images")
    return read_rows(path, images, kind, row_format, f"COCO {kind}", bad_rows)


def _find(folder: Path, image: str) -> Path:
    written = folder / image
    return written if unreadable(written) is None else folder / PurePosixPath(image).name


def _described(image: str) -> tuple[str, Mapping[str, Any]]:
    return PurePosixPath(image).name, {"modality": "photograph", "source": "COCO val2014"}
