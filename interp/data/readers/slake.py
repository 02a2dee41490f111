"""SLAKE: questions on radiology images, with the boxes and masks of what the image shows."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from interp.data.build import piece_boxes
from interp.data.labelled import mask_values, with_area
from interp.data.lines import Row, as_path, collect, json_rows, read_json
from interp.data.questions import Wanted, chosen_splits, is_yes_or_no
from interp.data.row_fields import as_number, as_path_in, boxes_of, text_of
from interp.data.samples import Samples
from interp.data.volume_slices import label_names, small_pieces
from interp.errors import DataError
from interp.inputs.argument_checks import check_one_of, check_whole
from interp.inputs.files import unreadable
from interp.inputs.images import image_size
from interp.inputs.masks import Mask
from interp.inputs.sample import Sample
from interp.inputs.text import brief

__all__ = ["slake"]

SPLITS = ("train", "validation", "test")
FILES = {"train": ("train.json",), "validation": ("validation.json", "validate.json"), "test": ("test.json",)}
LANGUAGES = ("en", "zh")
READ = ("img_name", "question", "answer")


def slake(
    root: str | os.PathLike[str],
    split: str = "test",
    name: str | None = None,
    *,
    language: str | None = "en",
    questions: str = "all",
    regions: str = "named",
    masks: Mapping[int, str] | None = None,
    box_format: str = "xywh",
    least: int = 4,
    bad_rows: str = "raise",
) -> Samples:
    """Returns the questions of one split of SLAKE.

    Reads `test.json` (`train.json`, `validation.json` or `validate.json`), a list of rows with `img_name`
    (`xmlab102/source.jpg`, below `imgs`), `question`, `answer`, `q_lang`, `answer_type`, `modality`, … Beside an image
    lies `detection.json`, a list like `[{"Liver": [72, 128, 45, 60]}]` of labels with (x, y, width, height) in pixels,
    and `mask.png`, whose grey values are labels. **No question says which region its answer rests on**: with
    regions="named" a sample has the boxes of the labels that its question or answer names, so many have none. `meta`
    has all other fields, `label` (the labels of the boxes), `regions` (every label of the image → its boxes as lists),
    `benchmark`, `kind` ("closed" or "open") and `split`. The group is the image. `skipped` counts boxes that were left
    out, and questions by kind and split.

    Args:
        root: The folder `Slake1.0`, or that of `BoKelvin/SLAKE` with its images unpacked.
        split: The split, "train", "validation" or "test"; "all" for every one.
        name: The name of the samples.
        language: The language of the questions, "en" or "zh"; None for both. Labels are English, so regions="named"
            finds few in Chinese questions.
        questions: The kind of questions, "closed", "open" or "all". Questions are closed if their `answer_type` is
            "CLOSED" (416 English ones of test, 2,781 of all splits); rows without that field, if the answer is yes or
            no.
        regions: The labels of the image whose boxes a sample has: those "named" in the question or answer, "all", or
            "none".
        masks: Grey value → label, to take boxes from the pieces of `mask.png` in place of `detection.json`. Samples
            then hold the masks of these labels too (`rule="masks"` in studies).
        box_format: The format of the boxes in `detection.json`, as for `interp.Sample`.
        least: The least number of pixels of a piece of a mask; smaller pieces are left out and counted.
        bad_rows: "raise" raises an error at the first bad row; "record" keeps a stand-in for each, which a study
            records as a failure.

    Raises:
        DataError: A file is missing, or a row or box is invalid; the message names the file and the row (from 0).

    Source: Liu et al., 2021 (arXiv 2102.09542). The form of `detection.json` is described by public converters and was
    not checked against the data; the official code of VGMED also reads SLAKE's boxes as (x, y, width, height).
    """
    splits = chosen_splits(split, SPLITS, "SLAKE")
    check_one_of("regions", regions, ("named", "all", "none"), DataError)
    check_whole("least", least, 1, DataError)
    if language is not None:
        check_one_of("language", language, LANGUAGES, DataError)
    folder = as_path(root, "the folder")
    dropped: Counter[str] = Counter()
    wanted = Wanted(questions, splits, dropped)
    samples: list[Sample] = []
    for one, path in _files(folder, splits).items():
        reading = _Reading(folder / "imgs", one, regions, label_names(masks), box_format, least, wanted, {})
        rows = (row for row in json_rows(path, read_json(path, list)) if _spoken(row, language))
        samples += collect(rows, reading.samples, bad_rows)
    return Samples(samples, f"SLAKE {split}" if name is None else name, dropped)


def _files(folder: Path, splits: Sequence[str]) -> dict[str, Path]:
    """The file of each split.

    Raises:
        DataError: Some files exist and others do not.
    """
    found = {split: _file(folder, split) for split in splits}
    there = [split for split, path in found.items() if unreadable(path) is None]
    if there and len(there) < len(found):
        lacking = ", ".join(path.name for split, path in found.items() if split not in there)
        raise DataError(
            f"every split of SLAKE needs {', '.join(FILES[split][0] for split in splits)}; {folder} lacks {lacking}. "
            f"Take one that is there, split={there[0]!r}, or fetch the rest."
        )
    return found


def _file(folder: Path, split: str) -> Path:
    """The file of a split, under the first of its names that exists."""
    names = [folder / one for one in FILES[split]]
    return next((one for one in names if unreadable(one) is None), names[0])


def _spoken(row: Row, language: str | None) -> bool:
    return language is None or not isinstance(row.values, dict) or row.values.get("q_lang") == language


@dataclass(frozen=True)
class _Reading:
    images: Path
    split: str
    regions: str
    masks: Mapping[int, str] | None
    box_format: str
    least: int
    wanted: Wanted
    known: dict[str, dict[str, list[Any]]]

    def samples(self, row: Row) -> list[Sample]:
        """The sample of a row."""
        question, answer = text_of(row, "question"), row.values.get("answer")
        if answer is not None and not isinstance(answer, str):
            raise row.bad("answer", f"expected a text or null, got {brief(answer)}")
        kind = _kind(row, answer)
        if not self.wanted.takes(kind, self.split):
            return []
        file = as_path_in(self.images, row, "img_name", row.values.get("img_name"))
        if file not in self.known:
            self.known[file] = self._found(row, Path(file))
        found = self.known[file]
        chosen = self._chosen(found, f"{question} {answer or ''}")
        listed = [box for label in chosen for box in found[label]]
        return [
            Sample(
                file,
                question,
                boxes_of(row, "detection.json", listed, [file], "xyxy"),
                answer,
                group=Path(file).parent.name,
                meta={
                    **{key: value for key, value in row.values.items() if key not in READ},
                    "label": ", ".join(chosen) or None,
                    "regions": {label: [list(box) for box in boxes] for label, boxes in found.items()},
                    "benchmark": "SLAKE",
                    "kind": kind,
                    "split": self.split,
                },
                id=f"{self.split}:{row.values.get('qid', row.number)}",
                masks=[
                    Mask(os.fspath(Path(file).with_name("mask.png")), label=value)
                    for value, label in (self.masks or {}).items()
                    if label in chosen
                ],
            )
        ]

    def _chosen(self, found: Mapping[str, Any], text: str) -> list[str]:
        """The labels of an image whose boxes a sample has."""
        if self.regions == "named":
            return [label for label in found if is_named(label, text)]
        return list(found) if self.regions == "all" else []

    def _found(self, row: Row, image: Path) -> dict[str, list[Any]]:
        """Label → boxes (x0, y0, x1, y1) of an image."""
        if self.regions == "none":
            return {}
        size = image_size(image)
        if self.masks is not None:
            return self._from_mask(image, size)
        path = image.with_name("detection.json")
        if unreadable(path):
            return {}
        found: dict[str, list[Any]] = {}
        for place in json_rows(path, read_json(path, list)):
            pairs = place.values.items() if isinstance(place.values, dict) else ()
            if not pairs:
                raise DataError(
                    f"{place.at}: expected an object of a label and its box, got {brief(place.values)}"
                )
            for label, box in pairs:
                numbers = [as_number(edge) for edge in box] if isinstance(box, list) else []
                kept = (
                    with_area([numbers], self.wanted.left_out, sides=True) if len(numbers) == 4 else [numbers]
                )
                for one in boxes_of(place, str(label), kept, [str(image)], self.box_format):
                    _check_inside(place, str(label), one, size)
                    found.setdefault(str(label), []).append(one.as_tuple())
        return found

    def _from_mask(self, image: Path, size: tuple[int, int]) -> dict[str, list[Any]]:
        path = image.with_name("mask.png")
        if unreadable(path):
            return {}
        values, found = mask_values(path, size), {}
        for value, label in (self.masks or {}).items():
            boxes, small = piece_boxes(np.asarray(values == value), self.least)
            self.wanted.left_out[small_pieces(self.least)] += small
            if boxes:
                found.setdefault(label, []).extend(boxes)
        return found


def _kind(row: Row, answer: str | None) -> str:
    """Whether a question is closed or open: by its own field, else by its answer."""
    said = row.values.get("answer_type")
    closed = said.strip().upper() == "CLOSED" if isinstance(said, str) else is_yes_or_no(answer)
    return "closed" if closed else "open"


def _check_inside(row: Row, label: str, box: Any, size: tuple[int, int]) -> None:
    if box.is_beyond(size):
        raise row.bad(
            label,
            f"the box {box.as_tuple()} reaches outside its {size[0]}×{size[1]} image. If boxes are (x0, y0, x1, y1), "
            "pass box_format='xyxy'.",
        )


def is_named(label: str, text: str) -> bool:
    """Whether a text holds the words of a label, in order, in any case, in the singular or plural.

    >>> is_named("Left Lung", "Is the left lung healthy?"), is_named("Liver", "Where are the kidneys?")
    (True, False)
    """
    words = [re.escape(word) for word in re.findall(r"\w+", label.lower())]
    phrase = r"[\s_-]+".join(words)
    return bool(words) and re.search(rf"\b{phrase}(s|es)?\b", text.lower()) is not None
