from __future__ import annotations

import itertools

import numpy as np
import pytest
import scipy.stats

from interp.errors import StudyError
from interp.stats import PermutationTest, bootstrap, paired_test, unpaired_test

RNG = np.random.default_rng(5)


def test_signs_of_whole_groups_are_flipped_as_by_brute_force() -> None:
    groups = np.array(["a", "a", "a", "b", "c", "c", "d", "e", "f", "f"])
    a, b = RNG.normal(0.4, 1, 10), RNG.normal(size=10)
    found = paired_test(a, b, groups)
    names = sorted(set(groups))
    null = []
    for signs in itertools.product((-1, 1), repeat=len(names)):
        sign = dict(zip(names, signs, strict=True))
        null.append(np.mean([sign[g] * d for g, d in zip(groups, a - b, strict=True)]))
    expected = np.mean(np.abs(null) >= abs(np.mean(a - b)) - 1e-12)
    assert found.p == pytest.approx(expected)
    assert found.difference == pytest.approx(np.mean(a - b))
    assert (found.n_groups, found.exact, found.smallest_p) == (6, True, 2**-5)


def test_without_groups_it_is_the_classic_test_of_one_sample() -> None:
    a, b = RNG.normal(0.5, 1, 12), RNG.normal(size=12)
    theirs = scipy.stats.permutation_test(
        (a, b), lambda x, y: np.mean(x - y), permutation_type="samples", vectorized=False
    )
    assert paired_test(a, b, None).p == pytest.approx(theirs.pvalue)


def welch(sums: np.ndarray, counts: np.ndarray, chosen: list[int]) -> float:
    """The studentised difference of the chosen groups from the rest, written out."""
    means, variances = [], []
    for side in (chosen, [g for g in range(len(sums)) if g not in chosen]):
        mean = sums[side].sum() / counts[side].sum()
        k = len(side)
        errors = (sums[side] - mean * counts[side]) / counts[side].sum()
        means.append(mean)
        variances.append((errors**2).sum() * k / (k - 1))
    return (means[0] - means[1]) / np.sqrt(sum(variances))


def test_whole_groups_change_sides_as_by_brute_force() -> None:
    groups_a, groups_b = np.array([0, 0, 1, 2, 2, 2]), np.array([0, 1, 1, 2, 3])
    a, b = RNG.normal(1.0, 1, 6), RNG.normal(size=5)
    found = unpaired_test(a, b, groups_a, groups_b)
    labels = np.concatenate([groups_a, 3 + groups_b])
    sums = np.bincount(labels, weights=np.concatenate([a, b]))
    counts = np.bincount(labels)
    null = np.array([welch(sums, counts, list(c)) for c in itertools.combinations(range(7), 3)])
    seen = welch(sums, counts, [0, 1, 2])
    tail = min(np.sum(null >= seen - 1e-12), np.sum(null <= seen + 1e-12))
    assert found.p == pytest.approx(min(1.0, 2 * tail / 35))
    assert found.difference == pytest.approx(a.mean() - b.mean())
    assert found.exact
    assert found.smallest_p == pytest.approx(2 / 35)


def test_many_groups_are_sampled_with_the_seed() -> None:
    a, b = RNG.normal(0.2, 1, 60), RNG.normal(size=60)
    first = paired_test(a, b, None, seed=3)
    assert not first.exact
    assert first == paired_test(a, b, None, seed=3)
    assert first.p != paired_test(a, b, None, seed=4).p
    assert first.p == pytest.approx(scipy.stats.ttest_rel(a, b).pvalue, abs=0.02)
    apart = unpaired_test(a, b, None, None)
    assert apart.p == pytest.approx(scipy.stats.ttest_ind(a, b, equal_var=False).pvalue, abs=0.02)


@pytest.mark.parametrize(("n_groups", "smallest"), [(1, 1.0), (3, 0.25), (5, 0.0625)])
def test_with_few_groups_the_smallest_possible_p_is_said(n_groups: int, smallest: float) -> None:
    found = paired_test(np.full(n_groups, 9.0), np.zeros(n_groups), np.arange(n_groups))
    assert found.p == found.smallest_p == smallest
    assert f"With {n_groups} group" in found.note
    assert f"smallest p this test can give is {smallest:.2g}" in found.note


def test_from_six_groups_on_nothing_needs_to_be_said() -> None:
    assert paired_test(np.ones(6), np.zeros(6), np.arange(6)).note == ""
    assert "With 5 groups" in unpaired_test([1.0, 2.0], [3.0, 4.0, 5.0], None, None).note
    assert unpaired_test([1.0, 2, 3, 4], [6.0, 7, 8, 9], None, None).note == ""


def test_no_difference_at_all_has_p_one() -> None:
    assert paired_test([1.0] * 8, [1.0] * 8, np.arange(8)).p == 1.0
    assert unpaired_test([1.0] * 8, [1.0] * 5, None, None).p == 1.0


def test_constant_sides_that_differ_are_as_far_apart_as_can_be() -> None:
    found = unpaired_test([2.0] * 5, [1.0] * 5, None, None)
    assert found.p == pytest.approx(found.smallest_p)


def test_a_side_of_one_group_has_a_difference_and_no_test() -> None:
    found = unpaired_test([9.0, 9.0], [1.0, 2.0, 3.0, 4.0], ["x", "x"], None)
    assert (found.difference, found.n_groups) == (6.5, 5)
    assert np.isnan(found.p)
    assert found.note == "No test is possible: a side has fewer than two groups."


def test_nan_rows_are_dropped_and_nothing_left_is_nan() -> None:
    assert paired_test([1.0, np.nan, 3.0], [0.0, 0.0, np.nan], None).n_groups == 1
    empty = paired_test([np.nan], [1.0], None)
    assert isinstance(empty, PermutationTest)
    assert np.isnan(empty.p)
    assert np.isnan(unpaired_test([], [1.0, 2.0], None, None).p)


def test_the_difference_tested_is_the_one_estimated() -> None:
    groups = np.repeat([0, 1, 2], [1, 5, 9])
    values = RNG.normal(size=15)
    assert paired_test(values, np.zeros(15), groups).difference == pytest.approx(
        bootstrap(values, groups).mean
    )


def test_arguments_that_do_not_fit_are_refused() -> None:
    with pytest.raises(StudyError, match="n ≥ 1 arrangements; got n=0"):
        paired_test([1.0], [2.0], None, n=0)
    with pytest.raises(StudyError, match="n ≥ 1 arrangements"):
        unpaired_test([1.0], [2.0], None, None, n=0)
    with pytest.raises(StudyError, match="same samples in both"):
        paired_test([1.0], [2.0, 3.0], None)
