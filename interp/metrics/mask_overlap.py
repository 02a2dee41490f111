"""How well masks and boxes of pixels agree: intersection over union, and the share of true masks that are found."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from jaxtyping import Bool, Float
from numpy.typing import ArrayLike

from interp.errors import MapError
from interp.inputs.boxes import Box, BoxLike, as_boxes
from interp.inputs.footprints import covered_area
from interp.inputs.masks import Mask
from interp.metrics.numbers import plain_array

__all__ = ["boxes_iou", "mask_recall", "pixel_iou"]


def pixel_iou(mask: Any, truth: Any) -> float:
    """Intersection over union of two masks of one image, in pixels: |A ∩ B| / |A ∪ B|.

    Range [0, 1], higher is better; 0 where they share no pixel, so an empty mask scores 0 against any truth. A mask of
    the whole image scores the truth's share of the image, which is the chance level.

    Args:
        mask: An `interp.Mask`, or bool (row, col).
        truth: The true mask, an `interp.Mask` or bool (row, col) of the same size.

    Returns:
        The value; NaN where both are empty.

    Raises:
        MapError: An argument that is no mask, or masks of different sizes.
        ImageError: A mask's file cannot be read.

    Example:
        >>> pixel_iou([[True, True], [False, False]], [[True, False], [True, False]])  # 1 of 3
        0.3333333333333333
    """
    one, other = _inside(mask), _inside(truth)
    if one.shape != other.shape:
        raise MapError(
            f"two masks of one image have the same size; got {one.shape} and {other.shape} (row, col). Give both in "
            "pixels of the original image."
        )
    union = int((one | other).sum())
    return float((one & other).sum() / union) if union else float("nan")


def mask_recall(masks: Iterable[Any], truths: Iterable[Any], threshold: float = 0.5) -> float:
    """The share of true masks that are found: paired one to one with a mask of IoU ≥ `threshold`.

    Pairs are taken greedily, the largest IoU first, as in GLaMM's evaluation of grounded conversations. There a pair
    must have similar texts too (cosine of BERT embeddings ≥ 0.5): **that half is left out here**, so a mask counts
    whatever its words are, and values are not comparable to published ones. Unmatched masks do not lower the score.

    Range [0, 1], higher is better.

    Args:
        masks: The masks, each an `interp.Mask` or bool (row, col).
        truths: The true masks, one for each thing to find, each an `interp.Mask` or bool (row, col).
        threshold: The least IoU of a pair, in (0, 1].

    Returns:
        The share; NaN without a true mask.

    Raises:
        MapError: An argument that is no list of masks, masks of different sizes, or a threshold outside (0, 1].
        ImageError: A mask's file cannot be read.

    Source: Rasheed et al. 2024 (GLaMM, arXiv 2311.03356); Cao et al. 2024 (arXiv 2410.08209), without the texts.

    Example:
        >>> left, right = [[True, False]], [[False, True]]
        >>> mask_recall([left], [left, right])
        0.5
    """
    real = isinstance(threshold, int | float | np.floating) and not isinstance(threshold, bool)
    if not real or not 0 < threshold <= 1:
        raise MapError(
            f"threshold is the least IoU of a pair, above 0 and at most 1; got {threshold!r:.100}."
        )
    wanted, given = list(_listed("truths", truths)), list(_listed("masks", masks))
    if not wanted:
        return float("nan")
    overlaps = np.array([[pixel_iou(mask, truth) for mask in given] for truth in wanted]).reshape(
        len(wanted), len(given)
    )
    return len(_pairs(np.nan_to_num(overlaps), float(threshold))) / len(wanted)


def boxes_iou(boxes: Sequence[BoxLike], others: Sequence[BoxLike]) -> float:
    """Intersection over union of two sets of boxes of one image; the boxes of a set are unioned first. Exact areas.

    Range [0, 1], higher is better; 0 where they share no area.

    Args:
        boxes: Boxes in pixels of the original image; their `image` is ignored.
        others: The other set of boxes, in pixels of the original image.

    Returns:
        The value; NaN where a set is empty.

    Raises:
        BoxError: An entry that is no box.

    Example:
        >>> boxes_iou([(0, 0, 2, 2)], [(1, 0, 3, 2)])  # 2 of 6
        0.3333333333333333
    """
    one, other = as_boxes(boxes, box_format="xyxy"), as_boxes(others, box_format="xyxy")
    if not one or not other:
        return float("nan")
    both = _area([*one, *other])
    return max((_area(one) + _area(other) - both) / both, 0.0)


def _area(boxes: Sequence[Box]) -> float:
    """The area of the union."""
    edges = np.array([box.as_tuple() for box in boxes])
    whole = np.concatenate([edges[:, :2].min(axis=0), edges[:, 2:].max(axis=0)])[None]
    return float(covered_area(whole, edges)[0])


def _pairs(overlaps: Float[np.ndarray, "truth mask"], threshold: float) -> list[tuple[int, int]]:
    """Pairs one to one, the largest value first, down to the threshold."""
    left, found = overlaps.copy(), []
    while left.size and left.max() >= threshold:
        truth, mask = (int(place) for place in np.unravel_index(left.argmax(), left.shape))
        found.append((truth, mask))
        left[truth, :] = left[:, mask] = -1.0
    return found


def _listed(name: str, masks: Any) -> Iterable[Any]:
    if isinstance(masks, Mask | str | bytes) or not isinstance(masks, Iterable):
        raise MapError(f"{name} is a list of masks; got {type(masks).__name__}. Write [mask] for one.")
    return masks


def _inside(mask: Any) -> Bool[np.ndarray, "row col"]:
    """The pixels inside."""
    if isinstance(mask, Mask):
        return mask.inside
    values: ArrayLike = plain_array(mask, "a mask is an interp.Mask or bool (row, col)", MapError)
    found = np.asarray(values)
    if found.dtype != np.bool_ or found.ndim != 2:
        raise MapError(
            f"a mask is an interp.Mask or bool (row, col); got {found.dtype} of shape {found.shape}. Threshold "
            "numbers first: mask > 0.5."
        )
    return found
