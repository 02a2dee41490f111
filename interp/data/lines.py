"""Rows of JSON-lines files: one JSON object a line. Errors name the file, the line and the field."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from interp.errors import DataError, InterpError
from interp.inputs.paths import unreadable
from interp.inputs.sample import Sample
from interp.inputs.text import brief, storable

__all__ = ["Row", "as_path", "file_bytes", "json_object", "read_lines", "shown"]

BAD_ROWS = ("raise", "record")


@dataclass(frozen=True)
class Row:
    """A row with its file and line, for error messages."""

    path: Path
    number: int
    values: Mapping[str, Any] = field(default_factory=dict)

    def bad(self, name: str, problem: str) -> DataError:
        """Returns the error that says what is wrong with a field."""
        return DataError(f"{self.at}, field {name!r}: {problem}")

    @property
    def at(self) -> str:
        """The file and the line."""
        return f"{shown(self.path)}, line {self.number}"


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
        bad_rows: "raise" raises the error of the first bad row; "record" puts `Sample.unusable` in its place, which a
            study records as a failure.

    Raises:
        DataError: The file cannot be read or has no rows; with "raise", a row is bad. The message names file and line.
    """
    if not isinstance(bad_rows, str) or bad_rows not in BAD_ROWS:
        raise DataError(f"bad_rows is 'raise' or 'record'; got {brief(bad_rows)}.")
    samples = []
    for number, line in _lines(path):
        row = Row(path, number)
        try:
            samples.append(make(_parsed(row, line)))
        except InterpError as error:
            known = error if isinstance(error, DataError) else DataError(f"{row.at}: {error}")
            if bad_rows == "raise":
                raise known from error
            samples.append(Sample.unusable(str(known), id=f"{storable(path.stem)}:{number}"))
    if not samples:
        raise DataError(f"{shown(path)} holds no rows; expected one JSON object a line.")
    return samples


def file_bytes(path: Path) -> bytes:
    """The content of a file.

    Raises:
        DataError: It is no regular file, or cannot be read.
    """
    if problem := unreadable(path):
        raise DataError(f"{shown(path)} cannot be read: it {problem}")
    try:
        return path.read_bytes()
    except OSError as error:
        raise DataError(f"{shown(path)} cannot be read: {error}. Check its permissions.") from error


def json_object(text: bytes, at: str) -> dict[str, Any]:
    """The object of a JSON text: no name twice, every number finite.

    Args:
        text: The JSON in UTF-8.
        at: Where it stands, as errors begin: the file, or file and line.

    Raises:
        DataError: Anything else.
    """
    try:
        values = json.loads(
            text.decode("utf-8"), parse_float=_finite, parse_constant=_finite, object_pairs_hook=_object
        )
    except UnicodeDecodeError as error:
        raise DataError(f"{at}: not UTF-8 text ({error}). Save the file as UTF-8.") from error
    except RecursionError as error:
        raise DataError(f"{at}: nested too deep to be read. Flatten the row.") from error
    except ValueError as error:  # not JSON, an integer of thousands of digits, or one of our own below
        raise DataError(f"{at}: not JSON ({brief(str(error))[1:-1]})") from error
    if not isinstance(values, dict):
        raise DataError(f"{at}: expected a JSON object, got {type(values).__name__}")
    return values


def _lines(path: Path) -> Iterator[tuple[int, bytes]]:
    """Number and content of each line that is not empty; the file is read whole."""
    lines = (
        file_bytes(path).removeprefix(b"\xef\xbb\xbf").split(b"\n")
    )  # splitlines also cuts inside JSON texts
    yield from ((number, line) for number, line in enumerate(lines, start=1) if line.strip())


def _parsed(row: Row, line: bytes) -> Row:
    """The row with the values of its line."""
    return Row(row.path, row.number, json_object(line, row.at))


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
