from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest
import scipy.stats
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from interp.errors import StudyError
from interp.stats import (
    Interval,
    bootstrap,
    bootstrap_statistic,
    paired,
    per_group,
    population_note,
    two_way,
    unpaired,
)
from interp.stats.intervals import bootstrap_parts

RNG = np.random.default_rng(0)


def clustered(rng: np.random.Generator, n_groups: int, rows: int) -> tuple[np.ndarray, np.ndarray]:
    """Rows that share their group's offset: sd 1 between groups, ½ within; the true mean is 0."""
    offsets = rng.normal(size=n_groups)
    groups = np.repeat(np.arange(n_groups), rows)
    return offsets[groups] + rng.normal(scale=0.5, size=len(groups)), groups


def test_independent_rows_match_scipys_percentile_bootstrap():
    values = RNG.gamma(2.0, size=150)
    ours = bootstrap(values, None, n=8000, seed=3)
    theirs = scipy.stats.bootstrap(
        (values,), np.mean, n_resamples=8000, method="percentile", rng=np.random.default_rng(4)
    ).confidence_interval
    spread = theirs.high - theirs.low
    assert ours.mean == pytest.approx(values.mean())
    assert ours.low == pytest.approx(theirs.low, abs=0.03 * spread)
    assert ours.high == pytest.approx(theirs.high, abs=0.03 * spread)
    assert (ours.n, ours.n_groups, ours.n_nan) == (150, 150, 0)


def test_groups_match_scipy_resampling_sums_and_counts_together():
    sizes = RNG.integers(1, 9, 30)
    groups = np.repeat(np.arange(30), sizes)
    values = RNG.normal(size=30)[groups] + RNG.normal(size=len(groups))
    sums = np.array([values[groups == g].sum() for g in range(30)])

    def ratio(a, b, axis):
        return a.sum(axis=axis) / b.sum(axis=axis)

    theirs = scipy.stats.bootstrap(
        (sums, sizes),
        ratio,
        paired=True,
        n_resamples=8000,
        method="percentile",
        confidence_level=0.8,
        rng=np.random.default_rng(4),
    ).confidence_interval
    ours = bootstrap(values, groups, n=8000, level=0.8)
    spread = theirs.high - theirs.low
    assert ours.low == pytest.approx(theirs.low, abs=0.04 * spread)
    assert ours.high == pytest.approx(theirs.high, abs=0.04 * spread)


def test_only_group_intervals_cover_clustered_data():
    rng = np.random.default_rng(1)
    hits = {"groups": 0, "rows": 0}
    for seed in range(300):
        values, groups = clustered(rng, n_groups=40, rows=10)
        for name, labels in (("groups", groups), ("rows", None)):
            found = bootstrap(values, labels, n=400, seed=seed)
            hits[name] += found.low <= 0.0 <= found.high
    assert 0.90 <= hits["groups"] / 300 <= 0.98
    assert hits["rows"] / 300 < 0.65


def test_the_seed_alone_decides_the_interval():
    values, groups = clustered(RNG, 12, 5)
    first = bootstrap(values, groups, seed=7)
    assert first == bootstrap(values, groups, seed=7)
    assert first.low != bootstrap(values, groups, seed=8).low
    np.random.seed(0)  # the global generator must not matter
    assert first == bootstrap(values, groups, seed=7)


@given(seed=st.integers(0, 10_000))
@settings(max_examples=20, deadline=None)
def test_the_order_and_the_names_of_groups_do_not_matter(seed):
    rng = np.random.default_rng(seed)
    values, groups = clustered(rng, 6, 4)
    order = rng.permutation(len(values))
    shuffled = bootstrap(values[order], [f"patient-{9 - g}" for g in groups[order]], n=50)
    assert shuffled == bootstrap(values, groups, n=50)


def test_draws_do_not_depend_on_how_many_are_held_at_once(monkeypatch):
    values, groups = clustered(RNG, 12, 5)
    whole = bootstrap(values, groups, n=500)
    monkeypatch.setattr("interp.stats.intervals.CHUNK", 12 * 500 + 1)
    assert bootstrap(values, groups, n=500) == whole
    monkeypatch.setattr("interp.stats.intervals.CHUNK", 30)
    pieces = bootstrap(values, groups, n=500)
    assert pieces.low == pytest.approx(whole.low, abs=0.2)
    assert pieces.high > pieces.mean > pieces.low


def test_nan_values_are_dropped_and_counted_with_their_groups():
    found = bootstrap([1.0, np.nan, 3.0, np.nan, np.nan], ["a", "a", "b", "c", "c"], n=100)
    assert (found.mean, found.n, found.n_groups, found.n_nan) == (2.0, 2, 2, 3)
    assert found == Interval(2.0, 1.0, 3.0, 2, 2, 3)


def test_one_group_has_a_mean_and_no_interval():
    found = bootstrap([1.0, 2.0, 6.0], ["a"] * 3)
    assert (found.mean, found.n, found.n_groups) == (3.0, 3, 1)
    assert math.isnan(found.low)
    assert math.isnan(found.high)


@pytest.mark.parametrize(("values", "n_nan"), [([], 0), ([np.nan, np.nan], 2)])
def test_no_values_have_no_mean(values, n_nan):
    found = bootstrap(values, ["a"] * len(values))
    assert all(math.isnan(x) for x in (found.mean, found.low, found.high))
    assert (found.n, found.n_groups, found.n_nan) == (0, 0, n_nan)


def test_equal_values_have_an_interval_of_no_width():
    found = bootstrap([0.1] * 30, np.repeat(np.arange(5), 6))
    assert found.low == pytest.approx(0.1, abs=1e-15)
    assert found.high == pytest.approx(0.1, abs=1e-15)


def test_large_groups_weigh_more_as_their_rows_do():
    found = bootstrap([0.0] * 9 + [1.0], ["big"] * 9 + ["small"], n=4000)
    assert found.mean == pytest.approx(0.1)
    # Draws: both big (0), one of each (0.1), both small (1), with chances ¼, ½, ¼.
    assert (found.low, found.high) == (0.0, 1.0)
    half = bootstrap([0.0] * 9 + [1.0], ["big"] * 9 + ["small"], n=4000, level=0.4)
    assert half.low == pytest.approx(0.1)
    assert half.high == pytest.approx(0.1)


def test_a_missing_label_is_a_group_of_its_own():
    assert bootstrap([1.0, 2.0, 3.0, 4.0], ["a", None, "a", None], n=10).n_groups == 3
    assert bootstrap([1.0, 2.0, 3.0], pd.Series([1.0, np.nan, np.nan]), n=10).n_groups == 3
    assert bootstrap([1.0, 2.0, 3.0], [1, "1", 1], n=10).n_groups == 2


def test_paired_intervals_are_narrower_when_both_move_together():
    base, groups = clustered(RNG, 40, 5)
    better = base + 0.3 + RNG.normal(scale=0.05, size=len(base))
    together = paired(better, base, groups)
    assert together.mean == pytest.approx((better - base).mean())
    assert together == bootstrap(better - base, groups)
    assert 0.25 < together.low < together.high < 0.35
    apart = bootstrap(base, groups)
    assert together.high - together.low < 0.2 * (apart.high - apart.low)


def test_a_pair_with_either_value_missing_is_dropped():
    found = paired([1.0, np.nan, 5.0, 7.0], [0.0, 1.0, np.nan, 4.0], None, n=50)
    assert (found.mean, found.n, found.n_nan) == (2.0, 2, 2)


def test_per_group_table_by_hand():
    table = per_group([1.0, 5.0, 3.0, np.nan, np.nan, 2.0], ["b", "a", "b", "a", "c", None])
    assert list(table.columns) == ["group", "mean", "n", "n_nan"]
    assert table["group"].tolist()[:3] == ["b", "a", "c"]
    np.testing.assert_array_equal(table["mean"], [2.0, 5.0, np.nan, 2.0])
    assert table["n"].tolist() == [2, 1, 0, 1]
    assert table["n_nan"].tolist() == [0, 1, 1, 0]
    assert len(per_group([], [])) == 0


def test_the_note_stands_below_twenty_groups_only():
    assert population_note(20) == ""
    assert population_note(19).startswith("Only 19 groups: fewer than 20, so the interval says nothing")
    assert "no claim about a population" in population_note(6)
    assert population_note(1).startswith("Only 1 group:")


def test_arguments_that_do_not_fit_are_refused():
    with pytest.raises(StudyError, match=r"values \(3,\) and 2 groups"):
        bootstrap([1.0, 2.0, 3.0], ["a", "b"])
    with pytest.raises(StudyError, match=r"values \(1, 2\)"):
        bootstrap([[1.0, 2.0]], None)
    with pytest.raises(StudyError, match=r"1 infinite of 2.*NaN"):
        bootstrap([1.0, np.inf], ["a", "b"])
    with pytest.raises(StudyError, match=r"same samples in both; got \(2,\) and \(3,\)"):
        paired([1.0, 2.0], [1.0, 2.0, 3.0], None)
    for wrong in ({"n": 0}, {"level": 1.0}, {"level": 95.0}):
        with pytest.raises(StudyError, match="level between 0 and 1; got"):
            bootstrap([1.0, 2.0], ["a", "b"], **wrong)


def test_an_unpaired_difference_matches_scipys_bootstrap():
    a, b = RNG.gamma(2.0, size=80), RNG.normal(1.0, 2.0, size=50)
    theirs = scipy.stats.bootstrap(
        (a, b),
        lambda x, y, axis: x.mean(axis=axis) - y.mean(axis=axis),
        n_resamples=8000,
        method="percentile",
        rng=np.random.default_rng(4),
    ).confidence_interval
    ours = unpaired(a, b, None, None, n=8000)
    spread = theirs.high - theirs.low
    assert ours.mean == pytest.approx(a.mean() - b.mean())
    assert ours.low == pytest.approx(theirs.low, abs=0.04 * spread)
    assert ours.high == pytest.approx(theirs.high, abs=0.04 * spread)
    assert (ours.n, ours.n_groups) == (130, 50)


def test_the_side_with_fewer_groups_limits_a_difference():
    found = unpaired([1.0, 2.0, np.nan, 4.0], [1.0, 2.0, 3.0], ["a", "b", "c", "d"], ["x", "x", "x"])
    assert (found.n, found.n_groups, found.n_nan) == (6, 1, 1)
    assert found.mean == pytest.approx(7 / 3 - 2)
    other = unpaired([1.0, 2.0, 3.0], [np.nan, 1.0, np.nan, 3.0], None, None, n=10)
    assert (other.mean, other.n, other.n_groups, other.n_nan) == (0.0, 5, 2, 2)
    assert math.isnan(found.low)
    assert math.isnan(unpaired([], [1.0], [], ["x"]).mean)


def test_equal_names_on_two_sides_are_different_groups():
    a, b = RNG.normal(size=30), RNG.normal(size=30)
    same = unpaired(a, b, np.arange(30), np.arange(30))
    assert same == unpaired(a, b, np.arange(30), 100 + np.arange(30))
    assert same.high - same.low > 1.2 * (bootstrap(a, None).high - bootstrap(a, None).low)


def test_the_mean_as_a_statistic_has_the_means_interval():
    values, groups = clustered(RNG, 30, 4)
    ours = bootstrap_statistic(np.mean, [values], groups, n=3000)
    known = bootstrap(values, groups, n=3000)
    assert (ours.mean, ours.n, ours.n_groups) == (pytest.approx(known.mean), 120, 30)
    spread = known.high - known.low
    assert ours.low == pytest.approx(known.low, abs=0.06 * spread)
    assert ours.high == pytest.approx(known.high, abs=0.06 * spread)


def test_undefined_resamplings_of_a_statistic_are_left_out():
    x, y = [1.0, 2.0, 3.0, np.nan, 5.0, 6.0], [1.0, 4.0, 9.0, 16.0, np.nan, 36.0]
    groups = ["a", "a", "b", "c", "d", "e"]
    with np.errstate(invalid="ignore", divide="ignore"):
        found = bootstrap_statistic(
            lambda a, b: np.corrcoef(a, b)[0, 1] if len(set(a)) > 1 else np.nan, [x, y], groups, n=200
        )
    assert found.mean == pytest.approx(np.corrcoef([1, 2, 3, 6], [1, 4, 9, 36])[0, 1])
    assert (found.n, found.n_groups, found.n_nan) == (4, 3, 2)
    assert 0.9 < found.low <= found.high <= 1.0 + 1e-12
    assert math.isnan(bootstrap_statistic(np.mean, [[1.0, 2.0]], ["a", "a"]).low)
    assert math.isnan(bootstrap_statistic(np.mean, [[np.nan]], None).mean)


def test_two_kinds_of_group_by_hand():
    # errors −1.5, −0.5, 0.5, 1.5; by a: sums −2, 2; by b: −1, 1; by both: each row
    found = two_way([1.0, 2.0, 3.0, 4.0], ["a", "a", "b", "b"], ["x", "y", "x", "y"])
    of_a, of_b, of_both = 2 * (4 + 4) / 16, 2 * (1 + 1) / 16, (2.25 + 0.25 + 0.25 + 2.25) / 16 * 4 / 3
    half = scipy.stats.t.ppf(0.975, 1) * np.sqrt(max(of_a + of_b - of_both, of_a))
    assert found.mean == 2.5
    assert found.high - 2.5 == pytest.approx(half)
    assert (found.n, found.n_groups) == (4, 2)
    swapped = two_way([1.0, 2.0, 3.0, 4.0], ["x", "y", "x", "y"], ["a", "a", "b", "b"])
    assert (swapped.low, swapped.high) == pytest.approx((found.low, found.high))
    uneven = two_way([1.0, 2.0, 4.0], ["a", "b", "c"], ["x", "x", "y"])
    assert uneven.n_groups == two_way([1.0, 2.0, 4.0], ["x", "x", "y"], ["a", "b", "c"]).n_groups == 2


def test_two_groupings_by_row_give_the_interval_of_t():
    values = RNG.normal(size=30)
    theirs = scipy.stats.ttest_1samp(values, 0).confidence_interval(0.9)
    ours = two_way(values, None, None, level=0.9)
    assert (ours.low, ours.high) == (pytest.approx(theirs.low), pytest.approx(theirs.high))
    assert math.isnan(two_way(values, ["one"] * 30, None).low)
    assert math.isnan(two_way([np.nan], ["a"], ["b"]).mean)


def test_options_of_the_other_intervals_are_checked_too():
    for call in (
        lambda **wrong: unpaired([1.0], [2.0], None, None, **wrong),
        lambda **wrong: bootstrap_statistic(np.mean, [[1.0]], None, **wrong),
    ):
        for wrong in ({"n": 0}, {"level": 1.0}):
            with pytest.raises(StudyError, match="level between 0 and 1; got"):
                call(**wrong)
    with pytest.raises(StudyError, match="at least one column"):
        bootstrap_statistic(np.mean, [], None)
    with pytest.raises(StudyError, match=r"columns of one length are expected; got \[2, 1\]"):
        bootstrap_statistic(np.dot, [[1.0, 2.0], [1.0]], None)


def test_parts_of_a_column_are_bootstrapped_as_if_alone() -> None:
    values = np.array([1.0, 3.0, np.nan, 5.0, 2.0, 8.0, 4.0])
    groups = np.array(["a", "b", "b", None, "a", "c", None], dtype=object)
    parts = np.array([0, 0, 0, 0, 1, 1, -1])
    found = bootstrap_parts(values, groups, parts, seed=3, n=200)
    assert [(one.mean, one.n, one.n_groups, one.n_nan) for one in found] == [(3.0, 3, 3, 1), (5.0, 2, 2, 0)]
    assert found == [bootstrap(values[parts == i], groups[parts == i], seed=3, n=200) for i in (0, 1)]
    assert bootstrap_parts([], [], np.array([], int)) == []


def test_each_resampling_draws_as_many_groups_as_there_are() -> None:
    found = bootstrap_statistic(len, [[1.0, 2.0, 3.0, 4.0, 5.0, 6.0]], ["a", "b", "c"] * 2, n=60)
    assert (found.mean, found.low, found.high) == (6.0, 6.0, 6.0)


def test_without_rows_every_count_is_zero() -> None:
    for found in (two_way([np.nan], ["a"], ["b"]), unpaired([np.nan], [], ["a"], [])):
        assert (found.n, found.n_groups, found.n_nan) == (0, 0, 1)


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(("statistic", "columns"), [("mean", [[1.0]]), (np.mean, "12"), (np.mean, 3.0)])
def test_what_is_no_statistic_of_columns_is_refused(statistic, columns):
    with pytest.raises(StudyError, match="a statistic is a function of columns"):
        bootstrap_statistic(statistic, columns, None)


def test_a_single_resampling_is_made() -> None:
    found = bootstrap([1.0, 2.0, 6.0], None, n=1)
    assert found.low == found.high in {total / 3 for total in range(3, 19)}


def test_one_group_of_a_kind_is_counted_as_one() -> None:
    found = two_way([1.0, 2.0], ["a", "a"], ["x", "y"])
    assert (found.mean, found.n, found.n_groups) == (1.5, 2, 1)
    assert math.isnan(found.high)


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize("groups", ["ab", {"a": 1, "b": 2}, {1, 2}, 5, [["a"], ["b"]]])
def test_what_is_no_list_of_labels_is_refused(groups):
    with pytest.raises(StudyError, match=r"groups are (a list of )?one label for each row"):
        bootstrap([1.0, 2.0], groups)


def test_a_table_per_group_needs_groups(unchecked) -> None:
    with pytest.raises(StudyError, match="per_group needs the group of each row; got None"):
        per_group([1.0], None)  # pyright: ignore[reportArgumentType]


def test_labels_in_tensors_are_their_numbers(unchecked) -> None:
    zero, one = torch.tensor(0), torch.tensor(1)
    for groups in (torch.tensor([0, 0, 1]), [zero, torch.tensor(0), one], np.array([0, 0, 1])):
        assert bootstrap([1.0, 2.0, 3.0], groups, n=10).n_groups == 2


def test_columns_are_matched_by_place_and_not_by_index() -> None:
    values = pd.Series([1.0, 3.0, 8.0], index=[2, 0, 1])
    groups = pd.Series(["a", "a", "b"], index=[0, 1, 2])
    assert per_group(values, groups)["mean"].tolist() == [2.0, 8.0]
    assert bootstrap(values, groups, n=50) == bootstrap([1.0, 3.0, 8.0], ["a", "a", "b"], n=50)
    other = pd.Series([1.0, 1.0, 1.0], index=[5, 6, 7])
    assert paired(values, other, None, n=10).mean == 3.0
