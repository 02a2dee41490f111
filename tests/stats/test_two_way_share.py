"""Shares of crossed readers and cases: ends by hand, within 0 and 1, and coverage on simulated studies."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.stats

from interp.errors import StudyError
from interp.stats import two_way, two_way_share


def flat(table: list[list[float]]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    values = np.array(table, float)
    readers, cases = np.indices(values.shape)
    return values.ravel(), readers.ravel(), cases.ravel()


def test_the_ends_by_hand() -> None:
    """Readers × cases [[1, 1, 0], [1, 0, 0]]: mean 1/2, errors ±1/2.

    By readers: sums ½, −½; 2·(½² + ½²)/36 = 1/36. By cases: sums 1, 0, −1; 3/2·2/36 = 1/12. By cells: 6/5·6·¼/36,
    which is 1/20.
    V = 1/36 + 1/12 − 1/20 < 1/12, so V = 1/12 (never less than by one kind alone), with t of 1 degree of freedom. On
    log odds the half-width is t √V / (½·½).
    """
    found = two_way_share(*flat([[1, 1, 0], [1, 0, 0]]))
    half = scipy.stats.t.ppf(0.975, 1) * np.sqrt(1 / 12) / 0.25
    assert found.mean == 0.5
    assert (found.low, found.high) == pytest.approx((1 / (1 + np.exp(half)), 1 / (1 + np.exp(-half))))
    assert (found.n, found.n_groups) == (6, 2)


def test_ends_stay_within_0_and_1_where_two_way_leaves_them() -> None:
    rows = flat([[1, 1, 1, 1], [1, 1, 1, 0], [1, 1, 1, 1]])
    assert two_way(*rows).high > 1
    found = two_way_share(*rows)
    assert 0 < found.low < found.mean < found.high < 1


@pytest.mark.parametrize("answer", [0.0, 1.0])
def test_answers_that_are_all_the_same_have_exact_ends(answer: float) -> None:
    found = two_way_share(*flat([[answer] * 20] * 5))
    exact = scipy.stats.binomtest(5 * int(answer), 5).proportion_ci(method="exact")
    assert (found.low, found.high) == pytest.approx((exact.low, exact.high))


def test_missing_answers_ties_and_one_reader() -> None:
    values, readers, cases = flat([[1, 0.5, 0], [np.nan, 1, 1]])
    found = two_way_share(values, readers, cases)
    assert (found.mean, found.n, found.n_nan) == (0.7, 5, 1)
    alone = two_way_share(values[:3], readers[:3], cases[:3])
    assert np.isnan(alone.low)
    assert np.isnan(two_way_share([np.nan], ["a"], ["b"]).mean)


def test_other_numbers_are_refused() -> None:
    with pytest.raises(
        StudyError, match=r"values from 0 to 1; got values from 0 to 3\. Use two_way for other numbers"
    ):
        two_way_share([0, 3], ["a", "b"], ["x", "y"])


@pytest.mark.slow
@pytest.mark.parametrize("effects", [(0.5, 0.5), (1.0, 0.3)])
@pytest.mark.parametrize(("n_readers", "n_cases"), [(5, 20), (10, 20)])
def test_intervals_cover_with_few_readers(n_readers: int, n_cases: int, effects: tuple[float, float]) -> None:
    """Probit answers whose true share is the paper's 76 %: at least 94 % of intervals hold it."""
    rng, n, held = np.random.default_rng(0), 400, 0
    mean = scipy.stats.norm.ppf(0.76) * np.sqrt(1 + effects[0] ** 2 + effects[1] ** 2)
    for _ in range(n):
        readers, cases = (
            effects[0] * rng.standard_normal((n_readers, 1)),
            effects[1] * rng.standard_normal((1, n_cases)),
        )
        answers = (mean + readers + cases + rng.standard_normal((n_readers, n_cases)) > 0).astype(float)
        found = two_way_share(*flat(answers.tolist()))
        held += found.low <= 0.76 <= found.high
    assert scipy.stats.binomtest(held, n, 0.94, alternative="less").pvalue > 1e-3
    assert held > 0.9 * n
