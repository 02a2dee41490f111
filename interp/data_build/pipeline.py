"""`build`: from labelled samples to a folder of pictures, pairs of questions and a record of what was dropped."""

from __future__ import annotations

import io
import json
import os
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import PIL
from PIL import Image

from interp.data.build import Question, body_region, modality
from interp.data.lines import file_bytes
from interp.data.readers.jsonl import jsonl
from interp.data.samples import Samples
from interp.data_build.endpoint import Answers, Endpoint, WordingError
from interp.data_build.pairs import Pair, Settings, asked, chosen, targets
from interp.errors import DataError
from interp.inputs.files import as_path, canonical, write_atomically
from interp.inputs.sample import Sample
from interp.inputs.text import brief

__all__ = [
    "Built",
    "as_lines",
    "build",
    "check_folder",
    "encoded",
    "picture_name",
    "rounded",
    "write_picture",
]


KEPT = ("plane", "slice", "pixel_mm", "lesion", "source", "licence", "mask_origin", "split")
"""The entries of a sample's meta that its rows keep."""


COUNTED = ("kind", "about", "answer", "modality", "region", "label")
"""Fields of rows whose values `build.json` counts."""
OWN = {"images", "samples.jsonl", "build.json", "answers.jsonl"}
ENDINGS = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp")


@dataclass(frozen=True)
class Built:
    """The result of a build.

    Attributes:
        folder: The folder that was written.
        samples: The samples, as `interp.data.jsonl` reads them.
        record: The content of `build.json`.
    """

    folder: Path
    samples: Samples
    record: Mapping[str, Any]


def build(
    samples: Samples,
    out: str | os.PathLike[str],
    settings: Settings | None = None,
    *,
    endpoint: Endpoint | None = None,
) -> Built:
    """Makes a localization and an attribute question about each structure, as VGMED was made, and writes a folder.

    The samples say where structures are: `meta["label"]` names a structure, and masks, or else boxes, show it. Readers
    give such samples (`interp.data.nifti(…, masks=True)`, `sa_med2d`, `coco_instances`, …; `scans` for a folder of
    volumes). They also align grids, turn slices as radiologists see them, apply windows and make pixels square. For
    each picture and label, this function keeps the largest piece (`settings.share`), limits its area, and asks two
    questions that need the whole box; answers follow from the mask or the box. `build.diverse` draws evenly over
    modality and body region, label, group and picture.

    The folder holds `images/`, `samples.jsonl` (one row a question, `bbox` in pixels, xyxy) and `build.json`
    (settings, counts, what was dropped and why, versions). The same samples, settings and versions give the same
    bytes. With an endpoint it also holds `answers.jsonl`, from which a second build takes the words.

    Args:
        samples: The labelled samples.
        out: A new or empty folder, or one of an earlier build.
        settings: The rules; by default `Settings()`.
        endpoint: The endpoint that words the questions; None takes templates. Only words are sent (the label, the
            modality, the questions and the answers), no picture. Pairs that it cannot word are left out and listed in
            `build.json`.

    Raises:
        DataError: Nothing can be asked, the folder holds other files, or the endpoint refuses or keeps failing.
    """
    settings = Settings() if settings is None else settings
    _check(samples, settings, endpoint)
    folder = as_path("out", out)
    check_folder(folder)
    dropped = Counter(dict(samples.skipped))
    found = targets(samples, settings, dropped)
    pairs = asked(found, chosen(found, settings, dropped), settings)
    if not pairs:
        why = ", ".join(f"{n} {reason}" for reason, n in dropped.items()) or "there are no samples"
        raise DataError(
            f"nothing in {brief(samples.name)} can be asked about: {why}. Samples need meta['label'] and masks or "
            "boxes; wider limits are Settings(share=…, area=…)."
        )
    answers = None if endpoint is None else Answers(endpoint, folder / "answers.jsonl")
    before = _images(folder)
    rows, failures = _rows(pairs, folder, answers, dropped)
    record = _record(samples, settings, rows, dropped, answers, failures)
    write_atomically(folder / "samples.jsonl", as_lines(rows))
    write_atomically(folder / "build.json", canonical(record).encode())
    for path in before - {row["image"] for row in rows}:
        (folder / path).unlink(missing_ok=True)
    return Built(folder, jsonl(folder / "samples.jsonl", samples.name), record)


def _check(samples: Any, settings: Any, endpoint: Any) -> None:
    given = {"samples": (samples, Samples), "settings": (settings, Settings)}
    given |= {} if endpoint is None else {"endpoint": (endpoint, Endpoint)}
    for name, (value, kind) in given.items():
        if not isinstance(value, kind):
            raise DataError(f"{name} is of the type {kind.__name__}; got {brief(value)}.")


def _images(folder: Path) -> set[str]:
    """The pictures of an earlier build."""
    place = folder / "images"
    return {f"images/{one.name}" for one in place.iterdir()} if os.path.isdir(place) else set()


def _rows(
    pairs: list[Pair], folder: Path, answers: Answers | None, dropped: Counter[str]
) -> tuple[list[dict[str, Any]], list[dict[str, str]]]:
    """The rows of all pairs, their pictures written, and the pairs that the endpoint could not word."""
    rows: list[dict[str, Any]] = []
    failures: list[dict[str, str]] = []
    try:
        (folder / "images").mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DataError(f"{str(folder)!r} cannot be made: {error}.") from error
    for pair in pairs:
        questions = (pair.localization, pair.attribute)
        texts = tuple(question.text for question in questions)
        if answers is not None:
            try:
                texts = answers.worded(pair)
            except WordingError as error:
                failures.append({"id": pair.target.sample.id, "error": str(error)})
                dropped["the endpoint failed"] += 1
                continue
        image = write_picture(folder, pair.target.sample)
        rows += [_row(pair, question, text, image) for question, text in zip(questions, texts, strict=True)]
    if not rows:
        raise DataError(f"the endpoint worded no pair; the first failed with: {failures[0]['error']}")
    return rows, failures


def _row(pair: Pair, question: Question, text: str, image: str) -> dict[str, Any]:
    sample, label = pair.target.sample, pair.target.known.label
    row = {
        "id": f"{Path(image).stem}:{question.about}:{label.replace(' ', '-')}",
        "image": image,
        "question": text,
        "answer": question.answer,
        "bbox": [rounded(pair.target.box)],
        "size": list(sample.sizes[0]),
        "group": Path(image).stem if sample.group is None else str(sample.group),
        "kind": question.kind,
        "about": question.about,
        "label": label,
        "modality": modality(sample),
        "region": body_region(sample),
    }
    return row | {key: sample.meta[key] for key in KEPT if sample.meta.get(key) is not None}


def _record(
    samples: Samples,
    settings: Settings,
    rows: list[dict[str, Any]],
    dropped: Counter[str],
    answers: Answers | None,
    failures: list[dict[str, str]],
) -> dict[str, Any]:
    """The content of `build.json`, which does not depend on the time or the machine."""
    from interp import __version__

    counts = {key: dict(sorted(Counter(str(row[key]) for row in rows).items())) for key in COUNTED}
    record = {
        "data": samples.name,
        "settings": asdict(settings),
        "wording": {"templates": True} if answers is None else answers.described(),
        "samples": len(rows),
        "pictures": len({row["image"] for row in rows}),
        "groups": len({row["group"] for row in rows}),
        "counts": counts,
        "dropped": {why: n for why, n in sorted(dropped.items()) if n},
        "failures": failures,
        "versions": {"interp": __version__, "numpy": np.__version__, "pillow": PIL.__version__},
    }
    return json.loads(json.dumps(record))


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
    """Returns the file name of a sample's picture, made of its source and the beginning of its content's hash."""
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
