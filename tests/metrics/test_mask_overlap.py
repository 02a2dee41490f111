"""Overlaps of masks and boxes by hand, and against counting pixels."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from interp.errors import MapError
from interp.inputs.masks import Mask, filled
from interp.inputs.sample import Box
from interp.metrics import boxes_iou, mask_recall, pixel_iou


def block(rows: slice, columns: slice) -> np.ndarray:
    found = np.zeros((6, 8), bool)
    found[rows, columns] = True
    return found


LEFT, RIGHT = block(slice(0, 4), slice(0, 4)), block(slice(0, 4), slice(4, 8))  # 16 pixels each
WIDE = block(slice(0, 4), slice(1, 5))  # 12 of LEFT and 4 of RIGHT
EMPTY, WHOLE = np.zeros((6, 8), bool), np.ones((6, 8), bool)


def test_pixel_iou_by_hand() -> None:
    assert pixel_iou(LEFT, LEFT) == 1
    assert pixel_iou(LEFT, RIGHT) == 0
    assert pixel_iou(WIDE, LEFT) == pytest.approx(12 / 20)
    assert pixel_iou(WHOLE, LEFT) == pytest.approx(16 / 48)
    assert pixel_iou(EMPTY, LEFT) == 0
    assert np.isnan(pixel_iou(EMPTY, EMPTY))
    assert pixel_iou(Mask(LEFT), WIDE.tolist()) == pytest.approx(12 / 20)


def test_recall_pairs_one_mask_with_one_truth() -> None:
    assert mask_recall([LEFT, RIGHT], [LEFT, RIGHT]) == 1
    assert mask_recall([WHOLE], [LEFT, RIGHT]) == 0
    assert (
        mask_recall([LEFT, LEFT], [LEFT, RIGHT]) == 0.5
    )  # a second mask on the same truth finds nothing more
    assert mask_recall([LEFT], [LEFT, LEFT]) == 0.5  # one mask is one truth's alone
    assert mask_recall([], [LEFT]) == 0
    assert np.isnan(mask_recall([LEFT], []))
    assert mask_recall([EMPTY], [LEFT]) == 0


def test_recall_takes_the_largest_overlap_first() -> None:
    """WIDE overlaps LEFT by 0.6; LEFT itself is its better partner, so WIDE is left with nothing above 0.5."""
    assert mask_recall([WIDE, LEFT], [LEFT, RIGHT]) == 0.5
    assert mask_recall([WIDE, LEFT], [LEFT, RIGHT], threshold=0.1) == 1  # WIDE is left for RIGHT: 4 of 28
    assert mask_recall([LEFT], [LEFT], threshold=1) == 1
    assert mask_recall([WIDE], [LEFT], threshold=0.6) == 1
    assert mask_recall([WIDE], [LEFT], threshold=0.61) == 0


def test_boxes_iou_by_hand() -> None:
    assert boxes_iou([(0, 0, 2, 2)], [(1, 1, 3, 3)]) == pytest.approx(1 / 7)
    assert boxes_iou([(0, 0, 2, 2), (1, 0, 4, 2)], [(0, 0, 4, 2)]) == pytest.approx(
        1
    )  # overlapping boxes count once
    assert boxes_iou([(0, 0, 1, 1)], [(2, 2, 3, 3)]) == 0
    assert boxes_iou([(0, 0, 0.5, 0.5)], [(0, 0, 1, 0.5)]) == pytest.approx(0.5)
    assert np.isnan(boxes_iou([], [(0, 0, 1, 1)]))
    assert np.isnan(boxes_iou([(0, 0, 1, 1)], []))


PLACES = st.tuples(*[st.integers(0, 11)] * 2, *[st.integers(1, 12)] * 2).map(
    lambda e: (e[0], e[1], e[0] + e[2], e[1] + e[3])
)


@settings(max_examples=60, deadline=None)
@given(one=st.lists(PLACES, min_size=1, max_size=3), other=st.lists(PLACES, min_size=1, max_size=3))
def test_boxes_iou_is_that_of_their_pixels(one: list, other: list) -> None:
    a, b = np.zeros((30, 30), bool), np.zeros((30, 30), bool)
    for mask, boxes in ((a, one), (b, other)):
        for x0, y0, x1, y1 in boxes:
            mask[y0:y1, x0:x1] = True
    assert boxes_iou(one, other) == pytest.approx((a & b).sum() / (a | b).sum())
    assert np.array_equal(filled([Box(*box) for box in one], (30, 30)), a)


def test_a_pixel_is_filled_where_its_centre_lies_inside() -> None:
    assert filled([Box(0.6, 0.5, 2.4, 1.6)], (4, 3)).astype(int).tolist() == [
        [0, 1, 0, 0],
        [0, 1, 0, 0],
        [0, 0, 0, 0],
    ]


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda: pixel_iou(LEFT, LEFT.T), r"have the same size; got \(6, 8\) and \(8, 6\)"),
        (lambda: pixel_iou(LEFT.astype(float), LEFT), "Threshold numbers first: mask > 0.5"),
        (lambda: pixel_iou(LEFT[0], LEFT[0]), r"bool \(row, col\); got bool of shape \(8,\)"),
        (lambda: mask_recall([LEFT], [LEFT], threshold=0), "above 0 and at most 1; got 0"),
        (lambda: mask_recall([LEFT], [LEFT], threshold=1.5), "above 0 and at most 1; got 1.5"),
        (lambda: mask_recall([LEFT], [LEFT], threshold=True), "above 0 and at most 1; got True"),
        (lambda: mask_recall([LEFT], Mask(LEFT)), r"truths is a list of masks; got Mask"),
        (lambda: mask_recall(3, [LEFT]), r"masks is a list of masks; got int"),
        (lambda: mask_recall(Mask(LEFT), [LEFT]), r"masks is a list of masks; got Mask. Write \[mask\]"),
    ],
)
def test_what_is_no_mask_is_refused(call, said: str) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(MapError, match=said):
        call()


def test_boxes_count_whatever_image_they_name() -> None:
    assert boxes_iou([Box(0, 0, 2, 2, image=1)], [(0, 0, 2, 1)]) == 0.5
    assert boxes_iou([(0, 0, 1, 1)], [(0, 0, 1, 1)]) == 1  # of one pixel, and no fractions
