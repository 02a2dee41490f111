from __future__ import annotations

import itertools
from math import comb, isnan

import numpy as np
import pytest
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st

from interp.errors import StudyError
from interp.stats import PermutationTest, bootstrap, flips, holm, paired_test, unpaired_test
from interp.stats.significance import _Studentised

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


def test_the_studentised_difference_is_that_written_out() -> None:
    sums, counts = RNG.normal(size=7), np.array([2, 1, 3, 1, 2, 1, 4])
    found = _Studentised(sums, counts)(np.array([0, 1, 2]), np.array([3, 4, 5, 6]), axis=0)
    assert found == pytest.approx(welch(sums, counts, [0, 1, 2]))


def test_random_arrangements_are_as_many_as_asked_for() -> None:
    """p counts the data among the n + 1, on both sides; data far apart have the smallest."""
    near, far = RNG.normal(size=40), RNG.normal(9.0, 1, size=40)
    for found in (paired_test(far, near, None, n=99), unpaired_test(far, near, None, None, n=99)):
        assert (found.exact, found.p, found.smallest_p) == (False, pytest.approx(0.02), pytest.approx(0.02))


def test_many_groups_are_sampled_with_the_seed() -> None:
    a, b = RNG.normal(0.2, 1, 60), RNG.normal(size=60)
    first = paired_test(a, b, None, seed=3)
    assert not first.exact
    assert first == paired_test(a, b, None, seed=3)
    assert first.p != paired_test(a, b, None, seed=4).p
    assert first.p == pytest.approx(scipy.stats.ttest_rel(a, b).pvalue, abs=0.02)
    apart = unpaired_test(a, b, None, None)
    assert apart.p == pytest.approx(scipy.stats.ttest_ind(a, b, equal_var=False).pvalue, abs=0.02)


@pytest.mark.parametrize(("n_groups", "smallest"), [(1, 1.0), (2, 0.5), (3, 0.25), (5, 0.0625)])
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


def counted(gained: int, lost: int) -> float:
    """Two-sided exact p by counting every way that gained + lost coins can fall."""
    n = gained + lost
    ways = [comb(n, k) for k in range(n + 1)]
    return sum(way for way in ways if way <= ways[gained]) / 2**n


@pytest.mark.parametrize(("gained", "lost"), [(5, 0), (4, 1), (1, 4), (7, 3), (2, 2), (0, 9), (12, 5)])
def test_p_counts_the_ways_coins_can_fall(gained: int, lost: int) -> None:
    before = [0] * gained + [1] * lost + [1] * 6 + [0] * 2
    after = [1] * gained + [0] * lost + [1] * 6 + [0] * 2
    found = flips(before, after)
    assert (found.wrong_to_right, found.right_to_wrong) == (gained, lost)
    assert (found.both_right, found.both_wrong, found.n) == (6, 2, gained + lost + 8)
    assert found.p == pytest.approx(counted(gained, lost))


def test_samples_without_a_mark_are_in_none_of_the_four() -> None:
    found = flips([1, np.nan, 0, 1], [1, 1, np.nan, 0])
    assert (found.n, found.n_unmarked, found.both_right, found.right_to_wrong) == (2, 2, 1, 1)


def test_no_flips_and_no_samples() -> None:
    assert flips([1, 0], [1, 0]).p == 1.0
    assert isnan(flips([np.nan], [1.0]).p)


def test_what_is_no_list_of_marks_is_refused() -> None:
    with pytest.raises(StudyError, match=r"two lists of marks 1, 0 or NaN of the same samples"):
        flips([1, 0], [1])
    with pytest.raises(StudyError, match=r"with values \[0.0, 0.5, 1.0\]"):
        flips([1, 0.5], [1, 0])


P_VALUES = st.lists(st.floats(0, 1), min_size=1, max_size=6)


def closed(p_values: list[float]) -> list[float]:
    """Holm by the closure principle: the largest Bonferroni p of all subfamilies that hold the test."""
    indices = range(len(p_values))
    subsets = [c for size in indices for c in itertools.combinations(indices, size + 1)]
    return [max(min(1.0, len(s) * min(p_values[j] for j in s)) for s in subsets if i in s) for i in indices]


def test_the_worked_example_of_four_tests() -> None:
    # sorted 0.005, 0.01, 0.03, 0.04 times 4, 3, 2, 1 = 0.02, 0.03, 0.06, 0.04; the last may not be below 0.06
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])


def test_a_running_maximum_holds_a_smaller_product_up() -> None:
    # multipletests(…, method="holm")[1] of statsmodels is the step-down rule worked here by hand: sorted
    # 0.0012·6, 0.01·5, 0.02·4, 0.022·3 → the running maximum 0.08, 0.09·2, 0.5·1
    found = holm([0.01, 0.02, 0.022, 0.09, 0.5, 0.0012])
    assert found == pytest.approx([0.05, 0.08, 0.08, 0.18, 0.5, 0.0072])


@given(P_VALUES)
@settings(max_examples=60, deadline=None)
def test_it_is_the_closed_test_of_bonferronis(p_values: list[float]) -> None:
    assert holm(p_values) == pytest.approx(closed(p_values))


def test_a_single_test_is_left_as_it_is_and_nothing_exceeds_one() -> None:
    assert holm([0.04]).tolist() == [0.04]
    assert holm([0.6, 0.7]).tolist() == [1.0, 1.0]
    assert holm([]).tolist() == []


def test_an_undefined_p_is_not_counted() -> None:
    found = holm([0.01, np.nan, 0.03])
    assert found[[0, 2]] == pytest.approx([0.02, 0.03])
    assert np.isnan(found[1])


def test_what_is_no_p_value_is_refused() -> None:
    for wrong in ([0.1, 1.2], [-0.1], [[0.1, 0.2]]):
        with pytest.raises(StudyError, match=r"numbers in \[0, 1\] or NaN; got"):
            holm(wrong)
