"""SA-Med2D-20M: medical images of many sources in one layout, with a mask for each instance of each class."""

from __future__ import annotations

import os
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from interp.data.build import piece_boxes
from interp.data.labelled import VISIBLE, Asked, mask_values
from interp.data.lines import Row, as_path, collect, read_json
from interp.data.readers.bundled import check_draw
from interp.data.readers.coco_and_vgmed import described
from interp.data.row_fields import as_path_in
from interp.data.samples import Samples
from interp.data.volume_slices import small_pieces
from interp.errors import DataError, InterpError
from interp.inputs.argument_checks import check_bool, check_whole
from interp.inputs.images import image_size
from interp.inputs.masks import Mask
from interp.inputs.sample import Sample
from interp.inputs.text import brief

__all__ = ["INVERTED", "sa_med2d"]

INVERTED = frozenset({"ichallenge_adam_task2"})
"""Sources whose masks are 0 in the object."""
ROWS, CLASSES = "SAMed2D_v1.json", "SAMed2D_v1_class_mapping_id.json"
MASK = re.compile(r"(?P<image>.+--.+--.+--.+)--(?P<label>\d+)_(?P<instance>\d+)")
EMPTY, UNION = "masks without a pixel", "masks of union_… classes"


def sa_med2d(
    root: str | os.PathLike[str],
    name: str = "SA-Med2D-20M",
    *,
    sources: Iterable[str] | None = None,
    n: int | None = None,
    seed: int = 0,
    unions: bool = False,
    masks: bool = False,
    question: str = VISIBLE,
    answer: str | None = "yes",
    least: int = 4,
    bad_rows: str = "raise",
) -> Samples:
    """Returns one sample for each image and class of SA-Med2D-20M.

    Reads `SAMed2D_v1.json` (image → its masks) and `SAMed2D_v1_class_mapping_id.json` (source → class → number) in the
    folder. An image is named `ct_00--AbdomenCT1K--Case_00011--x_0040.png` (modality, source, case, slice), a mask like
    its image with `--0003_001` behind it (class 3, instance 1). A sample's boxes are the smallest boxes around the
    4-connected pieces of all masks of the class. Masks of `ichallenge_adam_task2` are inverted. Empty masks and small
    pieces are left out and counted. **Masks are opened while reading**, because boxes come from them: pass `sources` or
    `n` for the whole set. `meta` has `label`, `modality` and `source`; the group is the source and case.

    Args:
        root: The folder `SAMed2Dv1`.
        name: The name of the samples.
        sources: Names of sources to read, such as ["AbdomenCT1K"]; None for all.
        n: The largest number of images, drawn with `seed` and kept in order; None for all.
        seed: The seed of the draw.
        unions: Whether classes that unite others (`union_…`) are read; otherwise they are left out and counted.
        masks: Whether samples hold the masks beside the boxes, so that metrics can count their pixels
            (`rule="masks"` in studies). A mask then counts whole, small pieces too.
        question: The question about a class; {label} is its name, {a} "a" or "an".
        answer: The answer of every sample; None for no answer.
        least: The least number of pixels of a piece; smaller pieces are left out and counted.
        bad_rows: "raise" raises an error at the first bad image; "record" keeps a stand-in for each, which a study
            records as a failure.

    Raises:
        DataError: A file is missing or in another layout, a source is unknown, or a mask does not fit its image; the
            message names the file and the image.

    Source: arXiv 2311.11969; the card of `OpenGVLab/SA-Med2D-20M` on the hub. That the number in a mask's name is the
    class's number in the mapping is how public loaders read it; it was not checked against the data.
    """
    asked = Asked(question, answer)
    check_whole("least", least, 1, DataError)
    check_bool("unions", unions, DataError)
    check_bool("masks", masks, DataError)
    check_draw(n, seed)
    folder = as_path(root, "the folder")
    listed, classes = read_json(folder / ROWS, dict), read_json(folder / CLASSES, dict)
    chosen = _chosen(listed, sources, n, seed)
    dropped: Counter[str] = Counter()
    reading = _Reading(folder, classes, asked, unions, masks, least, dropped)
    return Samples(collect(_rows(folder / ROWS, listed, chosen), reading.samples, bad_rows), name, dropped)


def _chosen(masks: Mapping[str, Any], sources: Any, n: int | None, seed: int) -> list[str]:
    """The names of the images to read."""
    images = list(masks)
    if sources is not None:
        if isinstance(sources, str) or not isinstance(sources, Iterable):
            raise DataError(f'sources is a list of names, such as ["AbdomenCT1K"]; got {brief(sources)}.')
        wanted = set(map(str, sources))
        there = {_source(image) for image in images}
        if wanted - there:
            raise DataError(
                f"no source {brief(sorted(wanted - there))} in {ROWS}; there are {brief(sorted(there))}."
            )
        images = [image for image in images if _source(image) in wanted]
    if n is None or n >= len(images):
        return images
    drawn = np.sort(np.random.default_rng(seed).choice(len(images), n, replace=False))
    return [images[int(i)] for i in drawn]


def _source(image: str) -> str:
    parts = PurePosixPath(image).name.split("--")
    return parts[1] if len(parts) > 1 else ""


def _rows(path: Path, masks: Mapping[str, Any], chosen: Iterable[str]) -> Iterator[Row]:
    places = {image: number for number, image in enumerate(masks)}
    return (Row(path, places[image], {"image": image, "masks": masks[image]}, "image") for image in chosen)


@dataclass(frozen=True)
class _Reading:
    folder: Path
    classes: Mapping[str, Any]
    asked: Asked
    unions: bool
    masks: bool
    least: int
    dropped: Counter[str]

    def samples(self, row: Row) -> list[Sample]:
        """The samples of an image, one per class."""
        image, masks = row.values["image"], row.values["masks"]
        file = as_path_in(self.folder, row, "image", image)
        if not isinstance(masks, list) or not masks:
            raise row.bad(image, f"expected a list of masks, got {brief(masks)}")
        group, meta = described(image)
        names = self._names(row, str(meta["source"]))
        regions: dict[str, list[Any]] = defaultdict(list)
        held: dict[str, list[Mask]] = defaultdict(list)
        size = image_size(file)
        for mask in masks:
            label = self._label(row, mask, names)
            if label.startswith("union_") and not self.unions:
                self.dropped[UNION] += 1
                continue
            path = as_path_in(self.folder, row, "mask", mask)
            boxes = self._boxes(row, path, meta["source"], size)
            regions[label] += boxes
            if boxes and self.masks:
                held[label].append(Mask(path, label=0 if meta["source"] in INVERTED else None))
        ordered = dict(sorted(regions.items()))
        return self.asked.samples(
            row, file, ordered, size=size, group=group, meta=meta, field="masks", masks=held
        )

    def _names(self, row: Row, source: str) -> dict[int, str]:
        """Number → class of a source."""
        known = self.classes.get(source)
        if not isinstance(known, dict):
            raise row.bad(
                "image", f"{CLASSES} has no source {brief(source)}; it has {brief(sorted(self.classes))}"
            )
        try:
            return {int(number): label for label, number in known.items()}
        except (TypeError, ValueError) as error:
            raise DataError(
                f"{CLASSES}, source {source!r}: expected class → number, got {brief(known)}."
            ) from error

    def _label(self, row: Row, mask: Any, names: Mapping[int, str]) -> str:
        """The class of a mask, from its name."""
        parts = MASK.fullmatch(PurePosixPath(mask).stem) if isinstance(mask, str) else None
        if parts is None or int(parts["label"]) not in names:
            raise row.bad(
                "masks",
                f"expected a name like …--0003_001.png with one of the classes {brief(names)}, got {brief(mask)}",
            )
        return names[int(parts["label"])]

    def _boxes(self, row: Row, path: str, source: Any, size: tuple[int, int]) -> list[Any]:
        try:
            values = mask_values(path, size)
        except InterpError as error:
            raise row.bad("masks", str(error)) from error
        mask = values == 0 if source in INVERTED else values > 0
        if not mask.any():
            self.dropped[EMPTY] += 1
            return []
        boxes, small = piece_boxes(mask, self.least)
        self.dropped[small_pieces(self.least)] += small
        return boxes
