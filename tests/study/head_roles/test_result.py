"""Tables and sets of heads from measures that are given."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest

from interp.errors import StudyError
from interp.stats import bootstrap
from interp.study.head_roles.result import HeadTable, head_name

pytestmark = pytest.mark.usefixtures("unchecked")


def rows(values: dict[tuple[str, int, int], list[float]], **labels: str) -> list[dict[str, Any]]:
    """(measure, layer, head) → the value of each sample; two samples a group."""
    return [
        {
            **labels,
            "index": i,
            "group": f"g{i // 2}",
            "layer": layer,
            "head": head,
            "measure": measure,
            "value": value,
        }
        for (measure, layer, head), own in values.items()
        for i, value in enumerate(own)
    ]


def result_of(scores: list[dict[str, Any]], axes: tuple[str, ...] = ("data",)) -> Any:
    """What a `HeadTable` computes from, without a run."""
    made: Any = SimpleNamespace(axes=axes, scores=pd.DataFrame(scores), seed=0, _summaries={})
    made._of_measure = lambda *args: HeadTable._of_measure(made, *args)
    made.summary = lambda level=0.95: HeadTable.summary(made, level)
    copied = [{"index": i, "layer": 0, "head": 0, "value": 0.5} | dict.fromkeys(axes, "a") for i in range(2)]
    made._frames = lambda table: {"copying": pd.DataFrame(copied)}[table]
    made.copying = HeadTable.copying.func(made)
    return made


def test_names_of_heads_sort_as_their_numbers() -> None:
    assert [head_name(*head) for head in ((0, 3), (14, 3), (2, 120))] == ["L00H03", "L14H03", "L02H120"]


def test_means_are_by_data_measure_and_head() -> None:
    one = rows({("entropy", 0, 0): [0.5, 1.0], ("entropy", 1, 0): [0.25, np.nan]}, data="a")
    other = rows({("entropy", 0, 0): [0.125, 0.125], ("ablation", 0, 0): [2.0, 4.0]}, data="b")
    summary = HeadTable.summary(result_of(one + other)).set_index(["data", "measure", "layer", "head"])
    assert summary["mean"].to_dict() == {
        ("a", "entropy", 0, 0): 0.75,
        ("a", "entropy", 1, 0): 0.25,
        ("b", "entropy", 0, 0): 0.125,
        ("b", "ablation", 0, 0): 3.0,
    }
    assert summary.loc[("a", "entropy", 1, 0), ["n", "n_undefined"]].tolist() == [1, 1]
    assert (summary.note.str.startswith("Only 1 group")).all()


def test_the_level_sets_the_width_of_the_intervals() -> None:
    values = np.random.default_rng(0).normal(size=60).tolist()
    made = result_of(rows({("entropy", 0, 0): values}, data="a"))
    for level in (0.95, 0.5):
        row = made.summary(level).iloc[0]
        wanted = bootstrap(np.array(values), [f"g{i // 2}" for i in range(60)], n=4000, level=level)
        width = wanted.high - wanted.low
        assert (row.low, row.high) == pytest.approx((wanted.low, wanted.high), abs=0.1 * width)
    own = made.summary()
    own["mean"] = 99.0  # a copy of what is kept
    assert made.summary()["mean"].max() < 99


def test_a_head_has_its_measures_and_its_copying() -> None:
    values = {("sink_share", 0, 0): [0.5], ("sink_share", 1, 2): [0.25], ("ablation", 0, 0): [-1.0]}
    heads = HeadTable.heads.func(result_of(rows(values, data="a")))
    assert list(heads.columns) == [
        *("data", "layer", "head", "name", "sink_share", "sink_share_low", "sink_share_high"),
        *("ablation", "ablation_low", "ablation_high", "copying"),
    ]
    assert heads.name.tolist() == ["L00H00", "L01H02"]
    assert heads.sink_share.tolist() == [0.5, 0.25]
    np.testing.assert_array_equal(heads.ablation, [-1.0, np.nan])
    np.testing.assert_array_equal(heads.copying, [0.5, np.nan])


def table(**columns: list[float]) -> Any:
    n = len(next(iter(columns.values())))
    cell = SimpleNamespace(study=SimpleNamespace(label="m · d"))
    heads = pd.DataFrame({"layer": range(n), "head": [n - i for i in range(n)], **columns})
    return SimpleNamespace(cells=(cell,), measures=tuple(columns), heads=heads)


def test_the_best_heads_skip_those_without_a_mean() -> None:
    made = table(entropy=[0.5, np.nan, 0.75, 0.25, 0.5])
    assert HeadTable.top(made, "entropy", 3).pairs == ((2, 3), (0, 5), (4, 1))  # ties keep their order
    lowest = HeadTable.top(made, "entropy", 2, lowest=True)
    assert lowest.pairs == ((3, 2), (0, 5))
    assert (lowest.name, lowest.source) == ("2 heads of lowest entropy", "head roles of m · d")
    with pytest.raises(StudyError, match=r"4 heads have a mean of entropy; got k=5\. Take at most 4"):
        HeadTable.top(made, "entropy", 5)


def test_the_highest_effect_is_no_large_negative_one() -> None:
    made = table(ablation=[-3.0, 1.0, 0.5])
    assert HeadTable.top(made, "ablation", 2).pairs == ((1, 2), (2, 1))
    assert HeadTable.top(made, "ablation", 1, lowest=True).pairs == ((0, 3),)


def test_heads_are_chosen_in_one_run_and_by_a_bool() -> None:
    made = table(entropy=[0.5])
    made.cells = made.cells * 2
    with pytest.raises(StudyError, match="heads are chosen in one run; this result has 2"):
        HeadTable.top(made, "entropy", 1)
    with pytest.raises(StudyError, match="lowest"):
        HeadTable.top(table(entropy=[0.5]), "entropy", 1, lowest="yes")  # pyright: ignore[reportArgumentType]
