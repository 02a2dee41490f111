"""COCO: the natural images that VGMED is compared with, with questions of the same two kinds."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Any

from interp.data.lines import as_path
from interp.data.readers.vgmed import RowFormat, check_kind, read_rows
from interp.data.samples import Samples
from interp.inputs.boxes import check_format
from interp.inputs.files import unreadable

__all__ = ["coco"]


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
        kind: "localization" or "attribute".
        box_field: The field to read, "bbox" or "original_bboxes", for rows that have both and whose values differ.

    Raises:
        DataError: The kind is unknown, the file is missing or empty, or a row is invalid; the message names file
            and line.

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
