from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from interp.errors import StudyError
from interp.stats import holm

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
