"""Reads JSON-lines files: one JSON object a line. Errors name the file, the line and the field."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from interp.data.samples import Samples
from interp.errors import DataError, InterpError
from interp.inputs.sample import Box, Sample, as_boxes

__all__ = ["jsonl"]

_TYPES: dict[str, tuple[type, ...]] = {
    "image": (str,),
    "images": (list,),
    "question": (str,),
    "answer": (str, type(None)),
    "options": (list, type(None)),
    "group": (str, int, type(None)),
    "id": (str, int),
    "meta": (dict,),
    "size": (list,),
    "boxes": (list,),
    "bbox": (list,),
}
_KNOWN = {"image", "images", "boxes", "bbox", "question", "answer", "options", "group", "id", "meta"}


def jsonl(path: str | Path, name: str | None = None) -> Samples:
    """Returns the samples of a JSON-lines file.

    A row needs `question` and `image` (or `images`, a list), paths relative to the file's folder. It may have
    `boxes` or `bbox` (a list of xyxy boxes in pixels, half-open, or one such box), `answer`, `options`,
    `group`, `id`, `meta`, and `size` ([width, height] of the image; boxes must lie inside it). Every other
    field goes to the sample's `meta`. Empty lines are skipped.

    Raises:
        DataError: The file is missing or empty, or a row is invalid; the message names file, line and field.
    """
    path = Path(path)
    try:
        lines = path.read_text(encoding="utf-8").split("\n")  # splitlines also cuts inside JSON texts
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path} cannot be read as a UTF-8 text file: {error}") from error
    rows = ((_Row(path, i), line) for i, line in enumerate(lines, start=1) if line.strip())
    samples = [_sample(at, line) for at, line in rows]
    if not samples:
        raise DataError(f"{path} holds no rows; expected one JSON object a line")
    return Samples(samples, name or path.stem)


@dataclass(frozen=True)
class _Row:
    """The file and line of a row, for error messages."""

    path: Path
    number: int

    def bad(self, field: str, problem: str) -> DataError:
        return DataError(f"{self.path}, line {self.number}, field {field!r}: {problem}")


def _sample(at: _Row, line: str) -> Sample:
    """Returns the sample of one line."""
    row = _fields(at, line)
    try:
        return Sample(
            images=_images(at, row),
            question=row["question"],
            boxes=_boxes(at, row),
            answer=row.get("answer"),
            options=row.get("options"),
            group=None if row.get("group") is None else str(row["group"]),
            meta={**row.get("meta", {}), **{key: value for key, value in row.items() if key not in _KNOWN}},
            id=str(row["id"]) if "id" in row else None,
        )
    except DataError:
        raise
    except InterpError as error:
        raise DataError(f"{at.path}, line {at.number}: {error}") from error


def _fields(at: _Row, line: str) -> dict[str, Any]:
    """Returns the line's JSON object after checking the types of its fields."""
    try:
        row = json.loads(line)
    except json.JSONDecodeError as error:
        raise DataError(f"{at.path}, line {at.number}: not JSON ({error})") from error
    if not isinstance(row, dict):
        raise DataError(f"{at.path}, line {at.number}: expected a JSON object, got {type(row).__name__}")
    for field, types in _TYPES.items():
        if field in row and not isinstance(row[field], types):
            names = " or ".join("null" if kind is type(None) else kind.__name__ for kind in types)
            raise at.bad(field, f"expected {names}, got {row[field]!r}")
    if not row.get("question"):
        raise at.bad("question", "missing or empty")
    return row


def _images(at: _Row, row: dict[str, Any]) -> list[str]:
    """Returns the paths of the row's images, relative to the JSON-lines file."""
    field = "images" if "images" in row else "image"
    named = row.get("images", [row["image"]] if "image" in row else [])
    if not named or ("image" in row and "images" in row):
        raise at.bad(field, "a row needs exactly one of image (a path) and images (a list of paths)")
    for one in named:
        if not isinstance(one, str) or not (at.path.parent / one).is_file():
            raise at.bad(field, f"no file {one!r} in {at.path.parent}; paths are relative to the .jsonl file")
    return [str(at.path.parent / one) for one in named]


def _boxes(at: _Row, row: dict[str, Any]) -> tuple[Box, ...]:
    """Returns the row's boxes, checked against its `size` where it has one."""
    field = "bbox" if "bbox" in row else "boxes"
    if "bbox" in row and "boxes" in row:
        raise at.bad(field, "expected boxes or bbox, got both")
    raw = row.get(field, [])
    listed = [raw] if raw and not isinstance(raw[0], list) else raw
    size = row.get("size")
    if not all(isinstance(box, list) and _numbers(box) for box in listed):
        raise at.bad(field, f"expected boxes [x0, y0, x1, y1] in pixels, got {raw!r}")
    if size is not None and not (len(size) == 2 and _numbers(size)):
        raise at.bad("size", f"expected [width, height] in pixels, got {size!r}")
    try:
        boxes = as_boxes(listed)
        if size is not None:
            for box in (box for box in boxes if box.image == 0):
                box.check_inside((size[0], size[1]))
    except InterpError as error:
        raise at.bad(field, str(error)) from error
    return boxes


def _numbers(values: list[Any]) -> bool:
    return all(isinstance(value, int | float) and not isinstance(value, bool) for value in values)
