"""Means, orders, verdicts and grids of head rankings whose every score is given."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from interp.errors import StudyError
from interp.study import Grid
from interp.study.head_ranking.result import HeadGrid, HeadMeans, goodness, head_order
from tests.golden.parsed import Page
from tests.study.planted import samples
from tests.study.planted_heads import PlantedHeads, made, ranking

GROUPS = [f"g{i}" for i in range(20)]


def rows(table: str) -> list[list[str]]:
    """The cells of each line of a printed table."""
    lines = [line for line in table.splitlines() if line.startswith("│")]
    return [[cell.strip() for cell in line.split("│")[1:-1]] for line in lines]


def test_sums_and_counts_are_by_group_and_head() -> None:
    scores = pd.DataFrame(
        [("b", 1, 0, 4.0), ("a", 0, 1, 1.0), ("a", 0, 1, 3.0), ("b", 0, 1, np.nan), ("b", 1, 0, np.nan)],
        columns=["group", "layer", "head", "value"],
    )
    means = HeadMeans.of(scores)
    assert (means.heads, means.groups) == (((0, 1), (1, 0)), ("a", "b"))
    assert (means.sums.tolist(), means.counts.tolist()) == ([[4, 0], [0, 4]], [[2, 0], [0, 1]])
    assert means.undefined.tolist() == [1, 1]
    assert means.mean().tolist() == [[2, 4]]
    weighted = means.mean(np.array([[1.0, 0.0], [1.0, 3.0]]))
    np.testing.assert_array_equal(weighted, [[2, np.nan], [2, 4]])


def test_a_group_of_many_samples_weighs_more_in_the_mean() -> None:
    scores = pd.DataFrame(
        {"group": ["a", "a", "a", "b"], "layer": 0, "head": 0, "value": [1.0, 1.0, 1.0, 5.0]}
    )
    means = HeadMeans.of(scores)
    assert means.mean().tolist() == [[2]]
    assert means.mean(np.array([[2.0, 1.0]])).tolist() == [[11 / 7]]


@pytest.mark.parametrize(("metric", "order"), [("ar", [2, 0, 3, 1]), ("kl", [0, 3, 2, 1])])
def test_the_best_end_is_the_metrics_and_no_mean_comes_last(metric: str, order: list[int]) -> None:
    means = np.array([1.0, np.nan, 3.0, 1.0])
    assert head_order(means, metric).tolist() == order
    assert goodness(means, metric)[1] == -np.inf


@pytest.mark.parametrize(
    ("metric", "k", "said", "warns"),
    [
        ("kl", 4, "2 of the top 4 heads and 2 of all 5 are better", True),
        ("kl", 3, "2 of the top 3 heads and 2 of all 5 are better", False),
        ("kl", 50, "2 of the top 5 heads and 2 of all 5 are better", True),
        ("js", 4, "2 of the top 4 heads and 2 of all 5 are better", False),
    ],
)
def test_half_the_best_heads_have_to_beat_a_uniform_map(
    tmp_path: Path, metric: str, k: int, said: str, warns: bool
) -> None:
    values = np.array([2.0, 0.5, 1.5, 0.6, 1.0, np.nan]) * np.ones(
        (4, 1)
    )  # lower is better; a uniform map's: 1
    verdict = made(tmp_path, values, metric=metric).verdict(k)
    assert said in verdict
    assert ("favours uniform maps" in verdict) is warns


def test_a_table_has_intervals_where_groups_suffice(tmp_path: Path) -> None:
    values = np.array([0.5, 3.0, 2.0]) * np.ones((20, 1))
    result = made(tmp_path, values, groups=GROUPS, heads=2)
    assert rows(result.table(2)) == [
        ["1", "0", "1", "3.000", "[3.000, 3.000]", "+2.000", "20", "20"],
        ["2", "1", "0", "2.000", "[2.000, 2.000]", "+1.000", "20", "20"],
    ]
    assert "heads by attention ratio (higher is better)" in result.table(2)
    assert "not ranked" not in result.table(2)
    (last,) = rows(made(tmp_path, values, groups=GROUPS, heads=2, metric="kl", name="low").table(1))
    assert last[:6] == ["1", "0", "0", "0.500", "[0.500, 0.500]", "+0.500"]


def test_low_is_below_the_mean_and_high_above(tmp_path: Path) -> None:
    values = np.array([[1.0], [3.0]] * 10)
    row = made(tmp_path, values, groups=GROUPS).summary().iloc[0]
    assert 1 < row.low < row["mean"] == 2 < row.high < 3


def test_heads_without_a_score_are_neither_best_nor_counted(tmp_path: Path) -> None:
    values = np.array([1.0, np.nan, 3.0]) * np.ones((3, 1))
    result = made(tmp_path, values)
    assert (result.n_heads, result.n_unranked, len(result.best(9)), len(result.best(0))) == (3, 1, 2, 0)
    assert result.top(2) == ((0, 2), (0, 0))
    assert "1 of the top 2 heads and 1 of all 2 are better" in result.verdict(20)
    with pytest.raises(StudyError, match="k is a whole number ≥ 1; got 0"):
        result.top(0)


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize("against", ["other", 5, ["other"]])
def test_only_rankings_are_compared_with(tmp_path: Path, against: Any) -> None:
    with pytest.raises(StudyError, match="against takes results of other head rankings"):
        made(tmp_path, np.ones((2, 3))).figures(2, against=against)


@pytest.fixture
def grid(tmp_path: Path) -> HeadGrid:
    """One data set looked at best by head (1, 1), another by (0, 0); the third has no box to look at."""
    data = [
        samples(4, "a"),
        samples(4, "b", start=20),
        type(samples(1))([one.replace(boxes=[]) for one in samples(2, start=40)], "none"),
    ]
    found = Grid(ranking(), data=data[:1] + data[2:] + data[1:2]).run(tmp_path, progress=False)
    assert isinstance(found, HeadGrid)
    return found


def test_a_grid_has_the_rankings_that_measured_something(grid: HeadGrid) -> None:
    assert [result.name for result in grid.results] == ["a", "b"]
    assert grid.summary().data.unique().tolist() == ["a", "b"]
    heads = grid.tables()["heads"]
    assert heads[["data", "rank"]].to_numpy().tolist() == [[name, n] for name in "ab" for n in range(1, 7)]
    assert heads[["layer", "head"]].to_numpy().tolist()[:2] == [[1, 1], [0, 1]]
    assert [[row[0] for row in rows(part)] for part in grid.table(2).split("\n\n")] == [["1", "2"]] * 2
    assert "b: heads by" in grid.table(2).split("\n\n")[1]
    assert list(grid.figures(2)) == ["heads", "ranks"]


def test_a_grid_over_the_metric_names_it_in_a_column(tmp_path: Path) -> None:
    base = ranking(data=samples(2), indicator=PlantedHeads())
    found = Grid(base, metric=["ar", "js"]).run(tmp_path, progress=False)
    assert found.scores.metric.unique().tolist() == ["ar", "js"]
    assert [result.study.metric for result in found.results] == ["ar", "js"]
    assert list(found.scores.columns).count("metric") == 1


@pytest.fixture
def three(tmp_path: Path) -> HeadGrid:
    """Three data sets with random scores of five heads, 20 groups each."""
    rng = np.random.default_rng(0)
    results = [made(tmp_path, rng.normal(1, 1, (20, 5)), name=name) for name in "abc"]
    return HeadGrid(results[0].study, tuple(result.cells[0] for result in results), tmp_path)


def test_a_lower_level_gives_narrower_intervals(three: HeadGrid) -> None:
    for found in (three, three.results[1]):
        wide, half = found.summary(), found.summary(0.5)
        assert ((half.high - half.low) < (wide.high - wide.low)).all()
        assert half["mean"].equals(wide["mean"])


def test_a_grids_tables_and_figures_have_its_number_of_heads(three: HeadGrid, tmp_path: Path) -> None:
    parts = three.table(2).split("\n\n")
    assert [len(rows(part)) for part in parts] == [2, 2, 2]
    assert all("of the top 2 heads" in part for part in parts)
    figures = three.figures(2)
    assert list(figures) == ["heads", "ranks", "ranks-2"]
    assert [figures[name].layout.shapes[0].x1 for name in ("ranks", "ranks-2")] == [2.5, 2.5]  # pyright: ignore[reportAttributeAccessIssue]
    text = Page(three.report(tmp_path / "page.html", k=2)).text
    assert "overlap of the top 2" in text
    assert "overlap of the top 20" not in text
    assert all(f"20 samples of {name}" in text for name in "abc")
