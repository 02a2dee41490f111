"""Intervals and tests on simulated data whose truth is known: how often they hold it.

The model throughout: volumes (groups) with an offset of standard deviation `between`, images (rows) in them
with a further `within`. The true mean is 0.
"""

from __future__ import annotations

import numpy as np
import pytest
import scipy.stats

from interp.stats import bootstrap, bootstrap_statistic, paired_test, two_way, unpaired, unpaired_test

Rows = tuple[np.ndarray, np.ndarray]


def volumes(
    rng: np.random.Generator, n: int, images: int, *, between: float = 1.0, within: float = 1.0
) -> Rows:
    """Values and their volumes; the number of images per volume varies around `images`."""
    sizes = images if images == 1 else rng.integers(images // 2, images + images // 2 + 1, n)
    groups = np.repeat(np.arange(n), sizes)
    return rng.normal(scale=between, size=n)[groups] + rng.normal(scale=within, size=len(groups)), groups


def agrees(hits: int, n: int, share: float) -> bool:
    """Whether so many hits are what a binomial of this share would give, at 1 in 1,000."""
    return scipy.stats.binomtest(hits, n, share).pvalue > 1e-3


def test_images_resampled_as_independent_cover_58_percent() -> None:
    """6 volumes of 26 images, a fifth of the variance between volumes (between 1, within 2).

    The image-level bootstrap estimates the variance of the mean as (1 + 4) / 156; it is 1/6 + 4/156. So its
    95 % interval covers as often as |Z| < 1.96 √(0.0321 / 0.1923) does: 58 %. Resampling the six volumes
    instead covers more, and still too little: |t₅| < 1.96 √(5/6), 87 % at best. Hence no claim below 20 groups.
    """
    rng, n = np.random.default_rng(0), 300
    hits = {"images": 0, "volumes": 0}
    for seed in range(n):
        offsets = rng.normal(size=6)
        groups = np.repeat(np.arange(6), 26)
        values = offsets[groups] + rng.normal(scale=2, size=156)
        for name, labels in (("images", None), ("volumes", groups)):
            found = bootstrap(values, labels, n=300, seed=seed)
            hits[name] += found.low <= 0 <= found.high
    ratio = (5 / 156) / (1 / 6 + 4 / 156)
    expected = 2 * scipy.stats.norm.cdf(1.96 * np.sqrt(ratio)) - 1
    assert expected == pytest.approx(0.58, abs=0.005)
    assert agrees(hits["images"], n, expected)
    assert 0.80 < hits["volumes"] / n < 0.90


@pytest.mark.parametrize("n_groups", [25, 80])
def test_resampled_volumes_cover_as_promised_from_twenty_on(n_groups: int) -> None:
    rng, n = np.random.default_rng(n_groups), 250
    hits = 0
    for seed in range(n):
        found = bootstrap(*volumes(rng, n_groups, 8), n=400, seed=seed)
        hits += found.low <= 0 <= found.high
    assert agrees(hits, n, 0.94)


def test_an_unpaired_difference_covers_with_unlike_sides() -> None:
    rng, n, hits = np.random.default_rng(2), 300, 0
    for seed in range(n):
        (a, groups_a), (b, groups_b) = volumes(rng, 60, 1), volumes(rng, 30, 10, between=2)
        found = unpaired(a, b, groups_a, groups_b, n=300, seed=seed)
        hits += found.low <= 0 <= found.high
    assert agrees(hits, n, 0.94)


@pytest.mark.slow
def test_any_statistic_covers_by_group() -> None:
    """The correlation of two columns that share their groups' offsets: true value 0.5, 40 groups of 5."""
    rng, n, hits = np.random.default_rng(3), 150, 0
    for seed in range(n):
        groups = np.repeat(np.arange(40), 5)
        shared = rng.normal(size=40)[groups]
        x, y = (shared + rng.normal(size=200) for _ in range(2))
        found = bootstrap_statistic(lambda a, b: np.corrcoef(a, b)[0, 1], [x, y], groups, n=150, seed=seed)
        hits += found.low <= 0.5 <= found.high
    assert agrees(hits, n, 0.93)


def test_pairs_across_two_kinds_of_group_cover() -> None:
    """240 pairs of 30 volumes on one side and 24 on the other; the difference has both sides' offsets."""
    rng, n, hits, naive = np.random.default_rng(4), 250, 0, 0
    for seed in range(n):
        a, b = rng.permutation(np.arange(240) % 30), rng.permutation(np.arange(240) % 24)
        values = rng.normal(size=30)[a] - rng.normal(size=24)[b] + rng.normal(size=240)
        found = two_way(values, a, b)
        hits += found.low <= 0 <= found.high
        rows = bootstrap(values, None, n=200, seed=seed)
        naive += rows.low <= 0 <= rows.high
    assert agrees(hits, n, 0.95)
    assert naive / n < 0.75


def test_the_paired_test_errs_once_in_twenty() -> None:
    rng, n = np.random.default_rng(5), 250
    rejected = {"groups": 0, "rows": 0}
    for seed in range(n):
        values, groups = volumes(rng, 15, 6)
        for name, labels in (("groups", groups), ("rows", None)):
            rejected[name] += paired_test(values, np.zeros_like(values), labels, n=499, seed=seed).p <= 0.05
    assert agrees(rejected["groups"], n, 0.05)
    assert rejected["rows"] / n > 0.25


@pytest.mark.parametrize(
    ("n_a", "images_a", "between_a", "n_b", "images_b", "between_b"),
    [(20, 5, 1.0, 20, 5, 1.0), (60, 1, 0.3, 12, 20, 2.0), (40, 1, 2.0, 25, 8, 0.5)],
)
def test_the_unpaired_test_errs_at_most_once_in_twenty(
    n_a: int, images_a: int, between_a: float, n_b: int, images_b: int, between_b: float
) -> None:
    rng, n, rejected = np.random.default_rng(6), 200, 0
    for seed in range(n):
        a, groups_a = volumes(rng, n_a, images_a, between=between_a)
        b, groups_b = volumes(rng, n_b, images_b, between=between_b)
        rejected += unpaired_test(a, b, groups_a, groups_b, n=299, seed=seed).p <= 0.05
    assert scipy.stats.binomtest(rejected, n, 0.05, alternative="greater").pvalue > 1e-3


def test_a_real_difference_is_found() -> None:
    rng, n, found = np.random.default_rng(7), 60, 0
    for seed in range(n):
        (a, groups_a), (b, groups_b) = volumes(rng, 40, 3), volumes(rng, 40, 3)
        found += unpaired_test(a + 1.0, b, groups_a, groups_b, n=299, seed=seed).p <= 0.05
    assert found / n > 0.85
