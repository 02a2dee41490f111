"""Alpha and kappa against published and hand-worked values."""

from __future__ import annotations

import sys
from itertools import product
from typing import Any

import numpy as np
import pytest

from interp.errors import StudyError
from interp.stats import krippendorff_alpha, weighted_kappa

NAN = np.nan
PUBLISHED = [
    [1, 2, 3, 3, 2, 1, 4, 1, 2, NAN, NAN, NAN],
    [1, 2, 3, 3, 2, 2, 4, 1, 2, 5, NAN, 3],
    [NAN, 3, 3, 3, 2, 3, 4, 2, 2, 5, 1, NAN],
    [1, 2, 3, 3, 2, 4, 4, 1, 2, 5, 1, NAN],
]
"""Krippendorff, Computing Krippendorff's alpha-reliability (2011), example C: 4 observers, 12 units."""


@pytest.mark.parametrize(
    ("level", "alpha"), [("nominal", 0.743), ("ordinal", 0.815), ("interval", 0.849), ("ratio", 0.797)]
)
def test_alpha_is_the_published_one(level: str, alpha: float) -> None:
    assert krippendorff_alpha(PUBLISHED, level=level) == pytest.approx(alpha, abs=5e-4)


def test_ordinal_is_the_default_and_units_rated_once_drop_out() -> None:
    assert krippendorff_alpha(PUBLISHED) == pytest.approx(0.815, abs=5e-4)
    once = [[1, 1, 2, 1, 9], [1, 2, 2, 1, NAN]]
    assert krippendorff_alpha(once, level="nominal") == pytest.approx(1 - 7 / 15)
    assert np.isnan(krippendorff_alpha([[3, 3, 5], [3, 3, NAN]]))  # what is paired is one value


def test_nominal_alpha_by_hand() -> None:
    """Two raters, (1,1) (1,2) (2,2) (1,1): one of four pairs differs; 5 ones and 3 twos among 8 values.

    Observed disagreement 1/4; expected 2·5·3/(8·7) = 15/28; alpha = 1 − 7/15.
    """
    assert krippendorff_alpha([[1, 1, 2, 1], [1, 2, 2, 1]], level="nominal") == pytest.approx(1 - 7 / 15)


@pytest.mark.parametrize("table", [[[3, 3], [3, 3]], [[1, NAN], [NAN, 2]], [[1, 2]]])
def test_alpha_is_undefined_without_pairs_that_could_differ(table: Any) -> None:
    assert np.isnan(krippendorff_alpha(table))


def kappa(a: list[int], b: list[int], values: list[int], power: int) -> float:
    """1 − Σ w·observed / Σ w·expected, written out."""
    observed = expected = 0.0
    for x, y in product(values, values):
        weight = abs(values.index(x) - values.index(y)) ** power
        observed += weight * sum(p == x and q == y for p, q in zip(a, b, strict=True)) / len(a)
        expected += weight * a.count(x) * b.count(y) / len(a) ** 2
    return 1 - observed / expected


@pytest.mark.parametrize(("weights", "power"), [("linear", 1), ("quadratic", 2)])
def test_kappa_is_its_formula_also_where_values_are_unused(weights: str, power: int) -> None:
    a, b = [5, 5, 4, 3, 5, 1, 4, 4], [5, 4, 4, 4, 5, 3, 4, 3]
    expected = kappa(a, b, [1, 2, 3, 4, 5], power)
    assert weighted_kappa(a, b, [1, 2, 3, 4, 5], weights=weights) == pytest.approx(expected)
    with_gaps = weighted_kappa([*a, NAN, 2], [*b, 5, NAN], [1, 2, 3, 4, 5], weights=weights)
    assert with_gaps == pytest.approx(expected)


def test_kappa_is_quadratic_and_counts_places_on_the_scale() -> None:
    a, b, scale = [1, 2, 10, 10, 1, 2], [1, 10, 10, 2, 2, 2], [1, 2, 10]
    assert weighted_kappa(a, b, scale) == pytest.approx(kappa(a, b, scale, 2))
    assert kappa(a, b, scale, 2) != pytest.approx(kappa(a, b, scale, 1))
    back = weighted_kappa(a, b, scale[::-1])  # the same distances
    assert back == pytest.approx(kappa(a, b, scale, 2))


def test_unused_values_lie_between_the_used_ones() -> None:
    assert weighted_kappa([1, 5, 5], [1, 5, 1], [1, 2, 3, 4, 5]) == pytest.approx(
        kappa([1, 5, 5], [1, 5, 1], [1, 5], 2)
    )


def test_kappa_is_undefined_for_one_value_throughout() -> None:
    assert np.isnan(weighted_kappa([5, 5], [5, 5], [1, 2, 3, 4, 5]))
    assert np.isnan(weighted_kappa([NAN, 5], [5, NAN], [1, 2, 3, 4, 5]))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: krippendorff_alpha([1, 2]), r"ratings are a table \(rater, unit\); got shape \(2,\)"),
        (lambda: krippendorff_alpha([[1, np.inf]]), "got infinite values"),
        (lambda: krippendorff_alpha([[1], [2]], level="cardinal"), "level is 'nominal' or 'ordinal'"),
        (lambda: weighted_kappa([1, 2], [1], [1, 2]), r"got shapes \(2,\) and \(1,\)"),
        (lambda: weighted_kappa([1, 7], [1, 2], [1, 2]), r"got the ratings \[7\.0\] beside"),
        (
            lambda: weighted_kappa([7, 8, 9], [1, 1, 1], [1, 2]),
            r"got the ratings \[7\.0, 8\.0, 9\.0\] beside",
        ),
        (lambda: weighted_kappa([1, 2], [1, 2], [1, 2, 2]), "each value once"),
        (
            lambda: weighted_kappa([1, 2], [1, 2], [1, 2], weights="cubic"),
            "weights is 'linear' or 'quadratic'",
        ),
    ],
)
def test_what_cannot_be_compared_is_refused(call: Any, message: str) -> None:
    with pytest.raises(StudyError, match=message):
        call()


def test_a_missing_library_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "krippendorff", None)
    with pytest.raises(StudyError, match=r"pip install 'interp\[curation\]'"):
        krippendorff_alpha([[1, 2], [1, 3]])
