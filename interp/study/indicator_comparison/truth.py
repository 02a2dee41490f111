"""What a map should point at: a sample's boxes, or others that its meta names, such as a planted marker."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from interp.data import Samples
from interp.errors import InterpError, StudyError
from interp.inputs.sample import Box, Sample, as_boxes
from interp.run import digest

__all__ = ["BOXES", "at_truth", "check_truth", "truth_boxes", "truth_identity"]

BOXES = "boxes"


def truth_boxes(sample: Sample, truth: str) -> tuple[Box, ...]:
    """The boxes of that truth: "boxes" are the sample's own, any other word is a key of its meta.

    `meta[truth]` is one box (x0, y0, x1, y1) or a list of boxes, in pixels of the original image.

    Raises:
        StudyError: The meta has no such key, or no boxes under it.
    """
    if truth == BOXES or not sample.is_usable:
        return sample.boxes
    found = sample.meta.get(truth)
    known = ", ".join(map(repr, sample.meta)) or "nothing"
    refusal = (
        f"truth is {BOXES!r} or a key of each sample's meta that holds a box (x0, y0, x1, y1) or a list of boxes; "
        f"sample {sample.id} has {found!r} under {truth!r} (its meta holds {known})."
    )
    if found is None:
        raise StudyError(refusal)
    try:
        return as_boxes(found if _nested(found) else [found])
    except InterpError as error:
        raise StudyError(refusal) from error


def at_truth(data: Samples, truth: str) -> Samples:
    """The samples with the boxes of that truth in the place of their own.

    Raises:
        StudyError: As `truth_boxes`.
    """
    if truth == BOXES:
        return data
    return data.like(one.replace(boxes=truth_boxes(one, truth), id=one.id) for one in data)


def check_truth(data: Samples, truths: Iterable[str]) -> None:
    """Raise `StudyError` where a sample's meta does not hold the boxes of a truth."""
    for truth in truths:
        for sample in data:
            truth_boxes(sample, truth)


def truth_identity(data: Samples, truth: str) -> str:
    """A hash of the boxes, because a sample's meta is no part of its fingerprint."""
    listed = [[[*box.as_tuple(), box.image] for box in truth_boxes(one, truth)] for one in data]
    return digest({"boxes": listed})


def _nested(found: Any) -> bool:
    """Whether it is a list of boxes rather than one box."""
    listed = isinstance(found, list | tuple)
    return listed and all(isinstance(one, list | tuple | Box) for one in found)
