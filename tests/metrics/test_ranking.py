from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import average_precision_score, roc_auc_score

from interp.metrics import auroc, average_precision, box_iou, pointing_game

RNG = np.random.default_rng(2)


def random_case(kind: str) -> tuple[np.ndarray, np.ndarray]:
    values = {"smooth": RNG.normal(size=60), "tied": RNG.integers(-2, 3, 60).astype(float)}[kind]
    values[0] = 1.0
    mask = RNG.random(60) < RNG.uniform(0.05, 0.9)
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
    maps, masks = RNG.normal(size=(3, 1, 20)), RNG.random((4, 20)) < 0.4
    scores = metric(maps, masks)
    assert scores.shape == (3, 4)
    for i in range(3):
        for j in range(4):
            np.testing.assert_allclose(scores[i, j], metric(maps[i, 0], masks[j]))
