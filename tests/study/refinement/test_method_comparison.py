"""Changes of measures, and pairs of methods, worked by hand."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from interp.data import Samples
from interp.stats import bootstrap, holm, paired_test
from interp.study import Grid, RefinementResult
from interp.study.dataframes import records
from interp.study.refinement.method_comparison import change, with_holm
from tests.study.planted import sample
from tests.study.planted_methods import Answering, Swap, named, planted_plain, refinement

__all__ = ["planted_plain"]


def rows_of(before: list[float], after: list[float], groups: str) -> pd.DataFrame:
    return pd.DataFrame({"before": before, "after": after, "group": list(groups)})


def change_of(before: list[float], after: list[float], groups: str, measure: str) -> dict[str, Any]:
    return change(rows_of(before, after, groups), measure, level=0.9, seed=3)


def test_means_are_over_the_samples_that_have_both() -> None:
    nan = float("nan")
    found = change_of([0, 1, 0, nan, 1, 1], [1, 0, 1, 1, nan, 1], "aabbcc", "correct")
    assert (found["before"], found["after"], found["difference"]) == (0.5, 0.75, 0.25)
    assert (found["n"], found["n_groups"], found["n_undefined"], found["n_ruled_out"]) == (4, 3, 2, 0)
    assert (found["wrong_to_right"], found["right_to_wrong"], found["p_flips"]) == (2, 1, 1.0)
    gaps, groups = [1, -1, 1, nan, nan, 0], list("aabbcc")
    interval = bootstrap(np.array(gaps, float), groups, level=0.9, seed=3)
    assert (found["low"], found["high"]) == (interval.low, interval.high)


def test_nothing_known_has_no_means() -> None:
    found = change_of([float("nan")] * 2, [1, 0], "ab", "correct")
    assert np.isnan([found["before"], found["after"], found["difference"], found["p"]]).all()
    assert (found["n"], found["n_undefined"], found["note"]) == (0, 2, "")


@pytest.mark.parametrize(
    ("measure", "after", "said"),
    [("correct", [1, 0], True), ("correct", [1, 1], False), ("probability", [1, 0], False)],
)
def test_only_marks_that_never_changed_say_so(measure: str, after: list[float], said: bool) -> None:
    assert ("No mark changed" in change_of([1, 0], after, "ab", measure)["note"]) is said


def test_the_smallest_p_is_that_of_the_number_of_groups() -> None:
    """Five groups, all better: of 2⁵ sign flips two are as far out, so 1/16 is the least."""
    found = change_of([0] * 5, [1] * 5, "abcde", "correct")
    assert found["p"] == found["smallest_p"] == pytest.approx(2 / 2**5)


def test_holm_is_by_measure_and_stands_after_p() -> None:
    rows = [
        {"measure": "a", "p": 0.01, "note": "x"},
        {"measure": "b", "p": 0.02, "note": "y"},
        {"measure": "a", "p": 0.04, "note": "z"},
    ]
    table = with_holm(rows)
    assert list(table.columns) == ["measure", "p", "p_holm", "note"]
    assert table.p_holm.tolist() == pytest.approx([0.02, 0.02, 0.04])
    empty = with_holm([], ("measure", "p", "note"))
    assert (list(empty.columns), len(empty)) == (["measure", "p", "p_holm", "note"], 0)


@pytest.fixture
def grid(tmp_path: Path) -> RefinementResult:
    """Two methods at two batch sizes on the same twelve samples."""
    methods = {"helps": Swap(changes=named(0, 1)), "hurts": Swap(changes=named(8))}
    base = refinement(model=Answering(wrong=named(0, 1, 2)))
    return Grid(base, method=methods, batch=[4, 6]).run(tmp_path, progress=False)


def test_pairs_differ_in_one_axis_and_name_the_rest(grid: RefinementResult) -> None:
    found = [(row["where"], row["a"], row["b"]) for row in records(grid.compare("correct"))]
    assert found == [("4", "helps", "hurts"), ("6", "helps", "hurts")]
    other = [(row["over"], row["where"], row["a"], row["b"]) for row in records(grid.compare(over="batch"))]
    assert other == [("batch", "helps", "4", "6"), ("batch", "hurts", "4", "6")]
    row = records(grid.compare("correct"))[0]
    assert (row["mean_a"], row["mean_b"]) == (pytest.approx(11 / 12), pytest.approx(8 / 12))
    assert (row["only_a_right"], row["only_b_right"]) == (3, 0)


def test_a_pair_has_the_interval_of_the_level_asked_for(tmp_path: Path) -> None:
    data = Samples([sample(number, group=f"g{number}") for number in range(24)])
    base = refinement(data=data, model=Answering(wrong=named(0, 1, 2)), batch=12, seed=5)
    methods = {"a": Swap(changes=named(0, 1)), "b": Swap(changes=named(8, 9, 10))}
    result = Grid(base, method=methods).run(tmp_path, progress=False)
    row = records(result.compare("correct", level=0.8))[0]
    gaps = np.zeros(24)
    gaps[[0, 1, 8, 9, 10]] = 1
    groups = [f"g{number}" for number in range(24)]
    expected = bootstrap(gaps, groups, level=0.8, seed=5)
    assert (row["low"], row["high"]) == (pytest.approx(expected.low), pytest.approx(expected.high))
    assert row["p"] == pytest.approx(paired_test(gaps, np.zeros(24), groups, seed=5).p)
    summary = result.summary(0.8)
    own = summary[(summary.measure == "correct") & (summary.method == "b")].iloc[0]
    lost = bootstrap([-1.0 if n in (8, 9, 10) else 0.0 for n in range(24)], groups, level=0.8, seed=5)
    assert (own.low, own.high) == (pytest.approx(lost.low), pytest.approx(lost.high))


def test_methods_on_other_samples_are_not_compared(tmp_path: Path) -> None:
    data = [Samples([sample(n + start) for n in range(4)], f"from {start}") for start in (0, 20)]
    grid = Grid(refinement(), data=data, method={"a": Swap(), "b": Swap(changes=named(1))})
    found = grid.run(tmp_path, progress=False).compare("correct")
    assert [(row["where"], row["n"], row["difference"]) for row in records(found)] == [
        ("from 0", 4, 0.25),
        ("from 20", 4, 0),
    ]
    assert found.p_holm.tolist() == pytest.approx(holm(found.p.to_numpy()).tolist())
