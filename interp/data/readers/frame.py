"""Reads the rows of a pandas DataFrame, one sample a row."""

from __future__ import annotations

import os
from collections.abc import Mapping
from functools import partial
from typing import Any

from interp.data.lines import as_path, collect
from interp.data.row_fields import Fields, image_in, recognised
from interp.data.samples import Samples
from interp.data.table_rows import frame_rows, is_frame
from interp.errors import DataError
from interp.inputs.boxes import check_format

__all__ = ["frame"]


def frame(
    table: Any,
    name: str = "table",
    *,
    columns: Mapping[str, str] | None = None,
    images: str | os.PathLike[str] = ".",
    question: str | None = None,
    box_format: str | None = None,
    bad_rows: str = "raise",
) -> Samples:
    """Returns the samples of a DataFrame, whose columns are recognised as by `interp.data.csv`.

    Cells may hold paths or images in memory (PIL images, uint8 arrays), lists or their JSON texts. None, NaN and NA are
    missing values. Errors name a row by its position, from 0.

    Args:
        table: The DataFrame.
        name: The name of the samples.
        columns: Field → column, such as {"image": "scan"}; it takes precedence over recognised columns.
        images: The folder that the images' paths are relative to.
        question: The question of every row, for tables without that column; {column} is the text of a column.
        box_format: The format of the boxes, as for `interp.Sample`. None stands for "xyxy", but refuses boxes that look
            like fractions of the image.
        bad_rows: "raise" raises an error at the first bad row; "record" keeps a stand-in for each, which a study
            records as a failure.

    Raises:
        DataError: `table` is no DataFrame, or has no rows; a column is missing; a row is invalid. The message names row
            and column.
        BoxError: The format of boxes is unknown.

    Warns:
        UserWarning: Most boxes end beyond their image.

    >>> import pandas as pd, numpy as np, interp.data
    >>> image = np.zeros((8, 9), np.uint8)
    >>> table = pd.DataFrame({"image": [image], "question": ["Is it dark?"], "bbox": [[1, 1, 4, 4]]})
    >>> interp.data.frame(table)[0].boxes[0].as_tuple()
    (1.0, 1.0, 4.0, 4.0)
    """
    check_format(box_format)
    if not is_frame(table):
        raise DataError(
            f"frame reads a pandas DataFrame; got {type(table).__name__}. Give a list of dicts as "
            "interp.data.hub(rows), and read a file with interp.data.csv(path)."
        )
    rows = frame_rows(table)
    folder = as_path(images, "the folder of images")
    found = recognised(rows.columns, columns, question=question)
    fields = Fields(found, box_format, partial(image_in, folder), question)
    samples = Samples(collect(rows.rows, lambda row: [fields.sample(row)], bad_rows), name)
    samples.warn_of_boxes()
    return samples
