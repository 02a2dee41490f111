"""P values: permutation tests of whole groups, McNemar's test of flips, and adjustment for several tests."""

from __future__ import annotations

from dataclasses import dataclass
from math import comb
from numbers import Integral
from typing import Any

import numpy as np
import scipy.stats
from jaxtyping import Float, Int
from numpy.typing import ArrayLike

from interp.errors import StudyError
from interp.inputs.argument_checks import check_whole
from interp.metrics.numbers import real_numbers
from interp.stats.intervals import Groups, check_rows, group_sums, paired_differences

__all__ = ["Flips", "PermutationTest", "flips", "holm", "paired_test", "unpaired_test"]


BATCH = 2_000_000  # numbers held at once
USUAL = 0.05


@dataclass(frozen=True)
class PermutationTest:
    """A two-sided permutation test of “no difference”.

    Attributes:
        difference: The tested mean difference; NaN without rows.
        p: The share of arrangements with a statistic at least as extreme, in (0, 1]; NaN when there is nothing to
            rearrange.
        smallest_p: The smallest possible p with this number of groups or of random arrangements; NaN as `p`.
        n_groups: The number of rearranged groups; for two sides, both together.
        exact: Whether every arrangement was tried, not a random part of them.
    """

    difference: float
    p: float
    smallest_p: float
    n_groups: int
    exact: bool

    @property
    def note(self) -> str:
        """A sentence if no data could have given p ≤ 0.05; else empty."""
        if np.isnan(self.p):
            return "No test is possible: a side has fewer than two groups."
        if self.smallest_p <= USUAL:
            return ""
        return (
            f"With {self.n_groups} group{'s' if self.n_groups != 1 else ''} the smallest p this test can give "
            f"is {self.smallest_p:.2g}, so it cannot show a difference at {USUAL}: a large p shows nothing."
        )


def paired_test(
    a: ArrayLike, b: ArrayLike, groups: Groups, *, n: int = 9999, seed: int = 0
) -> PermutationTest:
    """Whether `a − b` of the same samples is 0 on average: the signs of whole groups are flipped.

    The statistic is the mean over rows, Σ_g s_g Σ_{i ∈ g} (a_i − b_i) / N with signs s_g = ±1, as in `paired`, so large
    groups weigh more. The test is exact, over all 2^G signs, when these are at most `n` + 1; otherwise it uses `n`
    random ones and p = (hits + 1) / (n + 1). With G groups p is at least 2^(1 − G): five groups cannot reach 0.05,
    and `note` says so.

    Args:
        a: (row,) numbers; NaN rows are dropped.
        b: (row,) numbers, row i of the same sample as row i of `a`.
        groups: (row,) labels of what was sampled independently; None: every row is its own group.
        n: The maximum number of random sign vectors.
        seed: The seed of the random signs.

    Raises:
        StudyError: Lengths that differ, infinite values, `n` below 1.

    Source: the sign-flipping test of R. A. Fisher, The Design of Experiments (1935), by group.

    Example:
        >>> paired_test([3.0, 4.0, 5.0], [1.0, 1.0, 1.0], None).p
        0.25
    """
    _check(n, seed)
    rows, codes = check_rows(paired_differences(a, b), groups)
    kept = ~np.isnan(rows)
    sums, counts = group_sums(rows[kept], codes[kept])
    n_groups = len(sums)
    if n_groups < 2:
        certain = 1.0 if n_groups else np.nan
        return PermutationTest(
            float(rows[kept].mean()) if n_groups else np.nan, certain, certain, n_groups, True
        )
    exact = n_groups < 60 and 2**n_groups <= n + 1
    found = scipy.stats.permutation_test(
        (sums,),
        lambda flipped, axis: flipped.sum(axis=axis),
        permutation_type="samples",
        vectorized=True,
        n_resamples=2**n_groups if exact else n,
        batch=max(1, BATCH // n_groups),
        rng=np.random.default_rng(seed),
    )
    smallest = 2.0 ** (1 - n_groups) if exact else 2 / (n + 1)
    return PermutationTest(
        float(sums.sum() / counts.sum()), float(found.pvalue), min(smallest, 1.0), n_groups, exact
    )


def unpaired_test(
    a: ArrayLike,
    b: ArrayLike,
    groups_a: Groups,
    groups_b: Groups,
    *,
    n: int = 9999,
    seed: int = 0,
) -> PermutationTest:
    """Whether two sets of different samples have the same mean: whole groups are reassigned to the two sides.

    The statistic is studentised, (m_a − m_b) / √(V_a + V_b), with means over rows and their variances by group. So
    the test keeps its level when the groups of one side vary more, or have more rows, than those of the other. It is
    exact when there are at most `n` + 1 arrangements. A side with a single group has no variance, so no test is
    possible: p is NaN and `note` says so.

    Args:
        a: (row,) numbers of the first side; NaN are dropped.
        b: (row,) numbers of the second.
        groups_a: (row,) groups of `a`; None: every row is its own group.
        groups_b: (row,) groups of `b`; None: every row is its own group. No group is on both sides.
        n: The maximum number of random arrangements.
        seed: The seed of the random arrangements.

    Raises:
        StudyError: As `paired_test`.

    Source: Janssen, Studentized permutation tests for non-i.i.d. hypotheses, Stat. Probab. Lett. 36 (1997)
    9–21; Chung, Romano, Exact and asymptotically robust permutation tests, Ann. Stat. 41 (2013) 484–507.

    Example:
        >>> unpaired_test([5.0, 6.0, 7.0], [1.0, 2.0, 3.0], None, None).p
        0.1
    """
    _check(n, seed)
    sides = []
    for values, groups in ((a, groups_a), (b, groups_b)):
        rows, codes = check_rows(values, groups)
        kept = ~np.isnan(rows)
        sides.append(group_sums(rows[kept], codes[kept]))
    n_a, n_b = (len(sums) for sums, _ in sides)
    means = [float(sums.sum() / counts.sum()) if len(sums) else np.nan for sums, counts in sides]
    if min(n_a, n_b) < 2:
        return PermutationTest(means[0] - means[1], np.nan, np.nan, n_a + n_b, True)
    arrangements = comb(n_a + n_b, n_a)
    exact = arrangements <= n + 1
    pooled = np.concatenate([sums for sums, _ in sides]), np.concatenate([counts for _, counts in sides])
    found = scipy.stats.permutation_test(
        (np.arange(n_a), np.arange(n_a, n_a + n_b)),
        _Studentised(*pooled),
        permutation_type="independent",
        vectorized=True,
        n_resamples=arrangements if exact else n,
        batch=max(1, BATCH // (n_a + n_b)),
        rng=np.random.default_rng(seed),
    )
    smallest = min(2 / arrangements, 1.0) if exact else 2 / (n + 1)
    return PermutationTest(means[0] - means[1], float(found.pvalue), smallest, n_a + n_b, exact)


@dataclass(frozen=True)
class _Studentised:
    """The difference of two sides' means over its standard error, for many arrangements of groups at once."""

    sums: Float[np.ndarray, " group"]
    counts: Int[np.ndarray, " group"]

    def __call__(self, a: np.ndarray, b: np.ndarray, axis: int) -> Any:
        first, second = self._side(a, axis), self._side(b, axis)
        difference = first[0] - second[0]
        least = 1e-24 * max(float(np.abs(self.sums / self.counts).max()), 1e-300) ** 2
        return difference / np.sqrt(np.maximum(first[1] + second[1], least))

    def _side(self, chosen: np.ndarray, axis: int) -> tuple[Any, Any]:
        """The mean over rows, and its variance by group."""
        sums, counts = self.sums[chosen], self.counts[chosen]
        total = counts.sum(axis=axis, keepdims=True)
        mean = sums.sum(axis=axis, keepdims=True) / total
        n = chosen.shape[axis]
        errors = ((sums - mean * counts) ** 2).sum(axis=axis)
        variance = errors / total.squeeze(axis) ** 2 * n / (n - 1)
        return mean.squeeze(axis), variance


def _check(n: Any, seed: Any) -> None:
    if isinstance(n, bool) or not isinstance(n, Integral) or n < 1:
        raise StudyError(f"a permutation test takes n ≥ 1 arrangements; got n={n!r}. The default is n=9999.")
    check_whole("seed", seed, 0, StudyError)


@dataclass(frozen=True)
class Flips:
    """Counts of samples by their marks before and after.

    Attributes:
        both_right: Samples that are right before and after.
        both_wrong: Samples that are wrong before and after.
        wrong_to_right: Samples that are wrong before and right after.
        right_to_wrong: Samples that are right before and wrong after.
        n_unmarked: Samples without a mark on one side; none of the four counts them.
    """

    both_right: int
    both_wrong: int
    wrong_to_right: int
    right_to_wrong: int
    n_unmarked: int = 0

    @property
    def n(self) -> int:
        """Samples counted in the four."""
        return self.both_right + self.both_wrong + self.wrong_to_right + self.right_to_wrong

    @property
    def p(self) -> float:
        """McNemar's exact two-sided p: how often a fair coin would split the flips at least as unevenly.

        1.0 when nothing flipped; NaN without samples. It treats samples as independent. Where several share a
        patient, a volume or an image it is too small; then read the interval over groups.
        """
        changed = self.wrong_to_right + self.right_to_wrong
        if not self.n:
            return float("nan")
        return float(scipy.stats.binomtest(self.wrong_to_right, changed, 0.5).pvalue) if changed else 1.0


def flips(before: ArrayLike, after: ArrayLike) -> Flips:
    """The counts of samples by their marks before and after.

    Args:
        before: (sample,) 1 for right, 0 for wrong, NaN for unmarked.
        after: (sample,) marks of the same samples.

    Raises:
        StudyError: Different lengths, or a mark that is none of the three.

    Source: McNemar, Psychometrika 12 (1947) 153–157, in its exact binomial form.

    Example:
        >>> found = flips([1, 0, 0, 0, 1], [1, 1, 1, 0, 0])
        >>> found.wrong_to_right, found.right_to_wrong, found.p
        (2, 1, 1.0)
    """
    marks_are = "marks are 1 for right, 0 for wrong, or NaN, one for each sample"
    first, second = (real_numbers(given, marks_are, StudyError, missing=True) for given in (before, after))
    marks = np.concatenate([first[~np.isnan(first)], second[~np.isnan(second)]])
    if first.shape != second.shape or first.ndim != 1 or not np.isin(marks, (0.0, 1.0)).all():
        raise StudyError(
            f"flips compares two lists of marks 1, 0 or NaN of the same samples; got shapes {first.shape} and "
            f"{second.shape} with values {sorted(set(marks.tolist()))[:5]}."
        )
    known = ~(np.isnan(first) | np.isnan(second))
    a, b = first[known] == 1, second[known] == 1
    counts = (a & b, ~a & ~b, ~a & b, a & ~b)
    return Flips(*(int(count.sum()) for count in counts), n_unmarked=int((~known).sum()))


def holm(p_values: ArrayLike) -> Float[np.ndarray, " test"]:
    """Holm's step-down adjustment of a family of p-values, in the order given, in [0, 1].

    With the m defined p-values sorted ascending, p̃₍ᵢ₎ = min(1, max_{j ≤ i} (m − j + 1) · p₍ⱼ₎). Rejecting
    where p̃ ≤ α keeps the chance of any false rejection in the family at most α, however the tests depend on
    one another. NaN (a test that was not possible) stays NaN and does not count in m.

    Args:
        p_values: (test,) numbers in [0, 1] or NaN.

    Raises:
        StudyError: More than one axis, or a number outside [0, 1].

    Source: Holm, A simple sequentially rejective multiple test procedure, Scand. J. Statist. 6 (1979) 65–70.

    Example:
        >>> holm([0.01, 0.04, 0.03, 0.005]).round(3).tolist()
        [0.03, 0.06, 0.06, 0.02]
    """
    found = real_numbers(
        p_values, "p-values are one list of numbers in [0, 1] or NaN", StudyError, missing=True
    )
    if found.ndim != 1 or (found < 0).any() or (found > 1).any():
        raise StudyError(f"p-values are one list of numbers in [0, 1] or NaN; got {p_values!r}.")
    adjusted = np.full(found.shape, np.nan)
    defined = np.flatnonzero(~np.isnan(found))
    order = defined[np.argsort(found[defined], kind="stable")]
    factors = len(order) - np.arange(len(order))
    adjusted[order] = np.minimum(np.maximum.accumulate(factors * found[order]), 1.0)
    return adjusted
