"""Reads data sets of the library `datasets`: objects, folders that it saved, and ids of the Hugging Face hub."""

from __future__ import annotations

import os
from collections.abc import Mapping
from functools import partial
from typing import Any

from interp.data.lines import as_path, collect
from interp.data.row_fields import Fields, image_in, recognised
from interp.data.samples import Samples
from interp.data.table_rows import Table, opened
from interp.errors import DataError
from interp.inputs.boxes import check_format

__all__ = ["checked", "hub"]

CHECKED = 100
"""The number of first samples whose image headers are read, to warn of boxes that end beyond their image."""


def hub(
    source: Any,
    split: str | None = None,
    name: str | None = None,
    *,
    config: str | None = None,
    revision: str | None = None,
    download: bool = False,
    columns: Mapping[str, str] | None = None,
    images: str | os.PathLike[str] | None = None,
    question: str | None = None,
    box_format: str | None = None,
    bad_rows: str = "raise",
) -> Samples:
    """Returns the samples of a data set of the library `datasets`; columns are recognised as by `interp.data.csv`.

    Columns of the type `Image` are read when they are used; the first one is the image unless `columns` names another.
    Class labels become names. **Nothing is downloaded unless you ask for it**, and no code of a data set is run. `meta`
    has the other columns, and `split`.

    Args:
        source: A `datasets.Dataset` or `DatasetDict`, a folder that `save_to_disk` wrote, a .parquet, .json or .jsonl
            file, a list of dicts, or the id of a data set on the hub.
        split: The part of a `DatasetDict`, folder or id to read.
        name: The name of the samples; by default the source's.
        config: The configuration of an id.
        revision: The commit or tag of an id; only with `download`.
        download: Whether an id may be downloaded; otherwise it is read from the cache of `datasets`.
        columns: Field → column, such as {"image": "scan"}; it takes precedence over recognised columns.
        images: The folder that paths of images are relative to; by default the file's.
        question: The question of every row, for data without that column; {column} is the text of a column.
        box_format: The format of the boxes, as for `interp.Sample`. None stands for "xyxy", but refuses boxes that look
            like fractions of the image.
        bad_rows: "raise" raises an error at the first bad row; "record" keeps a stand-in for each, which a study
            records as a failure.

    Raises:
        DataError: No such data set, split or column, or a row is invalid; the message names the row and the column.
        BoxError: The format of boxes is unknown.

    Warns:
        UserWarning: Most boxes of the first samples end beyond their image.
    """
    check_format(box_format)
    table = opened(source, split=split, config=config, revision=revision, download=download)
    folder = table.folder if images is None else as_path(images, "the folder of images")
    fields = Fields(_columns(table, columns, question), box_format, partial(image_in, folder), question)
    samples = Samples(
        collect(table.rows, lambda row: [fields.sample(row)], bad_rows), table.name if name is None else name
    )
    if table.split is not None:
        samples = samples.like(one.replace(meta={"split": table.split, **one.meta}) for one in samples)
    return checked(samples)


def _columns(table: Table, columns: Mapping[str, str] | None, question: str | None) -> dict[str, str]:
    """Field → column; a column of images is the image, whatever its name."""
    given = columns
    if table.images and (columns is None or (isinstance(columns, Mapping) and "image" not in columns)):
        given = {"image": table.images[0], **(columns or {})}
    return recognised(table.columns, given, question=question, what=table.name)


def checked(samples: Samples) -> Samples:
    """Returns the samples, after a warning if most boxes of the first ones end beyond their image.

    Raises:
        DataError: There are no samples.
    """
    if not len(samples):
        raise DataError(
            f"{samples.name} gave no samples; left out: {dict(samples.skipped) or 'nothing, so there is no row'}. "
            "Choose another split, or other options."
        )
    samples[:CHECKED].warn_of_boxes()
    return samples
