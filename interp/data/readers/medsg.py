"""MedSG-Bench: sequences of medical images with a question about one of them, and the box that answers it."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from interp.data.lines import Row, as_path, collect, json_rows, read_json, shown
from interp.data.row_fields import as_path_in, boxes_of, text_of
from interp.data.samples import Samples
from interp.errors import DataError
from interp.inputs.argument_checks import check_bool
from interp.inputs.boxes import check_format
from interp.inputs.sample import Sample
from interp.inputs.text import brief

__all__ = ["medsg", "target_image"]

MARKED = re.compile(r"<\|box_start\|>\s*\((\d+)\s*,\s*(\d+)\)\s*,\s*\((\d+)\s*,\s*(\d+)\)\s*<\|box_end\|>")
SPECIAL = re.compile(r"<\|[a-z_]+\|>|<image>")
ORDINALS = ("first", "second", "third", "fourth", "fifth", "sixth", "seventh", "eighth", "ninth", "tenth")
READ = ("images", "question", "answer")


def medsg(
    path: str | os.PathLike[str],
    images: str | os.PathLike[str] | None = None,
    name: str | None = None,
    *,
    reference: bool = False,
    box_format: str | None = None,
    bad_rows: str = "raise",
) -> Samples:
    """Returns one sample for each row of a task of MedSG-Bench (`Task1.json` … `Task8.json`).

    A row has `task`, `images` (a list of paths), `question` and `answer`, a box (x0, y0, x1, y1) in pixels. **Rows
    do not say which image the box is in**; as in the questions' words it is the source image where the question asks
    in "the source image", the n-th where it asks in "the n-th image", and otherwise the last image (`target_image`).
    A box in the question, `<|box_start|>(155,120),(204,173)<|box_end|>`, marks a region of the first image. It becomes
    plain text, because those tokens belong to one model, and is kept in `meta["reference"]`. The answer is the box
    as text, `(x0,y0),(x1,y1)`. `meta` has `task`, `target` (the index of the image), and the row's other fields. The
    group is the first image.

    Args:
        path: The JSON file.
        images: The folder of the images; by default the file's. A row's path is looked up in it as a whole, then by its
            last two parts and its last part, because paths begin with folders of the publishers' machine.
        name: The name of the samples; by default the file's, without its ending.
        reference: Whether the marked region of the first image is a box of the sample too.
        box_format: The format of the boxes, as for `interp.Sample`. None stands for "xyxy", but refuses boxes that look
            like fractions of the image.
        bad_rows: "raise" raises an error at the first bad row; "record" keeps a stand-in for each, which a study
            records as a failure.

    Raises:
        DataError: The file is missing or no list, or a row is invalid; the message names the file and the row (from 0).

    Source: github.com/Yuejingkun/MedSG-Bench (`eval/MedSG_Bench.py`); arXiv 2505.11852. The rule for the image of
    the box is inferred from the questions.
    """
    check_format(box_format)
    check_bool("reference", reference, DataError)
    file = as_path(path)
    folder = file.parent if images is None else as_path(images, "the folder of images")
    reading = _Reading(folder, reference, box_format)
    samples = Samples(
        collect(json_rows(file, read_json(file, list)), reading.samples, bad_rows),
        file.stem if name is None else name,
    )
    if not len(samples):
        raise DataError(f"{shown(file)} holds no rows; expected a list of tasks.")
    samples.warn_of_boxes()
    return samples


@dataclass(frozen=True)
class _Reading:
    folder: Path
    reference: bool
    box_format: str | None

    def samples(self, row: Row) -> list[Sample]:
        """The sample of a row."""
        listed, asked, answer = row.values.get("images"), text_of(row, "question"), row.values.get("answer")
        if not isinstance(listed, list) or not listed:
            raise row.bad("images", f"expected a list of paths, got {brief(listed)}")
        paths = [self._find(row, one) for one in listed]
        numbers = answer if isinstance(answer, list) and len(answer) == 4 else [None]
        if not all(isinstance(one, int | float) and not isinstance(one, bool) for one in numbers):
            raise row.bad("answer", f"expected a box of four numbers, got {brief(answer)}")
        target = target_image(asked, len(paths))
        marked = MARKED.search(asked)
        region = [int(one) for one in marked.groups()] if marked else None
        boxes = boxes_of(row, "answer", [[*numbers, target]], paths, self.box_format)
        if self.reference and region:
            boxes += boxes_of(row, "question", [[*region, 0]], paths, "xyxy")
        x0, y0, x1, y1 = numbers
        return [
            Sample(
                images=paths,
                question=_plain(asked),
                boxes=boxes,
                answer=f"({x0},{y0}),({x1},{y1})",
                group=Path(paths[0]).stem,
                meta={
                    **{key: value for key, value in row.values.items() if key not in READ},
                    "target": target,
                    "reference": region,
                },
                id=row.id,
            )
        ]

    def _find(self, row: Row, written: Any) -> str:
        """The path of an image in the folder, by the whole written path, its last two parts, or its last."""
        if isinstance(written, str):
            parts = Path(written).parts
            tails = (Path(*parts[-n:]) for n in (len(parts), 2, 1) if parts)
            written = next((str(one) for one in tails if os.path.isfile(self.folder / one)), written)
        return as_path_in(self.folder, row, "images", written)


def target_image(question: str, n: int) -> int:
    """Returns the index of the image in which a question asks for a box; see `medsg`.

    >>> target_image("The object is marked in the first image. Locate it in the third image.", 3)
    2
    >>> target_image("Locate the first region picture in the source image.", 4), target_image("Find the difference.", 2)
    (0, 1)
    """
    text = question.lower()
    if "in the source image" in text:
        return 0
    named = re.findall(rf"\bin the ({'|'.join(ORDINALS)}|last) image", text)
    if not named or named[-1] == "last":
        return n - 1
    return min(ORDINALS.index(named[-1]), n - 1)


def _plain(question: str) -> str:
    """The question without the tokens of one model."""
    return " ".join(SPECIAL.sub(" ", question).split())
