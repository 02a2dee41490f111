from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.spatial.distance import jensenshannon

from interp.metrics import js_divergence, kl_divergence, kl_gain

RNG = np.random.default_rng(1)
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
    mask[RNG.choice(n, size, replace=False)] = True
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
    values, mask = RNG.random(576) * scale, a_box(576, size)
    assert kl_divergence(values, mask) == pytest.approx(kl_by_hand(values, mask), abs=1e-4)
    assert js_divergence(values, mask) == pytest.approx(js_by_hand(values, mask), abs=1e-4)


def test_js_is_the_square_of_scipys_distance():
    values, mask = RNG.random(50), a_box(50, 7)
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
