"""VGMED: questions on medical images with the boxes their answers rest on."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Any

from interp.data.grounded import Layout, read_rows
from interp.data.samples import Samples

__all__ = ["vgmed"]

_PLAIN = {"ct": "CT", "mr": "MR", "mri": "MR", "pet": "PET", "us": "ultrasound", "oct": "OCT"}
_NUMBER = re.compile(r"_\d+$")


def vgmed(
    root: str | os.PathLike[str], kind: str = "localization", *, box_field: str | None = None
) -> Samples:
    """Returns the questions of one kind of VGMED, from its folder.

    Reads `VGMED_{kind}.jsonl` in `root`; each row's `image` is a path in `root`. A row has `image`, `question`
    and `bbox` or `original_bboxes`, one or several boxes in pixels of the image, which become the sample's boxes
    (metrics take their union). They are (x0, y0, x1, y1), **except** (x, y, width, height) where the image's
    file name, or its path as the row writes it, starts with `Slake`. An `answer` is kept; other fields go to
    `meta`.

    `meta` has `kind`, and `modality` and `source` (the source set) where the image is named as in SA-Med2D-20M,
    `ct_00--AbdomenCT1K--Case_00011--x_0040.png` (modality "CT", source "AbdomenCT1K"), or starts with `Slake`
    (source "SLAKE", modality None); else both are None. A row's own fields `modality` and `source` come first.
    `group`: the source set and case of such a name, `AbdomenCT1K--Case_00011`, so that slices of one volume are
    one group; else the image.

    What is known how: the file names, the fields, the union and the two box formats were read in a description
    of the official code (`Guimeng-Leo-Liu/Medical-MLLMs-Fail`), SA-Med2D's names in its own. **No real file was
    at hand**: that `image` is relative to `root`, that names of 2-D sets have the same four parts, and that other
    fields are absent is unverified. Where a row has both box fields and they differ, the reader refuses instead
    of choosing. Draw a few samples with their boxes before trusting any number.

    Args:
        root: the folder of `VGMED_*.jsonl`, as in the Hugging Face data set `guimeng-liu/VGMED`.
        kind: "localization" or "attribute".
        box_field: "bbox" or "original_bboxes" where rows have both and they differ.

    Raises:
        DataError: an unknown kind, a file that is missing or empty, or a bad row, named by file and line.

    Source: arXiv 2603.14323 and its code.
    """
    root = Path(root)
    layout = Layout(
        find=lambda folder, image: folder / image, is_xywh=_slake, describe=_described, box_field=box_field
    )
    return read_rows(root / f"VGMED_{kind}.jsonl", root, kind, layout, f"VGMED {kind}")


def _slake(image: str) -> bool:
    return image.startswith("Slake") or PurePosixPath(image).name.startswith("Slake")


def _described(image: str) -> tuple[str, Mapping[str, Any]]:
    """Group and meta, as far as the name tells."""
    parts = PurePosixPath(image).stem.split("--")
    if _slake(image):
        return image, {"modality": None, "source": "SLAKE"}
    if len(parts) < 3 or not all(parts):
        return image, {"modality": None, "source": None}
    modality, source, case = parts[:3]
    return f"{source}--{case}", {"modality": _modality(modality), "source": source}


def _modality(written: str) -> str:
    """A modality in plain words: the part before the first underscore where that is one of the well-known."""
    head = written.split("_")[0].lower()
    return _PLAIN.get(head) or _NUMBER.sub("", written).replace("_", " ")
