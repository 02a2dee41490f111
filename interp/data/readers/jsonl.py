"""Reads JSON-lines files of one sample a line."""

from __future__ import annotations

import os
from functools import partial
from typing import Any

from interp.data.lines import Row, as_path, read_lines, shown
from interp.data.samples import Samples
from interp.errors import InterpError
from interp.inputs.boxes import check_format
from interp.inputs.files import unreadable
from interp.inputs.images import image_size
from interp.inputs.sample import Box, Sample, as_boxes
from interp.inputs.text import brief
from interp.inputs.video import FIELDS

__all__ = ["jsonl"]

_TYPES: dict[str, tuple[type, ...]] = {
    "image": (str,),
    "images": (list,),
    "video": (str, list),
    "fps": (int, float, type(None)),
    "times": (list, type(None)),
    "n_frames": (int, type(None)),
    "video_fps": (int, float, type(None)),
    "question": (str,),
    "answer": (str, type(None)),
    "options": (list, type(None)),
    "group": (str, int, type(None)),
    "id": (str, int),
    "meta": (dict,),
    "size": (list,),
    "boxes": (list,),
    "bbox": (list,),
}
IDS = ("id", "question_id", "qid")
"""Fields that name a row; the first that a row has is its id."""
_KNOWN = {*FIELDS, "image", "images", "boxes", "bbox", "question", "answer", "options", "group", "id", "meta"}


def jsonl(
    path: str | os.PathLike[str],
    name: str | None = None,
    *,
    box_format: str | None = None,
    bad_rows: str = "raise",
) -> Samples:
    """Returns the samples of a JSON-lines file.

    A row needs `question` and `image` (or `images`, a list; or `video`, a video file, a folder of frames or a list of
    frames, with `fps`, `times`, `n_frames` and `video_fps` as for `interp.Sample`), with paths relative to the file's
    folder. It may have `boxes` or `bbox` (a list of xyxy boxes in pixels, half-open, or one such box), `answer`,
    `options`, `group`, `id` (or `question_id` or `qid`; by default the file's name and the line, such as "rows:3"),
    `meta`, and `size` ([width, height] of the image; boxes must lie inside it). Every other field goes to the sample's
    `meta`. Empty lines are skipped.

    Args:
        path: The file.
        name: The name of the samples; by default the file's, without its ending.
        box_format: The format of the boxes, "xyxy", "xywh", "cxcywh" or "fraction", as for `interp.Sample`. None stands
            for "xyxy", but refuses boxes that look like fractions of the image.
        bad_rows: "raise" raises an error at the first bad row; "record" keeps a stand-in for each, which a study
            records as a failure.

    Raises:
        DataError: The file is missing or empty, or a row is invalid; the message names file, line and field.
        BoxError: The format of boxes is unknown.

    Warns:
        UserWarning: Most boxes end beyond their image.
    """
    check_format(box_format)
    path = as_path(path)
    samples = Samples(
        read_lines(path, partial(_sample, box_format=box_format), bad_rows),
        path.stem if name is None else name,
    )
    if not all("size" in sample.meta for sample in samples if sample.boxes):
        samples.warn_of_boxes()
    return samples


def _sample(row: Row, box_format: str | None) -> Sample:
    """Returns the sample of one row."""
    values = _checked(row)
    given = _video(row) if "video" in values else {"images": _images(row)}
    listed = values.get("boxes", values.get("bbox", ()))
    boxes: dict[str, Any] = {"boxes": listed, "box_format": box_format}
    if "images" in given:
        boxes = {"boxes": _boxes(row, given["images"], box_format)}
    return Sample(
        **given,
        **boxes,
        question=values["question"],
        answer=values.get("answer"),
        options=values.get("options"),
        group=values.get("group"),
        meta={**values.get("meta", {}), **{key: value for key, value in values.items() if key not in _KNOWN}},
        id=next((str(values[name]) for name in IDS if type(values.get(name)) in (str, int)), row.id),
    )


def _checked(row: Row) -> Any:
    """Returns the row's values after checking the types of its fields."""
    values = row.values
    for field, types in _TYPES.items():
        if field in values and (not isinstance(values[field], types) or isinstance(values[field], bool)):
            names = " or ".join("null" if kind is type(None) else kind.__name__ for kind in types)
            raise row.bad(field, f"expected {names}, got {brief(values[field])}")
    if not (values.get("question") or "").strip():
        raise row.bad("question", f"expected a text that is not empty, got {brief(values.get('question'))}")
    return values


def _images(row: Row) -> list[str]:
    """Returns the paths of the row's images, relative to the JSON-lines file."""
    values, folder = row.values, row.path.parent
    field = "images" if "images" in values else "image"
    named = values.get("images", [values["image"]] if "image" in values else [])
    if not named or ("image" in values and "images" in values):
        raise row.bad(field, "a row needs exactly one of image (a path), images (a list of paths) and video")
    named_options = [name for name in FIELDS[1:] if values.get(name) is not None]
    if named_options:
        raise row.bad(
            named_options[0], "it belongs to a video, and the row has none. Leave it out, or give video"
        )
    for one in named:
        problem = unreadable(folder / one) if isinstance(one, str) else "is no path."
        if problem:
            raise row.bad(
                field,
                f"no file {brief(one)} in {shown(folder)}; paths are relative to the .jsonl file. It {problem}",
            )
    return [str(folder / one) for one in named]


def _video(row: Row) -> dict[str, Any]:
    """Returns the row's video, as the arguments of a sample; its paths are relative to the JSON-lines file."""
    values, folder = row.values, row.path.parent
    other = next((name for name in ("image", "images") if name in values), None)
    if other is not None:
        raise row.bad(other, "a row needs exactly one of image (a path), images (a list of paths) and video")
    named = values["video"] if isinstance(values["video"], list) else [values["video"]]
    for one in named:
        problem = unreadable(folder / one) if isinstance(one, str) else "is no path."
        if problem and not (isinstance(values["video"], str) and (folder / one).is_dir()):
            raise row.bad(
                "video",
                f"no file {brief(one)} in {shown(folder)}; paths are relative to the .jsonl file. It {problem}",
            )
    paths = [str(folder / one) for one in named]
    options = {name: values[name] for name in FIELDS[1:] if values.get(name) is not None}
    return {"video": paths if isinstance(values["video"], list) else paths[0], **options}


def _boxes(row: Row, images: list[str], box_format: str | None) -> tuple[Box, ...]:
    """Returns the row's boxes, checked against its `size` where it has one."""
    values = row.values
    field = "bbox" if "bbox" in values else "boxes"
    if "bbox" in values and "boxes" in values:
        raise row.bad(field, "expected boxes or bbox, got both")
    raw = values.get(field, [])
    listed = [raw] if raw and not isinstance(raw[0], list) else raw
    size = values.get("size")
    if not all(isinstance(box, list) and _numbers(box) for box in listed):
        raise row.bad(field, f"expected boxes [x0, y0, x1, y1] in pixels, got {brief(raw)}")
    if size is not None and not (len(size) == 2 and _numbers(size) and max(map(abs, size)) < 10**9):
        raise row.bad("size", f"expected [width, height] in pixels, got {brief(size)}")
    try:
        boxes = as_boxes(listed, box_format, lambda i: image_size(images[i]))
        for box in boxes:
            if size is not None and box.image == 0:
                box.check_inside((size[0], size[1]))
            if box.may_be_fractions and box.image < len(images):
                box.check_units(image_size(images[box.image]))
    except IndexError as error:
        raise row.bad(field, f"a box names an image that the row lacks: it has {len(images)}") from error
    except InterpError as error:
        raise row.bad(field, str(error)) from error
    return boxes


def _numbers(values: list[Any]) -> bool:
    return all(isinstance(value, int | float) and not isinstance(value, bool) for value in values)
