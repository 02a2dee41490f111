"""COCO: the natural images that VGMED is compared with, with questions of the same two kinds."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Any

from interp.data.samples import Samples
from interp.data.vgmed import Layout, read_rows

__all__ = ["coco"]


def coco(
    root: str | os.PathLike[str],
    annotations: str | os.PathLike[str],
    kind: str = "localization",
    *,
    box_field: str | None = None,
) -> Samples:
    """Returns the questions of one kind on COCO's val2014, from the file that comes with VGMED.

    Reads `COCO_{kind}.jsonl` in `annotations`; images are in `root`, under the name the row writes or, failing
    that, under its last part (so `val2014/COCO_val2014_….jpg` is found in a `root` that is `val2014`). Rows are
    as in `vgmed`, but **every box is (x, y, width, height)**. `meta` has `kind`, `modality` "photograph" and
    `source` "COCO val2014", unless the row says otherwise; `group` is the image.

    The file names, the fields and the box format were read in a description of the official code; **no real file
    was at hand**. Draw a few samples with their boxes before trusting any number.

    Args:
        root: the folder of the images.
        annotations: the folder of `COCO_*.jsonl`.
        kind: "localization" or "attribute".
        box_field: "bbox" or "original_bboxes" where rows have both and they differ.

    Raises:
        DataError: an unknown kind, a file that is missing or empty, or a bad row, named by file and line.

    Source: arXiv 2603.14323 and its code; images of Lin et al., 2014.
    """
    layout = Layout(find=_find, is_xywh=lambda image: True, describe=_described, box_field=box_field)
    path = Path(annotations) / f"COCO_{kind}.jsonl"
    return read_rows(path, Path(root), kind, layout, f"COCO {kind}")


def _find(folder: Path, image: str) -> Path:
    written = folder / image
    return written if written.is_file() else folder / PurePosixPath(image).name


def _described(image: str) -> tuple[str, Mapping[str, Any]]:
    return PurePosixPath(image).name, {"modality": "photograph", "source": "COCO val2014"}
