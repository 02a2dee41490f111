"""Level, seed and number of resamplings: each statistic has the documented defaults and heeds what it is given."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import pytest

from interp import stats
from interp.errors import StudyError
from interp.stats.intervals import MOST, bootstrap_parts, check_options

RNG = np.random.default_rng(2)
A, B = RNG.normal(size=60), RNG.normal(size=60)
GROUPS = [f"g{i % 15}" for i in range(60)]
YES, NO, TRUE = (["yes" if one else "no" for one in RNG.random(60) < share] for share in (0.6, 0.4, 0.5))


def ends(frame: Any) -> tuple[float, float]:
    """The interval of the accuracy."""
    return float(frame.low.iloc[0]), float(frame.high.iloc[0])


def both(found: Any) -> tuple[float, float]:
    return found.low, found.high


RESAMPLED: dict[str, Callable[..., tuple[float, float]]] = {
    "bootstrap": lambda **o: both(stats.bootstrap(A, GROUPS, **o)),
    "bootstrap_parts": lambda **o: both(bootstrap_parts(A, GROUPS, np.zeros(60, int), **o)[0]),
    "paired": lambda **o: both(stats.paired(A, B, GROUPS, **o)),
    "unpaired": lambda **o: both(stats.unpaired(A, B, GROUPS, GROUPS, **o)),
    "bootstrap_statistic": lambda **o: both(stats.bootstrap_statistic(np.median, [A], GROUPS, **o)),
    "stratified_mean": lambda **o: both(stats.stratified_mean(A, ["s"] * 30 + ["t"] * 30, GROUPS, **o)),
    "yes_no_marks": lambda **o: ends(stats.yes_no_marks(YES, TRUE, GROUPS, **o)),
    "yes_no_change": lambda **o: ends(stats.yes_no_change(YES, NO, TRUE, GROUPS, **o)),
}
CROSSED: dict[str, Callable[..., tuple[float, float]]] = {
    "two_way": lambda **o: both(stats.two_way(A, GROUPS, None, **o)),
    "two_way_share": lambda **o: both(stats.two_way_share(A > 0, GROUPS, None, **o)),
}


@pytest.mark.parametrize("name", [*RESAMPLED, *CROSSED])
def test_a_lower_level_gives_a_narrower_interval(name: str) -> None:
    found = {**RESAMPLED, **CROSSED}[name]
    few: dict[str, Any] = {"n": 200} if name in RESAMPLED else {}
    wide, half = found(**few), found(**few, level=0.5)
    assert found(**few, level=0.95) == wide
    assert wide[0] < half[0] < half[1] < wide[1]


@pytest.mark.parametrize("name", RESAMPLED)
def test_the_seed_and_the_number_of_resamplings_count(name: str) -> None:
    found = RESAMPLED[name]
    assert found(n=300) == found(n=300, seed=0) != found(n=300, seed=1)
    assert found(n=20) != found(n=300)
    own = bootstrap_parts if name == "bootstrap_parts" else getattr(stats, name)
    assert inspect.signature(own).parameters["n"].default == 2000


@pytest.mark.parametrize("name", ["paired_test", "unpaired_test"])
def test_a_test_heeds_its_seed_and_its_number_of_arrangements(name: str) -> None:
    given: Any = (A, B, None) if name == "paired_test" else (A, B, None, None)
    test = getattr(stats, name)
    assert test(*given, n=199).p == test(*given, n=199, seed=0).p != test(*given, n=199, seed=1).p
    assert test(*given, n=39).smallest_p == pytest.approx(2 / 40)
    assert test(*given, n=39).note == ""  # 0.05 is small enough
    assert "smallest p this test can give is 0.051" in test(*given, n=38).note
    assert inspect.signature(test).parameters["n"].default == 9999


def test_a_test_is_exact_while_its_arrangements_fit() -> None:
    """Four groups have 2⁴ = 16 signs, two sides of three groups (6 over 3) = 20 arrangements."""
    four, three = np.arange(1.0, 5.0), np.arange(3.0)
    assert stats.paired_test(four, np.zeros(4), None, n=15).exact
    assert not stats.paired_test(four, np.zeros(4), None, n=14).exact
    assert stats.unpaired_test(three, three + 9, None, None, n=19).exact
    assert not stats.unpaired_test(three, three + 9, None, None, n=18).exact


@pytest.mark.parametrize("name", [*RESAMPLED, "paired_test", "unpaired_test"])
@pytest.mark.parametrize("wrong", [{"n": 0}, {"n": True}, {"n": 1.5}, {"seed": -1}, {"seed": True}])
@pytest.mark.usefixtures("unchecked")
def test_a_number_that_is_none_is_refused(name: str, wrong: dict[str, Any]) -> None:
    tests: dict[str, Callable[..., Any]] = {
        "paired_test": lambda **o: stats.paired_test(A, B, None, **o),
        "unpaired_test": lambda **o: stats.unpaired_test(A, B, None, None, **o),
    }
    with pytest.raises(StudyError, match="got"):
        {**RESAMPLED, **tests}[name](**wrong)


def test_the_ends_of_the_options_are_allowed() -> None:
    check_options(1, 1e-9)
    check_options(MOST, 1 - 1e-9)
    for n, level in ((MOST + 1, 0.95), (1, 0.0), (1, 1.0)):
        with pytest.raises(StudyError, match="n is a number of resamplings"):
            check_options(n, level)


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize("gap", [None, pd.NA])
def test_none_and_na_are_missing_values(gap: Any) -> None:
    one: Any = [1.0, gap, 3.0, 5.0]
    nan = [1.0, np.nan, 3.0, 5.0]
    other = [2.0, 2.0, 2.0, 1.0]
    calls: list[Callable[[Any], Any]] = [
        lambda given: stats.bootstrap(given, None, n=20),
        lambda given: stats.paired(given, other, None, n=20),
        lambda given: stats.paired(other, given, None, n=20),
        lambda given: stats.two_way(given, None, None),
        lambda given: stats.stratified_mean(given, list("aabb"), None, n=20),
        lambda given: stats.paired_test(given, other, None),
        lambda given: stats.holm(
            [0.1 * value if isinstance(value, float) else value for value in given]
        ).tolist(),
        lambda given: stats.krippendorff_alpha([given, other], level="nominal"),
        lambda given: stats.weighted_kappa(given, other, [1, 2, 3, 5]),
    ]
    for call in calls:
        assert str(call(one)) == str(call(nan))
    marks: Any = [1, gap, 0]
    assert stats.flips(marks, [1, 1, 1]) == stats.flips([1, np.nan, 0], [1, 1, 1])
