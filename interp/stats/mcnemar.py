"""Right or wrong before and after, on the same samples: the flips, and McNemar's test of them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import scipy.stats
from numpy.typing import ArrayLike

from interp.errors import StudyError
from interp.metrics.numbers import real_numbers

__all__ = ["Flips", "flips"]


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
