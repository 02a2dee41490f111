"""Rows of files, and the samples made of them. Errors name the file, the line (or item) and the field.

`needs` imports a library of the extra `data` when a file needs it.
"""

from __future__ import annotations

import importlib
import json
import math
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from interp.errors import DataError, InterpError
from interp.inputs.files import unreadable
from interp.inputs.sample import Sample
from interp.inputs.text import brief, storable

__all__ = [
    "Row",
    "as_path",
    "collect",
    "file_bytes",
    "json_object",
    "json_rows",
    "line_rows",
    "needs",
    "parsed_json",
    "read_json",
    "read_lines",
    "shown",
    "text_in",
]


BAD_ROWS = ("raise", "record")
MOST_BYTES = 4 << 30
"""The largest file that is read whole."""


@dataclass(frozen=True)
class Row:
    """A row with its file and number, for error messages; `unit` says what the number counts, such as "line"."""

    path: Path
    number: int
    values: Any = field(default_factory=dict)
    unit: str = "line"

    def bad(self, name: str, problem: str) -> DataError:
        """Returns the error that says what is wrong with a field."""
        return DataError(f"{self.at}, field {name!r}: {problem}")

    @property
    def at(self) -> str:
        """The file and the line."""
        return f"{shown(self.path)}, {self.unit} {self.number}"

    @property
    def id(self) -> str:
        """The id of the row's sample: the file's name without its ending, and the line."""
        return f"{storable(self.path.stem)}:{self.number}"


def shown(path: str | os.PathLike[str]) -> str:
    """Returns a path as messages and names show it."""
    text = storable(os.fspath(path))
    return text if len(text) <= 1000 else f"{text[:500]}…{text[-500:]}"


def as_path(path: Any, what: str = "the file") -> Path:
    """Returns the path of a file or a folder.

    Raises:
        DataError: Anything but a path.
    """
    if not isinstance(path, str | os.PathLike) or not isinstance(os.fspath(path), str):
        raise DataError(
            f"{what} is a path, such as 'data/rows.jsonl'; got {type(path).__name__} {brief(path)}."
        )
    return Path(path)


def read_lines(path: Path, make: Callable[[Row], Sample], bad_rows: str) -> list[Sample]:
    """Returns the sample that `make` makes of each line that is not empty.

    Args:
        path: A text file in UTF-8.
        make: Makes a sample of a row; an `InterpError` means that the row is bad.
        bad_rows: The treatment of bad rows. "raise" raises the error of the first; "record" puts a `Sample.unusable` in
            the place of each, which a study records as a failure.

    Raises:
        DataError: The file cannot be read or has no rows; with "raise", a row is bad. The message names file and line.
    """
    rows = (Row(path, number, {"line": line}) for number, line in _lines(path))
    samples = collect(rows, lambda row: [make(_parsed(row, row.values["line"]))], bad_rows)
    if not samples:
        raise DataError(f"{shown(path)} holds no rows; expected one JSON object a line.")
    return samples


AnyRow = TypeVar("AnyRow", bound=Row)


def collect(
    rows: Iterable[AnyRow], make: Callable[[AnyRow], Iterable[Sample]], bad_rows: str
) -> list[Sample]:
    """Returns the samples that `make` makes of all rows; an `InterpError` means that the row is bad.

    Args:
        rows: The rows, in order.
        make: Makes the samples of a row, none or several.
        bad_rows: The treatment of bad rows, "raise" or "record"; see `read_lines`.

    Raises:
        DataError: `bad_rows` is unknown; with "raise", a row is bad. The message names the row.
    """
    if not isinstance(bad_rows, str) or bad_rows not in BAD_ROWS:
        raise DataError(f"bad_rows is 'raise' or 'record'; got {brief(bad_rows)}.")
    samples: list[Sample] = []
    for row in rows:
        try:
            if not isinstance(row.values, Mapping):
                raise DataError(f"{row.at}: expected an object of fields, got {brief(row.values)}")
            samples += make(row)
        except InterpError as error:
            known = error if isinstance(error, DataError) else DataError(f"{row.at}: {error}")
            if bad_rows == "raise":
                raise known from error
            samples.append(Sample.unusable(str(known), id=row.id))
    return samples


def file_bytes(path: Path, most: int = MOST_BYTES) -> bytes:
    """Returns the bytes of a regular file.

    Raises:
        DataError: The file is missing, no regular file, cannot be read, or has more than `most` bytes.
    """
    if problem := unreadable(path):
        raise DataError(f"{shown(path)} cannot be read: it {problem}")
    try:
        n_bytes = path.stat().st_size
        if n_bytes > most:
            raise DataError(
                f"{shown(path)} has {n_bytes:,} bytes; a file of at most {most:,} is read. Split it into several."
            )
        return path.read_bytes()
    except OSError as error:
        raise DataError(f"{shown(path)} cannot be read: {error}. Check its permissions.") from error


def _lines(path: Path) -> Iterator[tuple[int, bytes]]:
    """Number and content of each line that is not empty; the file is read whole."""
    lines = (
        file_bytes(path).removeprefix(b"\xef\xbb\xbf").split(b"\n")
    )  # splitlines also cuts inside JSON texts
    yield from ((number, line) for number, line in enumerate(lines, start=1) if line.strip())


def line_rows(path: Path) -> Iterator[Row]:
    """Yields the row of each line that is not empty.

    Raises:
        DataError: The file cannot be read, or a line is no JSON object.
    """
    return (_parsed(Row(path, number), line) for number, line in _lines(path))


def _parsed(row: Row, line: bytes) -> Row:
    """The row with the values of its line."""
    return Row(row.path, row.number, json_object(line, row.at), row.unit)


def json_object(text: bytes, at: str) -> dict[str, Any]:
    """Returns the object of a JSON text.

    Raises:
        DataError: The text is not JSON, or not an object; the message begins with `at`.
    """
    values = parsed_json(text, at, "row")
    if not isinstance(values, dict):
        raise DataError(f"{at}: expected a JSON object, got {type(values).__name__}")
    return values


def parsed_json(text: bytes | str, at: str, what: str = "file") -> Any:
    """Returns the value of a JSON text; NaN, infinity and names that are given twice are refused.

    Raises:
        DataError: The text is not such JSON; the message begins with `at`.
    """
    try:
        decoded = text.decode("utf-8") if isinstance(text, bytes) else text
        return json.loads(decoded, parse_float=_finite, parse_constant=_finite, object_pairs_hook=_object)
    except UnicodeDecodeError as error:
        raise DataError(f"{at}: not UTF-8 text ({error}). Save the file as UTF-8.") from error
    except RecursionError as error:
        raise DataError(f"{at}: nested too deep to be read. Flatten the {what}.") from error
    except ValueError as error:  # not JSON, an integer of thousands of digits, or one of our own below
        raise DataError(f"{at}: not JSON ({brief(str(error))[1:-1]})") from error


def read_json(path: Path, kind: type) -> Any:
    """Returns the list or dict that a JSON file holds.

    Raises:
        DataError: The file cannot be read, is not JSON, or holds a value of another type.
    """
    value = parsed_json(file_bytes(path).removeprefix(b"\xef\xbb\xbf"), shown(path))
    if not isinstance(value, kind):
        raise DataError(
            f"{shown(path)}: expected a JSON {_JSON_NAMES[kind]}, got {type(value).__name__}. Is it another file of "
            "the data set?"
        )
    return value


def text_in(path: Path, most: int = MOST_BYTES) -> str:
    """Returns the text of a file in UTF-8, without a byte-order mark.

    Raises:
        DataError: The file is missing, no regular file, cannot be read, has more than `most` bytes, or is not UTF-8.
    """
    try:
        return file_bytes(path, most).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(f"{shown(path)}: not UTF-8 text ({error}). Save the file as UTF-8.") from error


_JSON_NAMES = {list: "list of rows", dict: "object"}


def json_rows(path: Path, values: Any, unit: str = "item") -> Iterator[Row]:
    """Yields a row for each element of a list, numbered from 0; `collect` refuses elements that are no objects."""
    return (Row(path, number, value, unit) for number, value in enumerate(values))


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(f"{brief(text)} is not a finite number; write null for a missing value")
    return number


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    values = dict(pairs)
    if len(values) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"the name {brief(twice)} is given twice in one object")
    return values


def needs(module: str) -> Any:
    """Returns a module of the extra `data`.

    Raises:
        DataError: The module is not installed; the message says how to install it.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise DataError(
            f"reading this file needs {module}; install it with: pip install 'interp[data]'"
        ) from error
