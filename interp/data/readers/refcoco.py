"""RefCOCO, RefCOCO+ and RefCOCOg: expressions that refer to one thing in a photograph of COCO, with its box."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from interp.data.labelled import NO_AREA
from interp.data.lines import Row, as_path, collect, json_rows, parsed_json, read_json, shown
from interp.data.row_fields import as_path_in, boxes_of, image_in
from interp.data.samples import Samples
from interp.data.table_rows import opened, plain
from interp.errors import DataError
from interp.inputs.argument_checks import check_one_of
from interp.inputs.boxes import check_format
from interp.inputs.images import ImageLike
from interp.inputs.sample import Sample
from interp.inputs.text import brief, faulty_text

__all__ = ["refcoco"]

QUESTION = "Where is {expression}?"
PICKLES = (".p", ".pkl", ".pickle")
SPLITS = {"val": "validation"}


def refcoco(
    source: Any,
    images: str | os.PathLike[str] | None = None,
    split: str | None = None,
    name: str = "RefCOCO",
    *,
    instances: str | os.PathLike[str] | None = None,
    expressions: str = "all",
    question: str = QUESTION,
    config: str | None = None,
    download: bool = False,
    box_format: str = "xywh",
    bad_rows: str = "raise",
) -> Samples:
    """Returns one sample for each expression (or the first of each thing) of RefCOCO, RefCOCO+ or RefCOCOg.

    Three layouts are read:

    - The original one, `refs(unc).p` and `instances.json`. The first is a pickle, which can run code, so it is refused;
      write it as JSON once and pass that file and `instances`. A row has `ann_id`, `image_id`, `split` and
      `sentences` (a list of objects with `sent`); box and file name come from `instances`.
    - `jxu124/refcoco` and similar sets on the hub: `sentences`, `image_path` or `file_name`, and the annotation as JSON
      in `raw_anns`, whose `bbox` is taken.
    - `lmms-lab/RefCOCO` and similar sets: `image`, `answer` (a list of expressions), `bbox`.

    The box is the thing's, (x, y, width, height) in pixels as in COCO. Things whose box has no area are left out and
    counted. `meta` has `expression`, `split` ("val" becomes "validation"), `ref_id`, `ann_id` and `image_id` where the
    source has them. The group is the image.

    Args:
        source: A JSON file, or a source that `interp.data.hub` reads: a `datasets` object, a folder, an id, or a list
            of dicts.
        images: The folder of COCO's `train2014` images, where the source names files.
        split: The split, "train", "val", "testA", …: its rows of a file, or that part of a `DatasetDict`. None reads
            all.
        name: The name of the samples.
        instances: The original `instances.json`, for a source without boxes of its own.
        expressions: The expressions of a thing to take, "all" or the "first".
        question: A template with {expression} for the expression.
        config: The configuration of an id.
        download: Whether an id may be downloaded; otherwise it is read from the cache of `datasets`.
        box_format: The format of the boxes, as for `interp.Sample`.
        bad_rows: "raise" raises an error at the first bad row; "record" keeps a stand-in for each, which a study
            records as a failure.

    Raises:
        DataError: A pickle, another layout, a missing file, or an invalid row; the message names the row.

    Source: github.com/lichengunc/refer; the cards of `jxu124/refcoco` and `lmms-lab/RefCOCO`. The hub's layouts were
    read from those cards, not from the data; that `bbox` of `lmms-lab` is (x, y, width, height) is how lmms-eval
    reads it.
    """
    check_format(box_format)
    check_one_of("expressions", expressions, ("all", "first"), DataError)
    _check_question(question)
    if not isinstance(split, str | None):
        raise DataError(f"split is a text, such as 'val', or None for all; got {brief(split)}.")
    if isinstance(source, str | os.PathLike):
        _check_no_pickle(as_path(source))
    known = None if instances is None else _Instances.read(as_path(instances, "instances"))
    rows, part = _rows(source, split, config, download)
    folder = None if images is None else as_path(images, "the folder of images")
    reading = _Reading(folder, known, expressions, question, box_format, part, Counter())
    return Samples(collect(rows, reading.samples, bad_rows), name, reading.dropped)


def _check_question(question: Any) -> None:
    problem = faulty_text("question", question) if isinstance(question, str) else None
    try:
        right = isinstance(question, str) and "x" in question.format(expression="x") and "{" in question
    except (KeyError, IndexError, ValueError, TypeError, AttributeError):
        right = False
    if not right or problem:
        raise DataError(
            f"question is a text with {{expression}} in it, such as {QUESTION!r}; got {brief(question)}."
        )


def _check_no_pickle(path: Path) -> None:
    if path.suffix.lower() in PICKLES:
        raise DataError(
            f"{shown(path)} is a pickle, which can run code when it is read, so it is refused. If you trust where it "
            "comes from, write it as JSON once, as docs/data.md shows, and pass that file and "
            "instances='instances.json'."
        )


def _rows(
    source: Any, split: str | None, config: str | None, download: bool
) -> tuple[Iterator[Row], str | None]:
    """The rows of a split, and the name of the split where the rows do not hold it."""
    if isinstance(source, str | os.PathLike) and os.fspath(source).lower().endswith(".json"):
        path = as_path(source)
        rows = list(json_rows(path, read_json(path, list)))
    else:
        table = opened(source, split=split, config=config, download=download)
        rows, named = table.rows, "split" in table.columns
        if not named:
            return rows, table.split
    if split is None:
        return iter(rows), None
    return (
        row for row in rows if not isinstance(row.values, dict) or row.values.get("split") in (split, None)
    ), None


@dataclass(frozen=True)
class _Instances:
    """Boxes and files of the original instances.json."""

    path: Path
    boxes: Mapping[Any, Any]
    files: Mapping[Any, Any]

    @classmethod
    def read(cls, path: Path) -> _Instances:
        """The boxes and files of an instances.json; raises `DataError` for any other file."""
        content = read_json(path, dict)
        parts = [content.get(part) for part in ("annotations", "images")]
        if not all(isinstance(part, list) and all(isinstance(one, dict) for one in part) for part in parts):
            raise DataError(
                f"{shown(path)}: expected annotations and images, got {brief(sorted(map(str, content)))}."
            )
        held: list[dict[Any, Any]] = []
        for part, field, rows in zip(("annotations", "images"), ("bbox", "file_name"), parts, strict=True):
            for number, one in enumerate(rows or ()):
                if not isinstance(one.get("id"), int | str):
                    raise DataError(f"{shown(path)}, {part}, item {number}: expected an id, got {brief(one)}")
            held.append({one["id"]: one.get(field) for one in rows or ()})
        return cls(path, *held)


@dataclass(frozen=True)
class _Reading:
    folder: Path | None
    instances: _Instances | None
    expressions: str
    question: str
    box_format: str
    split: str | None
    dropped: Counter[str]

    def samples(self, row: Row) -> list[Sample]:
        """The samples of a row, one per expression."""
        field, box = self._box(row)
        if isinstance(box, list) and len(box) == 4 and self.box_format == "xywh" and not (box[2] and box[3]):
            self.dropped[NO_AREA] += 1
            return []
        image = self._image(row)
        boxes = boxes_of(row, field, [box], [image], self.box_format)
        said = _expressions(row)
        split = row.values.get("split", self.split)
        meta = {key: plain(row.values[key]) for key in ("ref_id", "ann_id", "image_id") if key in row.values}
        return [
            Sample(
                image,
                self.question.format(expression=one),
                boxes,
                group=str(row.values.get("image_id", row.values.get("file_name", row.id))),
                meta={"expression": one, **meta, "split": SPLITS.get(str(split), split)},
                id=f"{row.id}:{number}",
            )
            for number, one in enumerate(said if self.expressions == "all" else said[:1])
        ]

    def _box(self, row: Row) -> tuple[str, Any]:
        """The field that gives the box, and the box."""
        if self.instances is not None:
            key = row.values.get("ann_id")
            if not isinstance(key, int | str) or key not in self.instances.boxes:
                raise row.bad("ann_id", f"no annotation {brief(key)} in {shown(self.instances.path)}")
            return "ann_id", self.instances.boxes[key]
        raw = row.values.get("raw_anns")
        if isinstance(raw, str):
            found = parsed_json(raw, f"{row.at}, field 'raw_anns'", "cell")
            return "raw_anns", found.get("bbox") if isinstance(found, dict) else found
        if row.values.get("bbox") is None:
            raise row.bad(
                "bbox", "the row has no box. For the original layout pass instances='instances.json'"
            )
        return "bbox", plain(row.values["bbox"])

    def _image(self, row: Row) -> ImageLike:
        cell = row.values.get("image")
        if cell is not None and not isinstance(cell, str):
            return image_in(Path("."), row, "image", cell)
        key, known = row.values.get("image_id"), None
        if self.instances is not None and isinstance(key, int | str):
            known = self.instances.files.get(key)
        named = next(
            (one for one in (known, cell, row.values.get("image_path"), row.values.get("file_name")) if one),
            None,
        )
        if self.folder is None:
            raise row.bad(
                "file_name", f"the image is the file {brief(named)}. Pass the folder of the images as images="
            )
        finder = partial(as_path_in, self.folder, row, "file_name")
        if not isinstance(named, str):
            return finder(named)
        last = Path(named).name
        return finder(named if os.path.isfile(self.folder / named) else last)


def _expressions(row: Row) -> Sequence[str]:
    """The expressions of a row: `sentences`, `captions` or a list `answer`."""
    found = plain(row.values.get("sentences"))
    if isinstance(found, list) and all(isinstance(one, dict) for one in found):
        found = [one.get("sent") or one.get("raw") for one in found]
    if not found:
        found = plain(row.values.get("captions") or row.values.get("answer"))
    if (
        not isinstance(found, list)
        or not found
        or not all(isinstance(one, str) and one.strip() for one in found)
    ):
        raise row.bad(
            "sentences", f"expected a list of expressions (sentences, captions or answer), got {brief(found)}"
        )
    return found
