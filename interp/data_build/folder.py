"""What a build writes: pictures, rows and a record, each file whole or not at all."""

from __future__ import annotations

import io
import json
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from PIL import Image

from interp.data.lines import file_bytes
from interp.errors import DataError
from interp.inputs.files import write_atomically
from interp.inputs.sample import Sample

__all__ = ["as_lines", "check_folder", "encoded", "picture_name", "rounded", "write_picture"]

OWN = {"images", "samples.jsonl", "build.json", "answers.jsonl"}
ENDINGS = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp")


def check_folder(out: Path) -> None:
    """Raises unless a folder is absent, empty, or holds what an earlier build wrote.

    Raises:
        DataError: A file, or a folder with other things in it.
    """
    if os.path.lexists(out) and not os.path.isdir(out):
        raise DataError(f"{str(out)!r} is no folder; a build writes into one.")
    others = sorted(one.name for one in out.iterdir() if one.name not in OWN) if os.path.isdir(out) else []
    if others:
        raise DataError(
            f"{str(out)!r} holds {others[0]!r}, which no build wrote. Choose an empty folder as out."
        )


def picture_name(sample: Sample) -> str:
    """Returns the file name of a sample's picture: where it comes from, and the beginning of its content's hash."""
    raw, meta = sample.images[0], sample.meta
    if isinstance(raw, str | os.PathLike):
        start = Path(raw).stem
    elif isinstance(meta.get("slice"), int):
        start = f"{sample.group}-{str(meta.get('plane', ''))[:3]}-{meta['slice']:03d}"
    else:
        start = str(sample.group or "picture")
    plain = re.sub(r"[^A-Za-z0-9._-]+", "-", start).strip("-.")[:80] or "picture"
    copied = isinstance(raw, str | os.PathLike) and Path(raw).suffix.lower() in ENDINGS
    ending = Path(os.fspath(raw)).suffix.lower() if copied else ".png"  # type: ignore[arg-type]
    return f"{plain}-{sample.image_fingerprints[0][:8]}{ending}"


def write_picture(out: Path, sample: Sample) -> str:
    """Writes a sample's picture to `images/` and returns its path from `out`.

    A picture file is copied byte by byte; a slice, or an image in memory, becomes a PNG file.
    """
    raw, path = sample.images[0], f"images/{picture_name(sample)}"
    if isinstance(raw, str | os.PathLike) and Path(raw).suffix.lower() in ENDINGS:
        data = file_bytes(Path(raw))
    else:
        data = encoded(sample.load())
    target = out / path
    target.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(target, data)
    return path


def encoded(image: Image.Image) -> bytes:
    """Returns a picture as PNG; one that is grey in all channels has one channel."""
    if image.mode == "RGB":
        red, green, blue = image.split()
        image = red if red.tobytes() == green.tobytes() == blue.tobytes() else image
    file = io.BytesIO()
    image.save(file, "PNG", optimize=True)
    return file.getvalue()


def rounded(box: Sequence[float]) -> list[float]:
    """Returns the edges of a box in hundredths of a pixel."""
    return [round(float(edge), 2) for edge in box]


def as_lines(rows: Iterable[Mapping[str, Any]]) -> bytes:
    """Returns rows as JSON lines in ASCII, keys in their order."""
    return "".join(json.dumps(row) + "\n" for row in rows).encode()
