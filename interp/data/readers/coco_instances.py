"""COCO's instance files: boxes, polygons and run-length masks of things, one sample per image and category."""

from __future__ import annotations

import math
import os
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from interp.data.labelled import PRESENT, Asked, with_area
from interp.data.lines import Row, as_path, collect, needs, read_json, shown
from interp.data.row_fields import as_path_in
from interp.data.samples import Samples
from interp.errors import DataError
from interp.inputs.argument_checks import check_one_of
from interp.inputs.boxes import check_format
from interp.inputs.text import brief

__all__ = ["box_of_segmentation", "coco_instances"]

CROWD = "crowd regions"


def coco_instances(
    annotations: str | os.PathLike[str],
    images: str | os.PathLike[str],
    name: str | None = None,
    *,
    question: str = PRESENT,
    answer: str | None = "yes",
    boxes: str = "bbox",
    crowd: str = "skip",
    box_format: str = "xywh",
    bad_rows: str = "raise",
) -> Samples:
    """Returns one sample for each image and category of a COCO instances file.

    The file is one JSON object with `images` (`id`, `file_name`, `width`, `height`), `annotations` (`id`, `image_id`,
    `category_id`, `bbox`, `segmentation`, `iscrowd`) and `categories` (`id`, `name`, `supercategory`), as in
    `instances_val2017.json`. The sample's boxes are those of all instances of the category in the image. Annotations
    whose box has no area are left out and counted, and crowd regions unless they are kept (`Samples.skipped`). Every
    box must lie inside the image's `width` × `height`. The group is the image; `meta` has `label`, `supercategory`,
    `image_id` and `annotation_ids`, so that masks can be looked up.

    Args:
        annotations: The JSON file.
        images: The folder of the images.
        name: The name of the samples; by default the file's, without its ending.
        question: The question about a category; {label} is its name, {a} "a" or "an".
        answer: The answer of every sample; None for no answer.
        boxes: The source of the boxes. "bbox" takes the annotation's box; "segmentation" the smallest box around its
            mask: polygons, or run-length masks, compressed or not, which need the extra `data` (pycocotools).
        crowd: The treatment of regions of many things (`iscrowd` 1): "skip" leaves them out, "keep" reads them like
            others.
        box_format: The format of `bbox`, as for `interp.Sample`; COCO's own is (x, y, width, height).
        bad_rows: "raise" raises an error at the first bad image or annotation; "record" keeps a stand-in for each bad
            image, which a study records as a failure.

    Raises:
        DataError: The file is missing or no instances file; an annotation or an image is invalid. The message names the
            file and the annotation's or the image's id.

    Source: https://cocodataset.org/#format-data; Lin et al., 2014 (arXiv 1405.0312).
    """
    check_format(box_format)
    check_one_of("boxes", boxes, ("bbox", "segmentation"), DataError)
    check_one_of("crowd", crowd, ("skip", "keep"), DataError)
    asked = Asked(question, answer)
    path, folder = as_path(annotations), as_path(images, "the folder of images")
    content = read_json(path, dict)
    for part in ("images", "annotations", "categories"):
        if not isinstance(content.get(part), list):
            raise DataError(
                f"{shown(path)} has no list {part!r}; a COCO instances file has images, annotations and categories. "
                f"It has {brief(sorted(map(str, content)))}."
            )
    dropped: Counter[str] = Counter()
    reading = _Reading(path, folder, asked, boxes, crowd == "keep", box_format, dropped)
    rows = reading.rows(content)
    return Samples(collect(rows, reading.samples, bad_rows), path.stem if name is None else name, dropped)


@dataclass(frozen=True)
class _Reading:
    """The options of a call, and counts of what was left out so far."""

    path: Path
    folder: Path
    asked: Asked
    boxes: str
    crowds: bool
    box_format: str
    dropped: Counter[str]

    def rows(self, content: Mapping[str, Any]) -> Iterator[Row]:
        """A row for each image that has annotations: the image's own fields, its annotations and the categories."""
        categories = {
            one["id"]: one
            for one in content["categories"]
            if isinstance(one, dict) and isinstance(one.get("id"), int | str)
        }
        of_image: dict[Any, list[Any]] = defaultdict(list)
        for number, one in enumerate(content["annotations"]):
            known = isinstance(one, dict) and isinstance(one.get("image_id"), int | str)
            if not known:
                raise DataError(
                    f"{shown(self.path)}, annotation {number} (from 0): expected an object with image_id, got "
                    f"{brief(one)}"
                )
            of_image[one["image_id"]].append(one)
        for number, image in enumerate(content["images"]):
            known = isinstance(image, dict) and isinstance(image.get("id"), int | str)
            held = of_image.pop(image["id"], []) if known else []
            values = {"image": image, "annotations": held, "categories": categories} if known else image
            if held or not known:
                yield Row(
                    self.path, image["id"] if known else number, values, "image" if known else "image number"
                )
        if of_image:
            raise DataError(
                f"{shown(self.path)}, annotation {brief(next(iter(of_image.values()))[0].get('id'))}: its image_id "
                f"{brief(next(iter(of_image)))} is not in images. Is the file complete?"
            )

    def samples(self, row: Row) -> list[Any]:
        """The samples of an image, one per category."""
        if "image" not in row.values:
            raise DataError(f"{row.at}: expected an object with an id, got {brief(row.values)}")
        image, categories = row.values["image"], row.values["categories"]
        file = as_path_in(self.folder, row, "file_name", image.get("file_name"))
        size = _size(row, image)
        regions: dict[Any, list[Any]] = defaultdict(list)
        ids: dict[Any, list[Any]] = defaultdict(list)
        for one in row.values["annotations"]:
            key = one.get("category_id")
            if not isinstance(key, int | str) or key not in categories:
                raise row.bad(_named(one, "category_id"), f"no category {brief(key)} in the file")
            for box in self._boxes(row, one, size):
                regions[key].append(box)
                ids[key].append(one.get("id"))
        made = []
        for key in sorted(regions, key=str):
            category = categories[key]
            made += self.asked.samples(
                row,
                file,
                {str(category.get("name")): regions[key]},
                box_format=self.box_format if self.boxes == "bbox" else "xyxy",
                size=size,
                group=f"{self.path.stem}:{row.number}",
                meta={
                    "supercategory": category.get("supercategory"),
                    "image_id": row.number,
                    "annotation_ids": ids[key],
                },
                field=f"bbox of annotations {brief(ids[key])}" if self.boxes == "bbox" else "segmentation",
            )
        return made

    def _boxes(self, row: Row, one: Mapping[str, Any], size: tuple[int, int]) -> list[Any]:
        """The box of an annotation in a list, which is empty where it is left out and counted."""
        if one.get("iscrowd") and not self.crowds:
            self.dropped[CROWD] += 1
            return []
        if self.boxes == "segmentation":
            found = box_of_segmentation(row, _named(one, "segmentation"), one.get("segmentation"), size)
            return with_area([found], self.dropped, sides=False)
        box = one.get("bbox")
        if not isinstance(box, list) or len(box) != 4 or not all(_finite(edge) for edge in box):
            raise row.bad(_named(one, "bbox"), f"expected four numbers, got {brief(box)}")
        return with_area([box], self.dropped, sides=self.box_format in ("xywh", "cxcywh"))


def box_of_segmentation(row: Row, field: str, segmentation: Any, size: tuple[int, int]) -> tuple[float, ...]:
    """Returns the box (x0, y0, x1, y1) around polygons or a run-length mask; an empty mask gives a box without an area.

    Args:
        row: The row, for messages.
        field: The name of the field, for messages.
        segmentation: A list of polygons [x, y, x, y, …], or a run-length mask with `counts` and `size` (rows, columns).
        size: (width, height) of the image.

    Raises:
        DataError: A segmentation of another kind or size.
    """
    if isinstance(segmentation, list):
        flat = segmentation and all(isinstance(part, list) and len(part) >= 6 for part in segmentation)
        if not flat or not all(len(part) % 2 == 0 and all(map(_finite, part)) for part in segmentation):
            raise row.bad(
                field, f"expected polygons [x, y, x, y, …] of at least 3 points, got {brief(segmentation)}"
            )
        xs = [x for part in segmentation for x in part[::2]]
        ys = [y for part in segmentation for y in part[1::2]]
        return min(xs), min(ys), max(xs), max(ys)
    if isinstance(segmentation, dict) and segmentation.get("size") == [size[1], size[0]]:
        return _box_of_runs(row, field, segmentation, size)
    raise row.bad(
        field,
        f"expected polygons, or a run-length mask of size {[size[1], size[0]]} (rows, columns); got "
        f"{brief(segmentation)}",
    )


def _box_of_runs(row: Row, field: str, mask: Mapping[str, Any], size: tuple[int, int]) -> tuple[float, ...]:
    """The box of a run-length mask, by pycocotools."""
    counts, n_pixels = mask.get("counts"), size[0] * size[1]
    tools = needs("pycocotools.mask")
    if isinstance(counts, list):
        whole = all(isinstance(one, int) and not isinstance(one, bool) and one >= 0 for one in counts)
        if not whole or sum(counts) != n_pixels:
            raise row.bad(field, f"expected runs that add up to {n_pixels} pixels, got {brief(counts)}")
        packed = tools.frPyObjects({"counts": counts, "size": [size[1], size[0]]}, size[1], size[0])
    elif isinstance(counts, str) and counts.isascii() and all(48 <= ord(one) < 112 for one in counts):
        packed = {"counts": counts.encode(), "size": [size[1], size[0]]}
        if _total(counts) != n_pixels:
            raise row.bad(field, f"expected compressed runs of {n_pixels} pixels, got {brief(counts)}")
    else:
        raise row.bad(field, f"expected counts as a list or a compressed text, got {brief(counts)}")
    x, y, width, height = (float(one) for one in tools.toBbox(packed))
    return x, y, x + width, y + height


def _total(counts: str) -> int:
    """The pixels of compressed runs: 5 bits a character, runs from the third on as differences to the one before last.

    pycocotools reads past its memory where they do not add up to the image.
    """
    runs: list[int] = []
    value, shift = 0, 0
    for one in counts:
        bits = ord(one) - 48
        value |= (bits & 31) << shift
        shift += 5
        if not bits & 32:
            if bits & 16:
                value |= -1 << shift
            runs.append(value + (runs[-2] if len(runs) > 2 else 0))
            value, shift = 0, 0
        elif shift > 40:
            return -1
    return sum(runs) if all(run >= 0 for run in runs) and not shift else -1


def _size(row: Row, image: Mapping[str, Any]) -> tuple[int, int]:
    size = image.get("width"), image.get("height")
    if not all(isinstance(side, int) and not isinstance(side, bool) and 0 < side < 10**6 for side in size):
        raise row.bad("width", f"expected width and height in pixels, got {brief(size)}")
    return size  # type: ignore[return-value]


def _finite(value: Any) -> bool:
    return (
        isinstance(value, int | float)
        and not isinstance(value, bool)
        and abs(value) < 1e9
        and math.isfinite(value)
    )


def _named(annotation: Mapping[str, Any], field: str) -> str:
    return f"{field} of annotation {annotation.get('id')}"
