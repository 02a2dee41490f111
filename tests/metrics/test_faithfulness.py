"""Faithfulness arithmetic against worked examples, brute force over pairs, and scikit-learn."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import sklearn.metrics

from interp.errors import MapError
from interp.metrics import (
    comprehensiveness,
    curve_area,
    kendall,
    most_important,
    normalised,
    spearman,
    sufficiency,
    tokens_first,
)

RANDOM = np.random.default_rng(0)


def test_masks_take_the_largest_values_and_at_least_one_token() -> None:
    """Five tokens: 1 % is one token, 30 % is 1.5 and so two, 50 % is 2.5 and so three."""
    masks = most_important([0.0, 5.0, -2.0, 3.0, 4.0], [0, 0.01, 0.3, 0.5, 1])
    assert [np.flatnonzero(mask).tolist() for mask in masks] == [
        [],
        [1],
        [1, 4],
        [1, 3, 4],
        [0, 1, 2, 3, 4],
    ]


def test_ties_are_drawn_and_not_taken_from_the_top_left() -> None:
    """Over many seeds every tied token comes first about as often; larger values stay in front."""
    values = np.zeros(10)
    values[7] = 1.0
    orders = np.array([tokens_first(values, seed=seed) for seed in range(400)])
    assert (orders[:, 0] == 7).all()
    counts = np.bincount(orders[:, 1], minlength=10)
    assert counts[7] == 0
    assert np.delete(counts, 7).min() > 20  # 44 each are expected
    np.testing.assert_array_equal(tokens_first(values, seed=3), tokens_first(2 * values - 1, seed=3))
    for seed in (0, 3):
        first, second = tokens_first(values, seed=seed)[:2]
        assert np.flatnonzero(most_important(values, [0.2], seed=seed)[0]).tolist() == sorted([first, second])
    assert tokens_first(values, seed=0)[1] != tokens_first(values, seed=3)[1]


def test_areas_are_those_of_trapezoids_drawn_by_hand() -> None:
    """p falls 0.9 → 0.5 → 0.3 → 0.1 at 0, 10, 50, 100 %: heights 1, ½, ¼, 0 and so 0.075 + 0.15 + 0.0625."""
    fractions = [0.0, 0.1, 0.5, 1.0]
    curve = normalised([0.9, 0.5, 0.3, 0.1], 0.9, 0.1)
    np.testing.assert_allclose(curve, [1, 0.5, 0.25, 0], atol=1e-12)
    assert float(curve_area(fractions, curve)) == pytest.approx(0.2875)
    both = normalised([[0.9, 0.5, 0.3, 0.1], [0.9, 0.9, 0.9, 0.1]], [0.9, 0.9], [0.1, 0.1])
    expected = [sklearn.metrics.auc(fractions, line) for line in both]
    np.testing.assert_allclose(curve_area(fractions, both), expected)


def test_values_that_never_fall_are_not_normalised() -> None:
    found = normalised(
        [[0.9, 0.2], [0.5, 0.6], [0.5, 0.4995]], [0.9, 0.5, 0.5], [0.2, 0.6, 0.4995], least=0.01
    )
    np.testing.assert_array_equal(np.isnan(found), [[False] * 2, [True] * 2, [True] * 2])
    assert np.isnan(curve_area([0, 1], found)).tolist() == [False, True, True]
    assert normalised([0.5], 0.5, 0.0, least=0.5).tolist() == [1.0]
    by_default = normalised([[2e-6], [5e-7]], [2e-6, 5e-7], [0.0, 0.0])
    np.testing.assert_array_equal(by_default, [[1.0], [np.nan]])


def test_comprehensiveness_and_sufficiency_are_mean_falls() -> None:
    """Erasing 10 % and 50 % leaves 0.4 and 0.2 of 0.8; keeping them alone gives 0.6 and 0.9."""
    assert float(comprehensiveness(0.8, [0.4, 0.2])) == pytest.approx(0.5)
    assert float(sufficiency(0.8, [0.6, 0.9])) == pytest.approx(0.05)
    np.testing.assert_allclose(comprehensiveness([0.8, 1.0], [[0.4, 0.2], [1.0, 1.0]]), [0.5, 0.0])


def pairs(a: np.ndarray, b: np.ndarray) -> float:
    """τ_b by looking at every pair."""
    agree = both = only_a = only_b = 0
    for i, j in itertools.combinations(range(len(a)), 2):
        x, y = np.sign(a[i] - a[j]), np.sign(b[i] - b[j])
        agree += x * y
        both += x != 0 and y != 0
        only_a += x != 0 and y == 0
        only_b += x == 0 and y != 0
    return agree / np.sqrt((both + only_a) * (both + only_b))


def test_rank_correlations_with_ties_equal_brute_force() -> None:
    a, b = RANDOM.integers(0, 6, 40).astype(float), RANDOM.integers(0, 9, 40).astype(float)
    assert kendall(a, b) == pytest.approx(pairs(a, b))

    def midrank(values: np.ndarray) -> list[float]:
        return [(values < v).sum() + ((values == v).sum() + 1) / 2 for v in values]

    assert spearman(a, b) == pytest.approx(np.corrcoef(midrank(a), midrank(b))[0, 1])
    assert spearman(a, -a) == -1
    assert spearman(a, np.exp(a)) == 1


@pytest.mark.parametrize("values", [[1.0, 1.0, 1.0], [1.0, np.nan, 2.0], [1.0, np.inf, 2.0]])
def test_a_map_without_an_order_agrees_with_nothing(values: list[float]) -> None:
    for agreement in (spearman, kendall):
        assert np.isnan(agreement(values, [1.0, 2.0, 3.0]))
        assert np.isnan(agreement([1.0, 2.0, 3.0], values))


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(
        MapError, match=r"one finite number per token, \(token,\); got shape \(2,\) with 1 not"
    ):
        tokens_first([1.0, np.nan])
    with pytest.raises(MapError, match=r"fractions are a list of numbers in \[0, 1\]; got \[0.0, 20\]"):
        most_important([1.0, 2.0], [0.0, 20])
    with pytest.raises(MapError, match=r"increase from 0 to 1 .* Add the untouched input"):
        curve_area([0.1, 1.0], [1.0, 0.0])
    for fractions in ([0.0, 1.0], [0.0, 0.5, 0.9], [0.0, 1.0, 1.0], [0.0, 0.0, 1.0]):
        with pytest.raises(MapError, match="increase from 0 to 1"):
            curve_area(fractions, [1.0, 0.5, 0.0])
    for fractions in ([-0.1], [1.1], [np.nan]):
        with pytest.raises(MapError, match="fractions are a list of numbers"):
            most_important([1.0, 2.0], fractions)
    for least in (-1.0, np.inf, np.nan, True):
        with pytest.raises(MapError, match="least is a number ≥ 0"):
            normalised([1.0], 1.0, 0.0, least=least)
    with pytest.raises(MapError, match=r"one untouched value per curve.*\(2,\) and \(3, 4\)"):
        comprehensiveness(np.ones(2), np.ones((3, 4)))
    for fall in (comprehensiveness, sufficiency):
        with pytest.raises(MapError, match=r"one untouched value per curve.*got \(\) and \(\)"):
            fall(0.8, 0.4)
    with pytest.raises(MapError, match=r"got shapes \(3, 4\), \(2,\) and \(\)"):
        normalised(np.ones((3, 4)), np.ones(2), 0.0)
    with pytest.raises(MapError, match=r"same tokens are needed; got \(2,\) and \(3,\)"):
        spearman([1.0, 2.0], [1.0, 2.0, 3.0])


@pytest.mark.parametrize("values", [[], [[1.0, 2.0]], 3.0, [1.0, np.inf]])
def test_an_order_needs_one_map(values) -> None:
    for order in (tokens_first, lambda given: most_important(given, [0.5])):
        with pytest.raises(MapError, match="an order of tokens needs one finite number per token"):
            order(values)


def test_fractions_are_rounded_half_up_and_keep_their_order() -> None:
    masks = most_important([4.0, 3.0, 2.0, 1.0], [1, 0.125, 0.375, 0.0, 0.62])
    assert masks.sum(axis=1).tolist() == [4, 1, 2, 0, 2]
    assert masks[2].tolist() == [True, True, False, False]


def test_a_value_outside_the_scale_is_kept() -> None:
    np.testing.assert_allclose(normalised([1.3, -0.3], 0.9, 0.1), [1.5, -0.5])
    with pytest.raises(MapError, match=r"\(2,\) and \(2, 0\)"):
        sufficiency(np.ones(2), np.ones((2, 0)))
