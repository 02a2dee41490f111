"""Fields of a table's rows: the columns that hold them, and the samples that rows make."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from interp.data.lines import Row, parsed_json, shown
from interp.data.table_rows import is_missing, plain
from interp.errors import DataError, InterpError
from interp.inputs.files import unreadable
from interp.inputs.images import ImageLike, LazyImage, image_size
from interp.inputs.sample import Box, Sample, as_boxes
from interp.inputs.text import brief

__all__ = [
    "COLUMNS",
    "Fields",
    "as_number",
    "as_path_in",
    "boxes_of",
    "image_in",
    "number_of",
    "optional_text",
    "recognised",
    "resembling",
    "text_of",
]

COLUMNS: Mapping[str, tuple[str, ...]] = {
    "image": (
        "image",
        "images",
        "image_path",
        "img",
        "img_path",
        "img_name",
        "file",
        "file_name",
        "filename",
        "path",
    ),
    "question": ("question", "query", "prompt"),
    "answer": ("answer", "answers"),
    "options": ("options", "choices"),
    "group": ("group", "patient", "patient_id", "volume", "case"),
    "id": ("id", "question_id", "qid"),
    "boxes": ("boxes", "bbox", "bboxes", "box"),
    "x0": ("x0", "xmin", "x_min"),
    "y0": ("y0", "ymin", "y_min"),
    "x1": ("x1", "xmax", "x_max"),
    "y1": ("y1", "ymax", "y_max"),
}
"""Field of a sample → the names of columns that are recognised as it, best first."""

CORNERS = ("x0", "y0", "x1", "y1")


@dataclass(frozen=True)
class Fields:
    """The columns of a sample's fields, and how images and boxes are read.

    Attributes:
        columns: Field → column, as `recognised` returns it.
        box_format: The format of the boxes, as for `interp.Sample`.
        image: A function that returns the image of a cell, a path or an image in memory.
        question: The question of all rows of a table without a column for it; it may hold {column}.
    """

    columns: Mapping[str, str]
    box_format: str | None
    image: Callable[[Row, str, Any], ImageLike]
    question: str | None = None

    def sample(self, row: Row) -> Sample:
        """Returns the sample of a row; columns that are no field go to `meta`.

        Raises:
            DataError: A field is missing or invalid; the message names row and column.
        """
        images = self._images(row)
        used = set(self.columns.values())
        named = self.columns.get("id")
        try:
            return Sample(
                images=images,
                question=self._question(row),
                boxes=self._boxes(row, images),
                answer=optional_text(row, self.columns.get("answer")),
                options=_options(row, self.columns.get("options")),
                group=optional_text(row, self.columns.get("group")),
                meta={str(key): plain(value) for key, value in row.values.items() if _kept(key, value, used)},
                id=optional_text(row, named) or row.id,
            )
        except DataError:
            raise
        except InterpError as error:
            raise DataError(f"{row.at}: {error}") from error

    def _images(self, row: Row) -> list[ImageLike]:
        name = self.columns["image"]
        value = row.values.get(name)
        text = value.strip() if isinstance(value, str) else ""
        if text.startswith("["):
            value = parsed_json(text, f"{row.at}, field {name!r}", "cell")
        cells = list(value) if isinstance(value, list | tuple) else [value]
        if not cells or any(is_missing(cell) for cell in cells):
            raise row.bad(name, f"expected an image, got {brief(value)}")
        return [self.image(row, name, cell) for cell in cells]

    def _question(self, row: Row) -> str:
        if "question" in self.columns:
            return text_of(row, self.columns["question"])
        try:
            return str(self.question).format_map({str(key): value for key, value in row.values.items()})
        except (KeyError, IndexError, ValueError, TypeError, AttributeError) as error:
            raise DataError(
                f"{row.at}: the question {brief(self.question)} cannot be filled in ({brief(str(error))}). Write "
                "{column} for the text of a column, and {{ and }} for braces."
            ) from error

    def _boxes(self, row: Row, images: Sequence[ImageLike]) -> tuple[Box, ...]:
        if "boxes" in self.columns:
            name = self.columns["boxes"]
            return boxes_of(row, name, _listed(row, name), images, self.box_format)
        corners = [self.columns[corner] for corner in CORNERS if corner in self.columns]
        if not corners or all(is_missing(row.values.get(name)) for name in corners):
            return ()
        return boxes_of(
            row, corners[0], [[number_of(row, name) for name in corners]], images, self.box_format
        )


def recognised(
    present: Iterable[Any],
    columns: Mapping[str, str] | None,
    *,
    question: str | None = None,
    what: str = "the table",
) -> dict[str, str]:
    """Returns field → column.

    Args:
        present: The table's columns.
        columns: Field → column, from the caller; it takes precedence over columns recognised by name.
        question: The question of all rows; a table then needs no column for it.
        what: The name of the table in messages.

    Raises:
        DataError: A field or a column is unknown, or there is no column for the image or the question.
    """
    names = [str(name) for name in present]
    given = _given(names, columns, what)
    lower = {name.strip().lower(): name for name in reversed(names)}
    found = dict(given)
    for field, aliases in COLUMNS.items():
        known = next((lower[alias] for alias in aliases if alias in lower), None)
        if field not in found and known is not None and known not in found.values():
            found[field] = known
    if question is not None:
        found.pop("question", None)
    for field in ("image", *(("question",) if question is None else ())):
        if field not in found:
            raise DataError(
                f"{what} has no column for the {field}; it has {brief(names)}. Say which one holds it: "
                f'columns={{"{field}": "…"}}.'
            )
    some = [corner for corner in CORNERS if corner in found]
    if "boxes" not in found and 0 < len(some) < len(CORNERS):
        raise _incomplete(some, [name for name in names if name not in found.values()], what)
    if "boxes" in found:
        for corner in some:
            del found[corner]
    return found


def resembling(name: str, fields: Iterable[str] = tuple(COLUMNS)) -> str | None:
    """Returns the recognised name of one of these fields that a column's name may be a slip of; None if there is none.

    Case, spaces, dots, hyphens and underscores are ignored. Names of four letters and more may differ in one letter
    that is wrong, missing or added, or in two neighbours that are swapped.

    >>> resembling("xmim"), resembling("bxoes"), resembling("X-min"), resembling("age")
    ('xmin', 'boxes', 'xmin', None)
    """
    short = re.sub(r"[\s._-]", "", name.lower())
    aliases = [alias for field in fields for alias in COLUMNS[field]]
    exact = (alias for alias in aliases if alias.replace("_", "") == short)
    near = (alias for alias in aliases if _is_slip(short, alias.replace("_", "")))
    return next(exact, next(near, None))


def _is_slip(one: str, other: str) -> bool:
    """Whether two words of four letters and more differ in one letter, or in two neighbours that are swapped."""
    if min(len(one), len(other)) < 4 or abs(len(one) - len(other)) > 1:
        return False
    start = next((i for i, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), len(other))
    a, b = one[start:], other[start:]
    return a[1:] == b[1:] or a[1:] == b or a == b[1:] or (a[:2] == b[1::-1] and a[2:] == b[2:])


def _field(name: str, fields: Iterable[str]) -> str:
    """The first of these fields that a name may be a slip of."""
    return next(field for field in fields if resembling(name, [field]))


def _incomplete(some: Sequence[str], others: Sequence[str], what: str) -> DataError:
    """The error of a table that has some of the four columns of a box."""
    lacking = [corner for corner in CORNERS if corner not in some]
    near = next((one for one in others if resembling(one, lacking)), None)
    advice = (
        "Give all four, or rename those it has if they are no edges of a box."
        if near is None
        else f'Did you mean {brief(near)}? Rename it, or pass columns={{"{_field(near, lacking)}": "{near}"}}.'
    )
    return DataError(
        f"{what} needs four columns for a box, {', '.join(CORNERS)}: it has {', '.join(some)} but no "
        f"{', '.join(lacking)}. {advice}"
    )


def _given(names: Sequence[str], columns: Any, what: str) -> dict[str, str]:
    given = {} if columns is None else columns
    if not isinstance(given, Mapping) or not all(
        isinstance(one, str) for pair in given.items() for one in pair
    ):
        raise DataError(f'columns maps fields to columns, such as {{"image": "file"}}; got {brief(columns)}.')
    for field, name in given.items():
        if field not in COLUMNS:
            raise DataError(f"columns maps the fields {', '.join(COLUMNS)}; got {brief(field)}.")
        if name not in names:
            raise DataError(f"{what} has no column {brief(name)}; it has {brief(list(names))}.")
    return dict(given)


def _kept(name: Any, value: Any, used: Iterable[str]) -> bool:
    """Whether a column goes to `meta`: those that hold a field or another image do not."""
    held = value[0] if isinstance(value, list | tuple) and value else value
    return name not in used and not isinstance(held, LazyImage | Image.Image)


def image_in(folder: Path, row: Row, name: str, cell: Any) -> ImageLike:
    """Returns the image of a cell: one in memory as it is, a path relative to a folder.

    Raises:
        DataError: A path that is no regular file.
    """
    if isinstance(cell, os.PathLike):
        cell = os.fspath(cell)
    if isinstance(cell, Image.Image | np.ndarray | LazyImage):
        return cell
    return as_path_in(folder, row, name, cell)


def as_path_in(folder: Path, row: Row, name: str, cell: Any) -> str:
    """Returns the path of an image file that a cell names, relative to a folder.

    Raises:
        DataError: The cell names no regular file; the message names row and column.
    """
    if not isinstance(cell, str) or not cell.strip():
        raise row.bad(name, f"expected an image or its path, got {brief(cell)}")
    if problem := unreadable(folder / cell):
        raise row.bad(
            name,
            f"no file {brief(cell)} in the folder {brief(shown(folder))}: it {problem} Are the images elsewhere?",
        )
    return str(folder / cell)


def boxes_of(
    row: Row, name: str, listed: Sequence[Any], images: Sequence[ImageLike], box_format: str | None
) -> tuple[Box, ...]:
    """Returns the boxes of a row, refused where they look like fractions or name an image that the row lacks.

    Args:
        row: The row, for messages.
        name: The field, for messages.
        listed: The boxes, each of four numbers and optionally the index of its image.
        images: The row's images; their headers are read only where a box needs their size.
        box_format: The format of the boxes, as for `interp.Sample`.

    Raises:
        DataError: A box is invalid; the message names row and field.
    """
    try:
        boxes = as_boxes(listed, box_format, lambda i: image_size(images[i], i))
        for box in boxes:
            if box.image >= len(images):
                raise IndexError
            if box.may_be_fractions:
                box.check_units(image_size(images[box.image], box.image))
    except IndexError as error:
        raise row.bad(name, f"a box names an image that the row lacks: it has {len(images)}") from error
    except InterpError as error:
        raise row.bad(name, str(error)) from error
    return boxes


def number_of(row: Row, name: str) -> float:
    """Returns the finite number in a cell, also where it is written as text.

    Raises:
        DataError: The cell holds no finite number; the message names row and column.
    """
    number = as_number(row.values.get(name))
    if math.isnan(number):
        raise row.bad(name, f"expected a finite number, got {brief(row.values.get(name))}")
    return number


def as_number(value: Any) -> float:
    """Returns a finite number that is written as a number or as text; NaN for anything else."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return math.nan
    try:
        number = float(value)
    except (ValueError, OverflowError):
        return math.nan
    return number if math.isfinite(number) else math.nan


def text_of(row: Row, name: str) -> str:
    """Returns the text in a cell.

    Raises:
        DataError: The cell holds no text, or an empty one; the message names row and column.
    """
    value = row.values.get(name)
    if not isinstance(value, str) or not value.strip():
        raise row.bad(name, f"expected a text that is not empty, got {brief(value)}")
    return value


def optional_text(row: Row, name: str | None) -> str | None:
    """Returns the text of a cell; a whole number or True and False as text, None where it is empty.

    Raises:
        DataError: The cell holds another value, such as a list; the message names row and column.
    """
    value = None if name is None else plain(row.values.get(name))
    if name is None or is_missing(value):
        return None
    if isinstance(value, float) and value.is_integer():
        value = int(value)  # a column of numbers with empty cells
    if not isinstance(value, str | int | float):
        raise row.bad(name, f"expected a text or a number, got {brief(value)}")
    return str(value)


def _options(row: Row, name: str | None) -> list[str] | None:
    """The options of a cell: a list, a JSON list, or texts between vertical bars."""
    value = None if name is None else plain(row.values.get(name))
    if name is None or is_missing(value):
        return None
    if isinstance(value, str):
        listed = value.strip().startswith("[")
        value = parsed_json(value, f"{row.at}, field {name!r}", "cell") if listed else value.split("|")
    if not isinstance(value, list) or not all(isinstance(one, str) for one in value):
        raise row.bad(
            name, f'expected options as a JSON list, ["yes", "no"], or as yes|no; got {brief(value)}'
        )
    return [one.strip() for one in value]


def _listed(row: Row, name: str) -> list[Any]:
    """The boxes of a cell: a list or a JSON text of boxes, or of one."""
    value = plain(row.values.get(name))
    if is_missing(value):
        return []
    if isinstance(value, str):
        value = parsed_json(value, f"{row.at}, field {name!r}", "cell")
    if isinstance(value, list) and value and not isinstance(value[0], list):
        value = [value]
    numbers = isinstance(value, list) and all(
        isinstance(box, list)
        and all(isinstance(one, int | float) and not isinstance(one, bool) for one in box)
        for box in value
    )
    if not numbers:
        raise row.bad(name, f"expected a list of boxes [x0, y0, x1, y1], or one such box; got {brief(value)}")
    return value
