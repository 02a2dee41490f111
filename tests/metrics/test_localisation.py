from __future__ import annotations

import numpy as np
import pytest

from interp.errors import MapError
from interp.metrics import attention_ratio, attention_ratio_sliding

RNG = np.random.default_rng(0)


def ratio_by_hand(values, inside) -> float:
    """The published formula with its absolute epsilon, token by token."""
    total_inside = sum(v for v, b in zip(values, inside, strict=True) if b)
    n_inside = sum(1 for b in inside if b)
    return total_inside / (n_inside * sum(values) / len(values) + 1e-8)


def sliding_by_hand(values, inside, rows, cols) -> float:
    """Lay the mask's bounding pattern on every place of the grid where it fits, cell by cell."""
    cells = [(i // cols, i % cols) for i in range(rows * cols) if inside[i]]
    top, left = min(r for r, _ in cells), min(c for _, c in cells)
    height, width = max(r for r, _ in cells) - top + 1, max(c for _, c in cells) - left + 1
    sums = [
        sum(values[(r - top + dy) * cols + (c - left + dx)] for r, c in cells)
        for dy in range(rows - height + 1)
        for dx in range(cols - width + 1)
    ]
    own = sum(values[r * cols + c] for r, c in cells)
    return own / (sum(sums) / len(sums))


def box_mask(rows: int, cols: int, y0: int, x0: int, y1: int, x1: int) -> np.ndarray:
    mask = np.zeros((rows, cols), bool)
    mask[y0:y1, x0:x1] = True
    return mask.ravel()


def test_ratio_worked_example():
    # Inside: (6 + 2) / 2 = 4. Overall: 12 / 6 = 2.
    assert attention_ratio([6, 1, 2, 1, 0, 2], np.array([1, 0, 1, 0, 0, 0], bool)) == pytest.approx(2.0)


@pytest.mark.parametrize("scale", [1e-3, 1e-2, 1.0])
def test_ratio_agrees_with_the_published_formula(scale):
    values = RNG.random(576) * scale
    for box in [(3, 4, 7, 9), (0, 0, 1, 1), (10, 0, 24, 24)]:
        mask = box_mask(24, 24, *box)
        assert attention_ratio(values, mask) == pytest.approx(ratio_by_hand(values, mask), rel=1e-4)


def test_ratio_does_not_collapse_at_small_scales():
    values, mask = RNG.random(576), box_mask(24, 24, 3, 4, 7, 9)
    values[mask] += 3
    assert ratio_by_hand(values * 1e-11, mask) < 1.0 < 2.0 < attention_ratio(values * 1e-11, mask)
    np.testing.assert_allclose(attention_ratio(values * 1e-300, mask), attention_ratio(values, mask))
    np.testing.assert_allclose(attention_ratio(values * 4e307, mask), attention_ratio(values, mask))


def test_ratio_counts_negative_values_as_zero():
    mask = np.array([True, True, False, False])
    assert attention_ratio([3.0, -5.0, 1.0, -9.0], mask) == pytest.approx(attention_ratio([3, 0, 1, 0], mask))
    assert np.isnan(attention_ratio([-3.0, -5.0, -1.0, -9.0], mask))


def test_sliding_worked_example():
    # A 1×2 box on a 2×3 grid fits in four places, with sums 3, 5, 9, 11: mean 7.
    mask = np.array([[0, 1, 1], [0, 0, 0]], bool).ravel()
    assert attention_ratio_sliding([1, 2, 3, 4, 5, 6], mask, (2, 3)) == pytest.approx(5 / 7)


@pytest.mark.parametrize(
    "box", [(0, 0, 2, 3), (1, 2, 5, 4), (3, 0, 4, 7), (0, 6, 5, 7), (4, 6, 5, 7)], ids=str
)
def test_sliding_equals_a_box_slid_cell_by_cell(box):
    values, mask = RNG.random(35), box_mask(5, 7, *box)
    expected = sliding_by_hand(values, mask, 5, 7)
    np.testing.assert_allclose(attention_ratio_sliding(values, mask, (5, 7)), expected, rtol=1e-12)


def test_sliding_moves_the_whole_pattern_of_an_irregular_mask():
    values = RNG.random(35)
    mask = box_mask(5, 7, 0, 1, 2, 2) | box_mask(5, 7, 2, 3, 3, 5)
    expected = sliding_by_hand(values, mask, 5, 7)
    np.testing.assert_allclose(attention_ratio_sliding(values, mask, (5, 7)), expected, rtol=1e-12)


def test_sliding_weighs_the_border_less_than_the_plain_ratio():
    border = np.zeros((6, 6))
    border[[0, -1], :] = border[:, [0, -1]] = 1.0
    border[2:4, 2:4] = 1.0
    mask = box_mask(6, 6, 2, 2, 4, 4)
    assert attention_ratio_sliding(border.ravel(), mask, (6, 6)) > attention_ratio(border.ravel(), mask)


def test_sliding_is_nan_for_one_place_or_an_empty_map():
    corners = np.array([[1, 0, 0], [0, 0, 1]], bool).ravel()
    assert np.isnan(attention_ratio_sliding(np.arange(6.0), corners, (2, 3)))
    hollow = np.array([[1, 0, 1, 0]], bool)[0]  # reaches cells 0 to 3, all of them; cell values decide
    assert attention_ratio_sliding([0, 1, 0, 0], hollow, (1, 4)) == 0.0
    ends = np.array([1, 0, 0, 1, 0], bool)  # placements {0, 3} and {1, 4}: cell 2 is never covered
    assert np.isnan(attention_ratio_sliding([0, 0, 1, 0, 0], ends, (1, 5)))


def test_sliding_broadcasts_several_masks_over_several_maps():
    maps = RNG.random((4, 1, 35))
    masks = np.stack([box_mask(5, 7, 0, 0, 2, 2), box_mask(5, 7, 1, 1, 4, 6), np.zeros(35, bool)])
    scores = attention_ratio_sliding(maps, masks, (5, 7))
    assert scores.shape == (4, 3)
    for i in range(4):
        for j in range(2):
            np.testing.assert_allclose(scores[i, j], sliding_by_hand(maps[i, 0], masks[j], 5, 7))
    assert np.isnan(scores[:, 2]).all()


def test_sliding_refuses_a_grid_that_is_missing_or_does_not_fit():
    mask = np.array([True, False, False, False])
    with pytest.raises(MapError, match=r"needs the token grid .* got None.*attention_ratio"):
        attention_ratio_sliding(np.ones(4), mask, None)
    with pytest.raises(MapError, match="2×3 = 6 does not hold the map's 4 tokens"):
        attention_ratio_sliding(np.ones(4), mask, (2, 3))
