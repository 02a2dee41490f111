from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.spatial.distance import jensenshannon
from sklearn.metrics import average_precision_score, roc_auc_score

from interp.errors import MapError
from interp.metrics import (
    attention_ratio,
    attention_ratio_sliding,
    auroc,
    average_precision,
    box_iou,
    js_divergence,
    kl_divergence,
    kl_gain,
    pointing_game,
)

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
    together = attention_ratio(np.stack([values * 1e-300, values * 1e300]), mask)
    np.testing.assert_allclose(together, [attention_ratio(values, mask)] * 2)


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


DIVERGENCE_RNG = np.random.default_rng(1)
FIRST = np.array([True, False, False, False])


def kl_by_hand(values, inside) -> float:
    """The published formula: an absolute epsilon in the sum, then both distributions clipped."""
    total, n_inside = sum(values) + 1e-8, sum(1 for b in inside if b)
    kl = 0.0
    for value, b in zip(values, inside, strict=True):
        share = min(max(value / total, 1e-12), 1.0)
        even = min(max((1 / n_inside) if b else 0.0, 1e-12), 1.0)
        kl += even * math.log(even / share)
    return kl


def js_by_hand(values, inside) -> float:
    """The published formula, with 1e-8 inside the logarithms."""
    total, n_inside = sum(values) + 1e-8, sum(1 for b in inside if b)
    js = 0.0
    for value, b in zip(values, inside, strict=True):
        share, even = value / total, (1 / n_inside) if b else 0.0
        middle = (share + even) / 2
        js += 0.5 * share * math.log((share + 1e-8) / (middle + 1e-8))
        js += 0.5 * even * math.log((even + 1e-8) / (middle + 1e-8))
    return js


def a_box(n: int, size: int) -> np.ndarray:
    mask = np.zeros(n, bool)
    mask[DIVERGENCE_RNG.choice(n, size, replace=False)] = True
    return mask


def test_kl_worked_example():
    # G = (½, ½, 0, 0), Â = (¼, ⅛, ½, ⅛): ½ ln 2 + ½ ln 4 = 1.5 ln 2.
    mask = np.array([True, True, False, False])
    assert kl_divergence([2, 1, 4, 1], mask) == pytest.approx(1.5 * math.log(2))
    assert kl_gain([2, 1, 4, 1], mask) == pytest.approx(math.log(2) - 1.5 * math.log(2))


def test_js_worked_example():
    # G = (1, 0), Â = (½, ½), M = (¾, ¼): ½ (ln 4/3) + ½ (½ ln 2/3 + ½ ln 2).
    expected = 0.5 * math.log(4 / 3) + 0.25 * math.log(2 / 3) + 0.25 * math.log(2)
    assert js_divergence([5.0, 5.0], np.array([True, False])) == pytest.approx(expected)


@pytest.mark.parametrize("scale", [1e-3, 1e-2, 1.0])
@pytest.mark.parametrize("size", [1, 20, 300])
def test_divergences_agree_with_the_published_formulas(scale, size):
    values, mask = DIVERGENCE_RNG.random(576) * scale, a_box(576, size)
    assert kl_divergence(values, mask) == pytest.approx(kl_by_hand(values, mask), abs=1e-4)
    assert js_divergence(values, mask) == pytest.approx(js_by_hand(values, mask), abs=1e-4)


def test_js_is_the_square_of_scipys_distance():
    values, mask = DIVERGENCE_RNG.random(50), a_box(50, 7)
    values[::3] = 0.0
    np.testing.assert_allclose(js_divergence(values, mask), jensenshannon(values, mask.astype(float)) ** 2)


@pytest.mark.parametrize(("size", "published"), [(300, 0.65), (4, 4.97)])
def test_only_kl_gain_of_a_uniform_map_ignores_the_box(size, published):
    even, mask = np.full(576, 1e-9), a_box(576, size)
    assert kl_divergence(even, mask) == pytest.approx(published, abs=5e-3)
    assert kl_gain(even, mask) == pytest.approx(0.0, abs=1e-12)


def test_a_perfect_map_scores_the_best_ends_of_the_ranges():
    mask = a_box(40, 8)
    assert kl_divergence(mask * 3.0, mask) == pytest.approx(0.0, abs=1e-12)
    assert js_divergence(mask * 3.0, mask) == pytest.approx(0.0, abs=1e-12)
    assert kl_gain(mask * 3.0, mask) == pytest.approx(math.log(5))


def test_a_map_with_nothing_inside_scores_worst():
    mask = a_box(40, 8)
    assert kl_divergence(~mask * 1.0, mask) == pytest.approx(math.log(1e12 / 8))
    assert js_divergence(~mask * 1.0, mask) == pytest.approx(math.log(2))


@pytest.mark.parametrize("metric", [kl_divergence, kl_gain, js_divergence])
def test_negative_values_count_as_zero(metric):
    assert metric([2.0, -3.0, 1.0, 1.0], FIRST) == pytest.approx(metric([2.0, 0.0, 1.0, 1.0], FIRST))
    assert np.isnan(metric([-2.0, -3.0, -1.0, -1.0], FIRST))


RANKING_RNG = np.random.default_rng(2)


def random_case(kind: str) -> tuple[np.ndarray, np.ndarray]:
    values = {"smooth": RANKING_RNG.normal(size=60), "tied": RANKING_RNG.integers(-2, 3, 60).astype(float)}[
        kind
    ]
    values[0] = 1.0
    mask = RANKING_RNG.random(60) < RANKING_RNG.uniform(0.05, 0.9)
    mask[:2] = True, False
    return values, mask


def iou_over_orders(values, mask) -> tuple[float, float]:
    """Least and largest intersection of the mask with |B| top tokens over ways to break ties."""
    k = mask.sum()
    best = [sorted(range(len(values)), key=lambda i, s=s: (-values[i], s * mask[i]))[:k] for s in (1, -1)]
    return tuple(sum(mask[i] for i in top) for top in best)


@pytest.mark.parametrize("kind", ["smooth", "tied"])
def test_auroc_and_average_precision_equal_scikit_learn(kind):
    for _ in range(25):
        values, mask = random_case(kind)
        np.testing.assert_allclose(auroc(values, mask), roc_auc_score(mask, values), atol=1e-12)
        np.testing.assert_allclose(
            average_precision(values, mask), average_precision_score(mask, values), atol=1e-12
        )


def test_auroc_counts_pairs_with_ties_one_half():
    values, mask = [2, 1, 1, 0], np.array([False, True, False, True])
    # pairs (inside, outside): 1<2, 1=1, 0<2, 0<1 → ½ of 4.
    assert auroc(values, mask) == pytest.approx(0.125)


def test_average_precision_worked_example():
    # Order 9, 7, 5, 3; hits at places 2 and 4: (1/2 + 2/4) / 2.
    assert average_precision([7, 9, 3, 5], np.array([True, False, True, False])) == pytest.approx(0.5)


def test_pointing_game_takes_the_largest_token_and_shares_ties():
    mask = np.array([True, True, False, False])
    assert pointing_game([0.1, 0.9, 0.2, 0.3], mask) == 1.0
    assert pointing_game([0.1, 0.2, 0.9, 0.3], mask) == 0.0
    assert pointing_game([0.9, 0.9, 0.9, 0.3], mask) == pytest.approx(2 / 3)


def test_iou_worked_example():
    # |B| = 2; the largest two are tokens 0 and 3: one in common, three in the union.
    assert box_iou([5, 1, 2, 4], np.array([True, True, False, False])) == pytest.approx(1 / 3)
    assert box_iou([5, 4, 2, 1], np.array([True, True, False, False])) == 1.0
    assert box_iou([1, 2, 4, 5], np.array([True, True, False, False])) == 0.0


def test_iou_shares_the_last_places_among_tied_tokens():
    # |B| = 2; 9 is in; three tokens tied for one place, one of them inside: 1 + 1/3 in common.
    common = 1 + 1 / 3
    mask = np.array([True, True, False, False, False])
    assert box_iou([9, 4, 4, 4, 0], mask) == pytest.approx(common / (4 - common))


def test_iou_with_ties_lies_between_the_extreme_orders():
    for _ in range(25):
        values, mask = random_case("tied")
        unlucky, lucky = iou_over_orders(values, mask)
        k = mask.sum()
        assert unlucky / (2 * k - unlucky) - 1e-12 <= box_iou(values, mask) <= lucky / (2 * k - lucky) + 1e-12
        values, mask = random_case("smooth")
        common = iou_over_orders(values, mask)[0]
        assert box_iou(values, mask) == pytest.approx(common / (2 * mask.sum() - common))


@pytest.mark.parametrize("metric", [auroc, average_precision, box_iou, pointing_game])
def test_signed_values_are_ranked_as_they_are(metric):
    values, mask = random_case("smooth")
    np.testing.assert_allclose(metric(values - 10.0, mask), metric(values, mask))
    np.testing.assert_allclose(metric(np.exp(values), mask), metric(values, mask))


@pytest.mark.parametrize("metric", [auroc, average_precision, box_iou, pointing_game])
def test_several_masks_broadcast_over_several_maps(metric):
    maps, masks = RANKING_RNG.normal(size=(3, 1, 20)), RANKING_RNG.random((4, 20)) < 0.4
    scores = metric(maps, masks)
    assert scores.shape == (3, 4)
    for i in range(3):
        for j in range(4):
            np.testing.assert_allclose(scores[i, j], metric(maps[i, 0], masks[j]))
