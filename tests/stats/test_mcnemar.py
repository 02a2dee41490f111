from __future__ import annotations

from math import comb, isnan

import numpy as np
import pytest

from interp.errors import StudyError
from interp.stats import flips


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
