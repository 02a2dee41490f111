"""YOLO: a text file beside each image, with one object a line, and the names of the classes in another file."""

from __future__ import annotations

import math
import os
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from interp.data.labelled import PRESENT, Asked, with_area
from interp.data.lines import Row, as_path, collect, file_bytes, needs, shown, text_in
from interp.data.row_fields import as_number
from interp.data.samples import Samples
from interp.errors import DataError, InterpError
from interp.inputs.argument_checks import check_one_of
from interp.inputs.boxes import check_format
from interp.inputs.images import image_size
from interp.inputs.sample import Sample
from interp.inputs.text import brief

__all__ = ["yolo"]

ENDINGS = (".bmp", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp")
MOST_BYTES = 4 << 20
SPLITS = ("train", "val", "test")
SLACK = 1e-3  # how far a fraction may lie outside the image


def yolo(
    root: str | os.PathLike[str],
    name: str | None = None,
    *,
    split: str | None = None,
    classes: Sequence[str] | None = None,
    question: str = PRESENT,
    answer: str | None = "yes",
    box_format: str | None = None,
    bad_rows: str = "raise",
) -> Samples:
    """Returns one sample for each image and class of a data set in YOLO's layout.

    `root` is a `data.yaml` (`path`, `train`, `val`, `test`: folders of images or text files that list them; `names`:
    the classes), a folder that holds one, or a folder with `images` and `labels` (or both kinds of files side by
    side) and `classes.txt`. The labels of `…/images/a/1.png` are in `…/labels/a/1.txt`: a line is
    `class x y width height`, the centre and the size of the box as fractions of the image, or
    `class x y x y x y …`, a polygon in fractions, of which the smallest box is taken. An image without a text file has
    no objects. Boxes without an area are left out and counted. `meta` has `label`, and `split` where a `data.yaml`
    names it ("val" becomes "validation"). The header of each image with objects is read.

    Args:
        root: The file or the folder.
        name: The name of the samples; by default the folder's.
        split: The split of a `data.yaml`, "train", "val" or "test"; None for all that it names.
        classes: The names of the classes, for data without a file that gives them.
        question: The question about a class; {label} is its name, {a} "a" or "an".
        answer: The answer of every sample; None for no answer.
        box_format: The format of the boxes; None for YOLO's fractions. "cxcywh", "xywh" or "xyxy" read the four numbers
            as pixels, "fraction" as corners in fractions.
        bad_rows: "raise" raises an error at the first bad file; "record" keeps a stand-in for each, which a study
            records as a failure.

    Raises:
        DataError: Data without images or classes, or an invalid line; the message names file and line.

    Source: https://docs.ultralytics.com/datasets/detect/ and …/segment/.
    """
    check_format(box_format)
    asked = Asked(question, answer)
    path = as_path(root, "the folder or data.yaml")
    found = _layout(path, split, classes)
    dropped: Counter[str] = Counter()
    reading = _Reading(found.classes, asked, box_format, dropped)
    rows = (
        Row(_labels(image), 1, {"image": image, "split": part})
        for part, images in found.images
        for image in images
    )
    samples = collect(rows, reading.samples, bad_rows)
    return Samples(samples, found.folder.resolve().name if name is None else name, dropped)


@dataclass(frozen=True)
class _Layout:
    folder: Path
    classes: Mapping[int, str]
    images: list[tuple[str | None, list[Path]]]


def _layout(path: Path, split: str | None, classes: Sequence[str] | None) -> _Layout:
    """The images of each split, and the classes' names."""
    if split is not None:
        check_one_of("split", split, SPLITS, DataError)
    listed = next(
        (
            one
            for one in (path, path / "data.yaml")
            if one.suffix in (".yaml", ".yml") and os.path.isfile(one)
        ),
        None,
    )
    if listed is not None:
        return _from_yaml(listed, split, classes)
    if not os.path.isdir(path):
        raise DataError(f"no folder and no data.yaml {brief(str(path))}. Check the path.")
    if split is not None:
        raise DataError(f"{shown(path)} has no data.yaml, so no split {split!r}. Leave split= out.")
    names = classes if classes is not None else _class_lines(path)
    inner = path / "images"
    return _Layout(path, _classes(path, names), [(None, _images(inner if os.path.isdir(inner) else path))])


def _from_yaml(path: Path, split: str | None, classes: Sequence[str] | None) -> _Layout:
    yaml = needs("yaml")
    try:
        values = yaml.safe_load(file_bytes(path, MOST_BYTES))
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise DataError(f"{shown(path)}: not YAML ({' '.join(str(error).split())}).") from error
    if not isinstance(values, dict) or not any(part in values for part in SPLITS):
        raise DataError(f"{shown(path)}: expected train, val or test and names, got {brief(values)}.")
    base = path.parent / str(values.get("path") or "")
    base = base if os.path.isdir(base) else path.parent  # `path` is often of the machine it was written on
    found: list[tuple[str | None, list[Path]]] = []
    for part in SPLITS if split is None else (split,):
        places = values.get(part)
        places = [places] if isinstance(places, str) else places
        if places is None and split is None:
            continue
        if not isinstance(places, list) or not all(isinstance(one, str) for one in places):
            raise DataError(
                f"{shown(path)}, {part}: expected a folder or a list of them, got {brief(places)}."
            )
        images = [image for one in places for image in _images(base / one)]
        found.append(("validation" if part == "val" else part, images))
    names = classes if classes is not None else values.get("names")
    return _Layout(path.parent, _classes(path, names), found)


def _classes(path: Path, names: Any) -> dict[int, str]:
    """Number → name of a class."""
    pairs = (
        names
        if isinstance(names, Mapping)
        else dict(enumerate(names))
        if isinstance(names, list | tuple)
        else {}
    )
    right = all(
        isinstance(key, int) and isinstance(value, str) and value.strip() for key, value in pairs.items()
    )
    if not pairs or not right:
        raise DataError(
            f"{shown(path)} gives no names of classes (names: in data.yaml, or classes.txt); got {brief(names)}. Pass "
            'classes=["…", "…"], in the order of their numbers.'
        )
    return dict(pairs)


def _class_lines(folder: Path) -> list[str] | None:
    """The lines of `classes.txt` or `obj.names`, None where neither exists."""
    places = [folder / one for one in ("classes.txt", "labels/classes.txt", "obj.names")]
    path = next((one for one in places if os.path.isfile(one)), None)
    if path is None:
        return None
    return [line.strip() for line in text_in(path, MOST_BYTES).splitlines() if line.strip()]


def _images(place: Path) -> list[Path]:
    """The images of a folder and the folders in it, or those that a text file lists, in order."""
    if place.suffix == ".txt" and os.path.isfile(place):
        lines = [line.strip() for line in text_in(place, MOST_BYTES).splitlines() if line.strip()]
        found = [place.parent / line for line in lines]
    else:
        found = (
            sorted(one for one in place.rglob("*") if one.suffix.lower() in ENDINGS)
            if os.path.isdir(place)
            else []
        )
    if not found:
        raise DataError(f"no images in {shown(place)}. Check the path.")
    return found


def _labels(image: Path) -> Path:
    """The text file of an image: in `labels` in place of the last `images` of its path, else beside it."""
    parts = list(image.parts)
    at = len(parts) - 1 - parts[::-1].index("images") if "images" in parts else None
    if at is not None:
        parts[at] = "labels"
    return Path(*parts).with_suffix(".txt")


@dataclass(frozen=True)
class _Reading:
    classes: Mapping[int, str]
    asked: Asked
    box_format: str | None
    dropped: Counter[str]

    def samples(self, row: Row) -> list[Sample]:
        """The samples of an image, one per class; none for an image without objects."""
        image, part = row.values["image"], row.values["split"]
        lines = list(self._objects(row.path)) if os.path.isfile(row.path) else []
        if not lines:
            return []
        try:
            size = image_size(image)
        except InterpError as error:
            raise DataError(f"{row.at}: {error}") from error
        regions: dict[str, list[Any]] = defaultdict(list)
        for label, box in lines:
            regions[label] += with_area([self._pixels(box, size)], self.dropped, sides=self._sides)
        return self.asked.samples(
            row,
            str(image),
            dict(sorted(regions.items())),
            box_format=self.box_format or "cxcywh",
            size=size,
            group=str(row.path.with_suffix("").name) if part is None else f"{part}/{row.path.stem}",
            meta={} if part is None else {"split": part},
        )

    @property
    def _sides(self) -> bool:
        return self.box_format in (None, "cxcywh", "xywh")

    def _pixels(self, box: Sequence[float], size: tuple[int, int]) -> tuple[float, ...]:
        """YOLO's fractions in pixels, cut to the image where rounding puts an edge outside; other formats unchanged."""
        if self.box_format is not None:
            return tuple(box)
        x, y, width, height = box
        x0, x1 = max(0.0, x - width / 2), min(1.0, x + width / 2)
        y0, y1 = max(0.0, y - height / 2), min(1.0, y + height / 2)
        return (
            (x0 + x1) / 2 * size[0],
            (y0 + y1) / 2 * size[1],
            max(0.0, x1 - x0) * size[0],
            max(0.0, y1 - y0) * size[1],
        )

    def _objects(self, path: Path) -> Iterator[tuple[str, tuple[float, ...]]]:
        """Class and box of each line."""
        for number, line in enumerate(text_in(path, MOST_BYTES).splitlines(), start=1):
            row, words = Row(path, number), line.split()
            if not words:
                continue
            numbers = [as_number(word) for word in words]
            polygon = len(words) >= 7 and len(words) % 2 == 1
            if any(map(math.isnan, numbers)) or not (len(words) == 5 or polygon):
                raise row.bad(
                    "line", f"expected 'class x y width height' or 'class x y x y x y …', got {brief(line)}"
                )
            label = self.classes.get(int(numbers[0])) if numbers[0].is_integer() else None
            if label is None:
                raise row.bad("class", f"no class {words[0]}; there are {brief(dict(self.classes))}")
            box = _around(numbers[1:]) if polygon else tuple(numbers[1:])
            if self.box_format is None:
                _check_fractions(row, box)
            yield label, box


def _around(polygon: Sequence[float]) -> tuple[float, float, float, float]:
    """Centre and size of the smallest box around a polygon."""
    xs, ys = polygon[::2], polygon[1::2]
    x0, y0, x1, y1 = min(xs), min(ys), max(xs), max(ys)
    return (x0 + x1) / 2, (y0 + y1) / 2, x1 - x0, y1 - y0


def _check_fractions(row: Row, box: Sequence[float]) -> None:
    x, y, width, height = box
    edges = (x - width / 2, y - height / 2, x + width / 2, y + height / 2)
    if min(width, height) < 0 or not all(-SLACK <= edge <= 1 + SLACK for edge in edges):
        raise row.bad(
            "box",
            f"centre and size {tuple(box)} reach outside the image; they are fractions of it. For pixels pass "
            "box_format='cxcywh'.",
        )
