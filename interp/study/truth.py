"""What a map should point at: a sample's boxes or masks, or other boxes of its meta, such as a planted marker."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
from jaxtyping import Bool, Float

from interp.data import Samples
from interp.errors import ImageError, InterpError, SampleError, StudyError
from interp.inputs.masks import Mask
from interp.inputs.sample import Box, Sample, as_boxes
from interp.inputs.tokens import TokenMap
from interp.run import digest

__all__ = [
    "BOXES",
    "MASKS",
    "at_truth",
    "check_truth",
    "inside_of",
    "lost_share",
    "tokens_inside",
    "truth_boxes",
    "truth_identity",
]

BOXES = "boxes"
MASKS = "masks"
"""The rule that takes the samples' masks in the place of their boxes."""


def inside_of(
    tokens: TokenMap, sample: Sample, rule: str
) -> Bool[np.ndarray, " token"] | Float[np.ndarray, " token"]:
    """What metrics compare a map with: for each token whether it is in the boxes, or its fraction inside the masks.

    Args:
        tokens: The tokens of the sample's prompt.
        sample: The sample.
        rule: "masks" for the fractions that the sample's masks cover; else a rule of `TokenMap.mask` for its boxes.

    Raises:
        SampleError: The rule is "masks" and the sample has none.
        BoxError, ImageError: As `TokenMap.mask`.
    """
    return tokens.coverage(_masks(sample)) if rule == MASKS else tokens.mask(sample.boxes, rule=rule)


def tokens_inside(tokens: TokenMap, sample: Sample, rule: str) -> Bool[np.ndarray, " token"]:
    """Which tokens belong to the boxes by the rule, or share a pixel with the masks. Arguments as `inside_of`."""
    return tokens.mask(_masks(sample)) if rule == MASKS else tokens.mask(sample.boxes, rule=rule)


def lost_share(tokens: TokenMap, sample: Sample, rule: str) -> float:
    """The largest fraction of a box, or of a mask, that the model does not see. Arguments as `inside_of`."""
    return float(np.max(tokens.lost_area(_masks(sample) if rule == MASKS else sample.boxes)))


def _masks(sample: Sample) -> tuple[Mask, ...]:
    if not sample.masks:
        raise SampleError(
            'rule="masks" scores maps against masks, and the sample has none. Give it masks, '
            'sample.replace(masks=[…]), or use rule="touch" for its boxes.'
        )
    return sample.masks


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
    return digest({"boxes": [_edges(one, truth) for one in data]})


def _edges(sample: Sample, truth: str) -> Any:
    """The edges of the boxes as JSON values; the reason where a mask that they are taken from cannot be read."""
    try:
        return [[*box.as_tuple(), box.image] for box in truth_boxes(sample, truth)]
    except ImageError as error:
        return str(error)


def _nested(found: Any) -> bool:
    """Whether it is a list of boxes rather than one box."""
    listed = isinstance(found, list | tuple)
    return listed and all(isinstance(one, list | tuple | Box) for one in found)
