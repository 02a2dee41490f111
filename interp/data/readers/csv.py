"""Reads CSV and TSV files of one sample a row."""

from __future__ import annotations

import csv as csv_format
import io
import os
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path

from interp.data.lines import Row, as_path, collect, shown, text_in
from interp.data.row_fields import Fields, as_path_in, recognised
from interp.data.samples import Samples
from interp.errors import DataError
from interp.inputs.boxes import check_format
from interp.inputs.text import brief

__all__ = ["checked_cells", "csv", "header_and_rows"]


def csv(
    path: str | os.PathLike[str],
    name: str | None = None,
    *,
    columns: Mapping[str, str] | None = None,
    images: str | os.PathLike[str] | None = None,
    question: str | None = None,
    box_format: str | None = None,
    separator: str | None = None,
    bad_rows: str = "raise",
) -> Samples:
    """Returns the samples of a CSV or TSV file with a header.

    Recognised by name (`interp.data.row_fields.COLUMNS`): `image` (or `file`, `path`, …), `question`, `answer`,
    `options` (a JSON list, or `yes|no`), `group`, `id`, and either `boxes` (or `bbox`: JSON, one box or a list of
    boxes) or the four columns `x0`, `y0`, `x1`, `y1` (or `xmin`, …). All other columns go to `meta`. An empty cell is a
    missing value. Several images are a JSON list of paths. Tables are read whole; images are opened when they are
    used.

    Args:
        path: The file, in UTF-8.
        name: The name of the samples; by default the file's, without its ending.
        columns: Field → column, such as {"image": "scan"}; it takes precedence over recognised columns.
        images: The folder that the images' paths are relative to; by default the table's.
        question: The question of every row, for tables without that column; {column} is the text of a column.
        box_format: The format of the boxes, as for `interp.Sample`: "xyxy", "xywh", "cxcywh" or "fraction". None
            stands for "xyxy", but refuses boxes that look like fractions of the image.
        separator: The character between cells. None takes a tab in files named .tsv or .tab; in others the one of
            comma, semicolon and tab that is most frequent in the header.
        bad_rows: "raise" raises an error at the first bad row; "record" keeps a stand-in for each, which a study
            records as a failure.

    Raises:
        DataError: The file is missing, empty or no table; a column is missing; a row is invalid. The message names
            file, line and column.
        BoxError: The format of boxes is unknown.

    Warns:
        UserWarning: Most boxes end beyond their image.
    """
    check_format(box_format)
    path = as_path(path)
    folder = path.parent if images is None else as_path(images, "the folder of images")
    header, rows = header_and_rows(path, separator)
    found = recognised(header, columns, question=question, what=shown(path))
    fields = Fields(found, box_format, partial(as_path_in, folder), question)
    samples = Samples(
        collect(rows, lambda row: [fields.sample(checked_cells(row))], bad_rows),
        path.stem if name is None else name,
    )
    if not len(samples):
        raise DataError(f"{shown(path)} holds no rows below its header.")
    samples.warn_of_boxes()
    return samples


def header_and_rows(path: Path, separator: str | None = None) -> tuple[list[str], Iterator[Row]]:
    """Returns the header of a table, and its rows with the line that each ends on; empty cells are None.

    Raises:
        DataError: The file cannot be read, has no header, or names two columns alike.
    """
    text = text_in(path)
    first = text.partition("\n")[0]
    mark = _separator(path, first) if separator is None else separator
    if not isinstance(mark, str) or len(mark) != 1 or mark in '"\r\n':
        raise DataError(f"separator is one character, such as ',' or ';'; got {brief(separator)}.")
    reader = csv_format.reader(io.StringIO(text, newline=""), delimiter=mark, strict=True)
    try:
        header = [cell.strip() for cell in next(reader)]
    except (StopIteration, csv_format.Error) as error:
        raise DataError(f"{shown(path)} holds no rows; expected a header and one sample a row.") from error
    twice = sorted({cell for cell in header if header.count(cell) > 1})
    if twice:
        raise DataError(f"{shown(path)}, line 1: the columns {brief(twice)} are there twice. Rename them.")
    return header, _rows(path, header, reader)


def _rows(path: Path, header: list[str], reader: Iterator[list[str]]) -> Iterator[Row]:
    """A row of cells by column; one that does not fit the header keeps its problem under ""."""
    while True:
        try:
            cells = next(reader)
        except StopIteration:
            return
        except csv_format.Error as error:
            raise DataError(
                f"{shown(path)}, line {_line(reader)}: not a table ({error}). Double the quotation marks inside a "
                "quoted cell."
            ) from error
        if not any(cell.strip() for cell in cells):
            continue
        fits = len(cells) == len(header)
        values = dict(zip(header, cells, strict=True)) if fits else {"": (len(cells), len(header))}
        yield Row(path, _line(reader), {key: _value(cell) for key, cell in values.items()})


def checked_cells(row: Row) -> Row:
    """Returns the row, if it has as many cells as the header.

    Raises:
        DataError: The numbers differ; the message names the line.
    """
    if isinstance(row.values.get(""), tuple):
        cells, columns = row.values[""]
        raise DataError(
            f"{row.at}: it has {cells} cells, but the header has {columns} columns. Put cells that hold the separator "
            "in quotation marks."
        )
    return row


def _value(cell: str | tuple[int, int]) -> str | tuple[int, int] | None:
    return None if isinstance(cell, str) and not cell.strip() else cell


def _line(reader: Iterator[list[str]]) -> int:
    return int(reader.line_num)  # type: ignore[attr-defined]


def _separator(path: Path, header: str) -> str:
    if path.suffix.lower() in (".tsv", ".tab"):
        return "\t"
    return max(",;\t", key=header.count)
