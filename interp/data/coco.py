"""COCO: the natural images that VGMED is compared with, with questions of the same two kinds."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Any

from interp.data.samples import Samples
from interp.data.vgmed import RowFormat, read_rows

__all__ = ["coco"]


def coco(
    root: str | os.PathLike[str],
    annotations: str | os.PathLike[str],
    kind: str = "localization",
    *,
    box_field: str | None = None,
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
    row_format = RowFormat(find=_find, is_xywh=lambda image: True, describe=_described, box_field=box_field)
    path = Path(annotations) / f"COCO_{kind}.jsonl"
    return read_rows(path, Path(root), kind, row_format, f"COCO {kind}")


def _find(folder: Path, image: str) -> Path:
    written = folder / image
    return written if written.is_file() else folder / PurePosixPath(image).name


def _described(image: str) -> tuple[str, Mapping[str, Any]]:
    return PurePosixPath(image).name, {"modality": "photograph", "source": "COCO val2014"}
