from __future__ import annotations

from pathlib import Path

import pytest

from interp.data import Samples
from interp.study import Grid, Result
from interp.study.layer_choice import LayerChoice
from interp.study.layer_sweep.tables import comparisons, findings
from tests.report.hostile_samples import ATTACK, Elements
from tests.study.planted import Planted, sample, sweep

ELSEWHERE = LayerChoice("ar", {"planted": 1}, frozenset({"other"}))


@pytest.fixture(scope="module")
def result(tmp_path_factory: pytest.TempPathFactory) -> Result:
    """24 groups and 3 groups whose names try to be markup, seen by two indicators."""
    many = Samples([sample(i, boxes=[(0, 0, 20 * (1 + i % 3), 20)], group=f"g{i}") for i in range(24)])
    few = Samples([sample(50 + i, group=f"{ATTACK}{i % 3}") for i in range(9)])
    looks = {"good": Planted(), f"weak {ATTACK}": Planted((0.0, 0.5, 0.0))}
    grid = Grid(
        sweep(metrics=("ar", "kl"), batch=8),
        data={"many": many, "few": few},
        indicator=looks,
    )
    return grid.run(tmp_path_factory.mktemp("runs"), progress=False)


@pytest.fixture(scope="module")
def section(result: Result) -> str:
    return comparisons(result, ELSEWHERE)


def words(section: str) -> str:
    return " ".join(Elements(section).text.split())


def test_each_axis_has_a_table_of_its_pairs(section: str, result: Result) -> None:
    text = words(section)
    assert section.count("<h3>") == 2
    assert text.index("Data") < text.index("many − few") < text.index("Indicator") < text.index("good − weak")
    tables = [result.compare("ar", layer=1, over=axis) for axis in ("data", "indicator")]
    assert section.count("same samples, ") == 2
    assert section.count("different samples, ≥ 3 groups") == 2
    row = tables[1].iloc[0]
    assert f"+{row.difference:.2f} [{row.low:.2f}, {row.high:.2f}]" in text
    assert "&lt; 0.001" in section
    assert f"<b>{tables[0].iloc[0].p_holm:.3f}</b>" in section


def test_what_only_changes_the_computation_is_not_compared(tmp_path: Path) -> None:
    rules = Grid(sweep(data=Samples([sample(i) for i in range(4)])), rule=["touch", "center"])
    assert comparisons(rules.run(tmp_path, progress=False), ELSEWHERE) == ""


def test_different_samples_are_also_compared_at_like_box_sizes(section: str, result: Result) -> None:
    row = result.compare("ar", layer=1, over="data").iloc[0]
    text = words(section)
    assert row.n_matched > 0
    assert "at like box sizes" in text
    assert f"{row.n_matched} pairs" in text


def test_few_groups_have_their_values_and_no_interval(section: str, result: Result) -> None:
    text = words(section)
    assert "Only 3 groups: fewer than 20" in text
    assert "no claim about a population is made" in text
    assert "smallest p this test can give is 0.25" in text
    assert section.count("Per group: ") == 2 + 1
    groups = result.compare_groups("ar", layer=1, over="data")
    value = groups[groups.n_b > 0].iloc[0]
    assert f"{value.mean_b:.2f} n = 3" in text
    assert "g7" not in text  # the side with enough groups is not listed
    table = result.compare("ar", layer=1, over="indicator")
    few = table[table.n_groups < 20].iloc[0]
    assert f"{few.difference:.2f} [" not in text


def test_a_size_dependent_metric_says_so(result: Result) -> None:
    text = words(comparisons(result, LayerChoice("kl", {"planted": 1}, frozenset())))
    assert "read the difference at like box sizes" in text


def test_a_map_beats_the_baselines_by_either_kind_of_metric(result: Result) -> None:
    """The planted map lies in the boxes: a high attention ratio, and a low divergence."""
    for metric in ("ar", "kl"):
        found = findings(result, LayerChoice(metric, {"planted": 1}, frozenset({"other"})))
        own = found[found.index("many · good") :]
        assert "than <b>both</b> baselines" in own[: own.index("<table")], metric


def test_text_from_the_data_stays_text(section: str) -> None:
    elements = Elements(section)
    assert {tag for tag, _ in elements.tags} <= {
        *(
            "h2",
            "h3",
            "p",
            "b",
            "div",
            "span",
            "table",
            "thead",
            "tbody",
            "tr",
            "th",
            "td",
            "details",
            "summary",
        ),
    }
    assert ATTACK in elements.text
    assert "<script" not in section


def test_a_layer_chosen_here_makes_every_p_descriptive(result: Result, section: str) -> None:
    assert "chosen on these same samples" not in words(section)
    assert "chosen on these same samples" in words(comparisons(result, result.best_layer()))


def test_a_single_cell_has_nothing_to_compare(tmp_path: Path) -> None:
    alone = sweep(data=Samples([sample(i) for i in range(4)])).run(tmp_path, progress=False)
    assert comparisons(alone, ELSEWHERE) == ""


def test_the_page_shows_it_between_the_figures_and_the_samples(result: Result) -> None:
    page = result.report(choice=ELSEWHERE).read_text()
    assert (
        page.index("Layer by layer") < page.index("Compared with one another") < page.index("Best and worst")
    )
