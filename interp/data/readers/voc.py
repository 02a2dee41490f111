"""Pascal VOC: a folder of XML files, one per image, with the boxes of its objects."""

from __future__ import annotations

import math
import os
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from xml.parsers import expat

from interp.data.labelled import PRESENT, Asked, with_area
from interp.data.lines import Row, as_path, collect, file_bytes, shown
from interp.data.row_fields import as_number, as_path_in
from interp.data.samples import Samples
from interp.errors import DataError
from interp.inputs.argument_checks import check_one_of
from interp.inputs.boxes import check_format
from interp.inputs.files import unreadable
from interp.inputs.sample import Sample
from interp.inputs.text import brief

__all__ = ["voc"]

MOST_BYTES = 16 << 20
MOST_DEPTH = 32
DIFFICULT = "objects marked as difficult"


def voc(
    root: str | os.PathLike[str],
    name: str | None = None,
    *,
    images: str | os.PathLike[str] | None = None,
    question: str = PRESENT,
    answer: str | None = "yes",
    difficult: str = "keep",
    box_format: str | None = None,
    bad_rows: str = "raise",
) -> Samples:
    """Returns one sample for each image and class of a folder in Pascal VOC's layout.

    Reads every `Annotations/*.xml` of the folder (or `*.xml` in it) in the order of the names. The image is the file's
    `filename` in `JPEGImages` beside `Annotations`, or else beside the XML file. VOC counts pixels from 1 and includes
    the last one, so `xmin, ymin, xmax, ymax` become the half-open box (xmin − 1, ymin − 1, xmax, ymax). Boxes must lie
    inside the `size` where the file gives one. Boxes without an area are left out and counted. `meta` has `label`,
    `difficult` and `truncated` (whether any of its objects is). Document types and entities in the XML are refused.

    Args:
        root: The folder, such as `VOCdevkit/VOC2012`.
        name: The name of the samples; by default the folder's.
        images: The folder of the images, where it is not the layout's own.
        question: The question about a class; {label} is its name, {a} "a" or "an".
        answer: The answer of every sample; None for no answer.
        difficult: The treatment of objects marked as difficult: "keep", or "skip" to leave them out and count them.
        box_format: The format of the boxes; None for VOC's own counting. Tools that write VOC files often count from 0:
            then "xyxy" reads `xmin, ymin, xmax, ymax` as a half-open box in pixels, "fraction" as fractions of the
            image.
        bad_rows: "raise" raises an error at the first bad file; "record" keeps a stand-in for each, which a study
            records as a failure.

    Raises:
        DataError: No XML files, or a file is invalid; the message names file and line.

    Source: the VOC2012 development kit, http://host.robots.ox.ac.uk/pascal/VOC/voc2012/htmldoc/.
    """
    check_format(box_format)
    if box_format not in (None, "xyxy", "fraction"):
        raise DataError(
            "VOC files name the corners xmin, ymin, xmax and ymax; pass box_format=None, 'xyxy' or 'fraction'. Got "
            f"{box_format!r}."
        )
    check_one_of("difficult", difficult, ("keep", "skip"), DataError)
    asked = Asked(question, answer)
    folder = as_path(root, "the folder")
    inner = folder / "Annotations"
    paths = sorted((inner if os.path.isdir(inner) else folder).glob("*.xml")) if os.path.isdir(folder) else []
    if not paths:
        raise DataError(
            f"no .xml files in {shown(inner)} or {shown(folder)}; expected Pascal VOC's Annotations/*.xml."
        )
    known = [folder / "JPEGImages"] if images is None else [as_path(images, "the folder of images")]
    dropped: Counter[str] = Counter()
    reading = _Reading(known, asked, difficult == "skip", box_format, dropped)
    rows = (Row(path, 1) for path in paths)
    return Samples(
        collect(rows, reading.samples, bad_rows), folder.resolve().name if name is None else name, dropped
    )


@dataclass
class _Element:
    """An element of an XML file, and the line it begins on."""

    tag: str
    line: int
    text: str = ""
    inside: list[_Element] = field(default_factory=list)

    def find(self, *tags: str) -> _Element | None:
        """The first element below, along these tags."""
        found: _Element | None = self
        for tag in tags:
            found = next((one for one in found.inside if one.tag == tag), None) if found else None
        return found

    def text_of(self, tag: str) -> str:
        """The text of an element inside this one, empty where there is none."""
        found = self.find(tag)
        return found.text.strip() if found else ""


@dataclass(frozen=True)
class _Reading:
    images: list[Path]
    asked: Asked
    skips: bool
    box_format: str | None
    dropped: Counter[str]

    def samples(self, row: Row) -> list[Sample]:
        """The samples of an XML file, one per class."""
        tree = _tree(row.path)
        if tree.tag != "annotation":
            raise DataError(f"{row.at}: expected <annotation>, got <{tree.tag}>. Leave out other XML files.")
        regions: dict[str, list[Any]] = defaultdict(list)
        marked: dict[str, set[str]] = defaultdict(set)
        for one in (one for one in tree.inside if one.tag == "object"):
            if self.skips and one.text_of("difficult") == "1":
                self.dropped[DIFFICULT] += 1
                continue
            label, box = self._object(row.path, one)
            regions[label] += with_area([box], self.dropped, sides=False)
            marked[label] |= {mark for mark in ("difficult", "truncated") if one.text_of(mark) == "1"}
        file = self._image(Row(row.path, (tree.find("filename") or tree).line), tree)
        made = []
        for label in sorted(regions):
            made += self.asked.samples(
                row,
                file,
                {label: regions[label]},
                box_format=self.box_format or "xyxy",
                size=_size(row.path, tree.find("size")),
                group=row.path.stem,
                meta={mark: mark in marked[label] for mark in ("difficult", "truncated")},
                field="bndbox",
            )
        return made

    def _object(self, path: Path, one: _Element) -> tuple[str, tuple[float, ...]]:
        """The name and the box of an object, half-open where the file counts as VOC does."""
        label, corners = one.text_of("name"), one.find("bndbox")
        if not label or corners is None:
            raise Row(path, one.line).bad("object", "expected a name and a bndbox")
        edges = []
        for tag in ("xmin", "ymin", "xmax", "ymax"):
            value = as_number(corners.text_of(tag))
            if math.isnan(value):
                raise Row(path, corners.line).bad(
                    tag, f"expected a number, got {brief(corners.text_of(tag))}"
                )
            edges.append(value)
        x0, y0, x1, y1 = edges
        if x1 < x0 or y1 < y0:
            raise Row(path, corners.line).bad("bndbox", f"xmax and ymax lie before xmin and ymin: {edges}")
        return label, (x0 - 1, y0 - 1, x1, y1) if self.box_format is None else (x0, y0, x1, y1)

    def _image(self, row: Row, tree: _Element) -> str:
        """The path of the image, in one of the folders or beside the XML file."""
        written = tree.text_of("filename") or f"{row.path.stem}.jpg"
        folders = [*self.images, row.path.parent]
        found = next((one for one in folders if unreadable(one / written) is None), folders[0])
        return as_path_in(found, row, "filename", written)


def _tree(path: Path) -> _Element:
    """The root of an XML file; a file with a document type, and so with entities of its own, is refused."""
    parser, top = expat.ParserCreate(), _Element("", 0)
    open_ones = [top]

    def start(tag: str, _: Any) -> None:
        if len(open_ones) > MOST_DEPTH:
            raise DataError(
                f"{shown(path)}, line {parser.CurrentLineNumber}: nested too deep for a VOC file."
            )
        one = _Element(tag, parser.CurrentLineNumber)
        open_ones[-1].inside.append(one)
        open_ones.append(one)

    def add(text: str) -> None:
        open_ones[-1].text += text

    def refuse(*_: Any) -> None:
        raise DataError(
            f"{shown(path)}, line {parser.CurrentLineNumber}: it declares a document type, which can make an XML file "
            "grow without end. Remove the DOCTYPE; VOC files have none."
        )

    parser.buffer_text = True
    parser.StartElementHandler, parser.CharacterDataHandler = start, add
    parser.EndElementHandler = lambda _: open_ones.pop()
    parser.StartDoctypeDeclHandler = parser.EntityDeclHandler = refuse
    try:
        parser.Parse(file_bytes(path, MOST_BYTES), True)
    except expat.ExpatError as error:
        raise DataError(
            f"{shown(path)}, line {error.lineno}: not XML ({expat.errors.messages[error.code]})."
        ) from error
    return top.inside[0]


def _size(path: Path, size: _Element | None) -> tuple[int, int] | None:
    """The size (width, height), None where the file gives none; tools write 0 for an unknown size."""
    if size is None:
        return None
    sides = as_number(size.text_of("width")), as_number(size.text_of("height"))
    if any(math.isnan(side) or side < 0 for side in sides):
        told = f"{size.text_of('width')!r} × {size.text_of('height')!r}"
        raise Row(path, size.line).bad("size", f"expected width and height in pixels, got {told}")
    return (int(sides[0]), int(sides[1])) if all(sides) else None
