"""The mean of strata's means against the general bootstrap of the same statistic, and by hand."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from interp.errors import StudyError
from interp.stats import bootstrap_statistic, stratified_mean


def weighted(weights: list[float]) -> Any:
    def statistic(values: np.ndarray, codes: np.ndarray) -> float:
        parts = [(w, values[codes == s]) for s, w in enumerate(weights) if w and (codes == s).any()]
        return sum(w * part.mean() for w, part in parts) / sum(w for w, _ in parts) if parts else np.nan

    return statistic


@pytest.mark.parametrize("weights", [None, {"a": 3.0, "b": 1.0, "c": 0.0}])
def test_it_is_the_general_bootstrap_number_for_number(weights: dict[str, float] | None) -> None:
    rng = np.random.default_rng(3)
    values = rng.normal(size=60)
    values[7] = np.nan
    codes = np.sort(rng.integers(0, 3, 60))
    groups = [f"g{number}" for number in rng.integers(0, 9, 60)]  # most groups are in several strata
    strata = ["abc"[code] for code in codes]
    found = stratified_mean(values, strata, groups, weights=weights, n=200, seed=5)
    shares = [1.0, 1.0, 1.0] if weights is None else list(weights.values())
    expected = bootstrap_statistic(weighted(shares), [values, codes.astype(float)], groups, n=200, seed=5)
    assert (found.n, found.n_groups, found.n_nan) == (59, 9, 1)
    assert [found.mean, found.low, found.high] == pytest.approx([expected.mean, expected.low, expected.high])


def test_strata_of_unequal_size_weigh_alike() -> None:
    found = stratified_mean([1, 1, 1, 0], ["large", "large", "large", "small"], None)
    assert (found.mean, found.n) == (0.5, 4)
    nothing = stratified_mean([np.nan], ["a"], None)
    assert (nothing.n, nothing.n_groups, nothing.n_nan) == (0, 0, 1)
    assert np.isnan(
        stratified_mean([1.0, 0.0], ["a", "b"], ["g", "g"]).low
    )  # one group says nothing about others


@pytest.mark.parametrize("weights", [None, {"a": 3.0, "b": 1.0}])
def test_a_stratum_that_is_not_drawn_takes_its_weight_along(weights: dict[str, float] | None) -> None:
    """Half of the draws of two groups hold one stratum alone; each mean of ones is 1 all the same."""
    found = stratified_mean([1.0, 1.0], ["a", "b"], ["x", "y"], weights=weights, n=50)
    assert (found.low, found.mean, found.high) == (1, 1, 1)


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(
    "weights",
    [
        {"a": 1}, {"a": 0, "b": 0}, {"a": -1, "b": 2}, {"a": True, "b": 1}, {"a": "1", "b": 1},
        {"a": np.nan, "b": 1}, {"a": np.inf, "b": 1}, [1, 1],
    ],
)  # fmt: skip
def test_weights_that_do_not_fit_are_refused(weights: Any) -> None:
    with pytest.raises(StudyError, match=r"weights give each stratum, a, b, a number ≥ 0"):
        stratified_mean([1.0, 0.0], ["a", "b"], None, weights=weights)


def test_strata_of_another_length_are_refused() -> None:
    with pytest.raises(StudyError, match="strata are one name, a text, for each of 2 values"):
        stratified_mean([1.0, 0.0], ["a"], None)
