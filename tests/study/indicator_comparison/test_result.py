"""What a comparison's result says in its table and its sentences, and which rows it gives."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from interp.errors import StudyError
from interp.indicators import CentrePrior, RandomMap
from interp.study import Grid, IndicatorResult
from interp.study.indicator_comparison.figures import localisation_figure, pareto_figure
from interp.study.indicator_comparison.paired_tests import baselines, compare_indicators, no_baseline
from interp.study.indicator_comparison.result import _entry, mark, own_removals
from tests.study.planted_indicators import Knowing, Take, Truthful, comparison, scenes


def test_a_verdict_is_marked_where_there_is_one() -> None:
    assert [mark(one) for one in (True, False, None, float("nan"), np.True_)] == [" ✓", " ✗", "", "", " ✓"]


def test_an_entry_has_its_interval_where_groups_are_enough() -> None:
    row = {"mean": 0.5, "low": 0.25, "high": 0.75, "n_groups": 20}
    assert _entry(row, " ✓") == "0.50 [0.25, 0.75] ✓"
    assert _entry({**row, "n_groups": 19}, "") == "0.50"
    assert _entry(None, " ✓") == "–"


class Other(Take):
    """Another kind of removal."""


def test_an_indicator_is_at_home_with_its_own_kind_of_removal() -> None:
    indicators = {
        "a": Knowing(removal=Take("x")),
        "b": Knowing(removal=Other()),
        "c": Knowing(),
        "d": RandomMap(),
    }
    removals = (Take("one"), Other("two"), Take("three"))
    study = SimpleNamespace(indicators=indicators, removals=removals)
    assert own_removals(study) == [("a", "one"), ("a", "three"), ("b", "two")]


def cell(*indicators: Any, measured: bool = True) -> Any:
    return SimpleNamespace(
        study=SimpleNamespace(indicators=dict(zip("abc", indicators, strict=False))), measured=measured
    )


@pytest.mark.usefixtures("unchecked")
def test_every_measured_cell_needs_a_baseline() -> None:
    with_one, without = cell(Knowing(), RandomMap()), cell(Knowing(), Knowing())
    assert baselines(cell(CentrePrior(), Knowing(), RandomMap()).study) == ["a", "c"]

    def said(*cells: Any) -> str:
        result: Any = SimpleNamespace(cells=cells)
        return no_baseline(result)

    assert said(with_one, with_one) == ""
    assert "none can get ✓ or ✗" in said(with_one, without) == said(without, with_one)
    assert said(with_one, cell(Knowing(), measured=False)) == ""


@pytest.fixture(scope="module")
def result(tmp_path_factory: pytest.TempPathFactory) -> IndicatorResult:
    """Two cells: of 21 groups with two truths, and of 3 with one; two removals; layers chosen in three ways."""
    runs = tmp_path_factory.mktemp("runs")
    indicators = {
        "knows": Knowing(layers=3, good=2),
        "off": Knowing(shift=7, layers=1, good=0),
        "random": RandomMap(),
    }
    study = comparison(
        indicators=indicators, removals=(Take("first", flat=("s0",)), Take("second", flat=("s1", "s2"))),
        agreement=("spearman", "kendall"), layers={"knows": 2, "off": "sum"}, choices={"knows": "by hand"},
        n_faithful=None, n_checked=2, metrics=("auroc", "kl"), batch=21,
    )  # fmt: skip
    many = Grid(
        study.replace(data=scenes(21, "many"), truth=("boxes", "marker")), model={"planted": Truthful()}
    )
    few = Grid(study.replace(data=scenes(3, "few"), truth=("boxes",)), model={"planted": Truthful()})
    return IndicatorResult.join([one.run(runs, progress=False) for one in (many, few)])


def test_the_table_has_a_column_per_truth_and_marks_the_first(result: IndicatorResult) -> None:
    lines = [line for line in result.table().splitlines() if "│" in line]
    rows = {
        parts[0]: parts[1:] for line in lines for parts in [[p.strip() for p in line.strip("│").split("│")]]
    }
    assert list(rows)[-3:] == ["knows", "off", "random"]
    boxes, marker, few = rows["knows"]
    assert boxes == "1.00 [1.00, 1.00] ✓"
    assert "✓" not in marker + few
    assert "✗" not in marker + few
    assert few == "1.00"
    assert rows["random"][0].endswith("]")  # a baseline has no verdict
    said = result.table("kl")
    assert "KL" in said
    assert "1.00 [1.00, 1.00]" not in said


def test_layers_are_told_by_how_they_were_chosen(result: IndicatorResult) -> None:
    assert result.sentences() == [
        f"planted · {name}: layer of knows 2 (by hand); off (as given)." for name in ("many", "few")
    ]


def test_faithfulness_and_agreement_are_rows_of_the_summary(result: IndicatorResult) -> None:
    rows = result.faithfulness()
    assert set(rows.measure) == {"deletion", "insertion", "comprehensiveness", "sufficiency"}
    assert set(rows.against) == {"first", "second"}
    assert not rows.own.any()
    kinds = {name: result.agreement(name) for name in ("spearman", "kendall")}
    assert {name: set(own.measure) for name, own in kinds.items()} == {name: {name} for name in kinds}
    assert list(zip(kinds["kendall"].indicator, kinds["kendall"].against, strict=True))[:3] == [
        ("knows", "off"), ("knows", "random"), ("off", "random"),
    ]  # fmt: skip
    with pytest.raises(StudyError, match="measure is 'spearman' or 'kendall'; got 'pearson'"):
        result.agreement("pearson")
    assert set(result.tables()) == {"summary", "found", "faithfulness", "costs"}


def test_by_default_the_first_truth_and_removal_are_compared(result: IndicatorResult) -> None:
    """Under "first" one sample of each set has no area, under "second" two."""
    for against, n in ((None, {"many": 20, "few": 2}), ("second", {"many": 19, "few": 1})):
        found = result.compare("deletion", against)
        assert dict(zip(found.data, found.n, strict=True)) == n
        assert set(found.against) == {against or "first"}
    assert set(result.compare("auroc").against) == {"boxes"}
    marker = result.compare("auroc", "marker")
    assert set(marker.data) == {"many"}  # the other set was not scored against it
    assert list(marker)[:6] == ["model", "data", "a", "b", "measure", "against"]
    row = marker.iloc[0]
    assert (row.a, row.b) == ("knows", "off")
    assert row.difference == pytest.approx(row.mean_a - row.mean_b)
    assert row.mean_a < 0.05  # the marker has the least of the slope, but for the boxes that hold it
    half = compare_indicators(result, "auroc", level=0.5)
    wide = compare_indicators(result, "auroc")
    assert (half.high - half.low).iloc[1] < (wide.high - wide.low).iloc[1]
    with pytest.raises(StudyError, match="level is between 0 and 1"):
        result.compare("auroc", level=95)


def test_a_lower_level_gives_narrower_intervals(result: IndicatorResult) -> None:
    for wide, half in (
        (result.found(), result.found(level=0.5)),
        (result.found("kl"), result.found("kl", 0.5)),
        (result.faithfulness(), result.faithfulness(level=0.5)),
        (result.agreement(), result.agreement(level=0.5)),
        (result.compare("auroc"), result.compare("auroc", level=0.5)),
    ):
        assert ((half.high - half.low) <= (wide.high - wide.low))[wide.n_groups > 1].all()
        assert ((half.high - half.low) < (wide.high - wide.low)).any()


def test_figures_show_the_metric_that_is_asked_for(result: IndicatorResult) -> None:
    summary = result.summary()
    here = (summary.data == "many") & (summary.indicator == "off") & (summary.against == "boxes")
    means = summary[here].set_index("measure")["mean"]
    assert means["auroc"] != means["kl"]
    for given, metric in ((None, result.metrics[0]), ("kl", "kl")):
        points = localisation_figure(result, given).data[0]
        assert means[metric] in points.x
        (own,) = [dot for dot in pareto_figure(result, given).data if dot.name == "off" and dot.xaxis == "x"]
        assert own.y[0] == means[metric]


@pytest.mark.usefixtures("unchecked")
def test_a_measure_is_asked_for_by_name(result: IndicatorResult) -> None:
    wrong: Any = 3
    with pytest.raises(
        StudyError, match=r"measure is one of .*auroc.*, against a truth or a removal by name; got 3"
    ):
        result.compare(wrong)
    with pytest.raises(StudyError, match=r"against a truth or a removal by name; got 'auroc', 3"):
        result.compare("auroc", wrong)
    for measure in ("deletion", "beauty"):
        with pytest.raises(StudyError, match=f"or None for the first measured; got '{measure}'"):
            result.found(measure)
    by_kl = result.found("kl")
    assert set(by_kl.measure) == {"kl"}
    assert by_kl.finds.tolist() == [True, False, None, None]


def test_a_sample_that_is_checked_has_another_question(result: IndicatorResult) -> None:
    samples = result.samples
    assert samples.other_question.notna().tolist() == samples.checked.tolist()
    assert samples.groupby("data").checked.sum().to_dict() == {"many": 2, "few": 2}
    assert set(samples.predicted) == {"left"}
    assert samples.n_truth_tokens[samples.data == "many"].map(list).tolist() == [[2, 1]] * 21


def test_samples_without_an_area_say_why(result: IndicatorResult) -> None:
    failures = result.failures[result.failures.data == "few"]
    assert sorted(zip(failures["sample"], failures.metric, strict=True)) == [
        ("s0", "first"), ("s1", "second"), ("s2", "second"),
    ]  # fmt: skip
    assert set(failures.reason) == {
        "taking every token away lowers the target by less than 0.1: there are no areas."
    }


def test_fewer_samples_are_the_first_of_more(tmp_path: Path) -> None:
    study = comparison(data=scenes(12), indicators={"knows": Knowing()}, batch=12, n_faithful=5, n_checked=3)
    found = study.run(tmp_path, progress=False).samples
    assert (found.faithful.sum(), found.checked.sum()) == (5, 3)
    assert found.faithful[found.checked].all()
    other = study.replace(seed=1).run(tmp_path, progress=False).samples
    assert other.checked.tolist() != found.checked.tolist()


@pytest.mark.parametrize(
    "changes",
    [
        {"truth": ("marker", "boxes")}, {"metrics": ("ap",)}, {"steps": (0.1, 0.4, 0.5)}, {"erased": (0.1,)},
        {"agreement": ("kendall",)}, {"least": 0.2}, {"n_faithful": 3}, {"n_checked": 3}, {"rule": "center"},
        {"seed": 1}, {"few": {"knows": 3}}, {"layers": {"knows": 1}}, {"removals": (Take("other"),)},
    ],
)  # fmt: skip
def test_what_changes_a_number_changes_the_run(changes: dict[str, Any]) -> None:
    own = comparison(truth=("boxes", "marker"), indicators={"knows": Knowing()}, n_faithful=2, n_checked=2)
    assert own.replace(**changes).to_dict() != own.to_dict()
    assert own.replace(choices={"knows": "said otherwise"}).to_dict() == own.to_dict()
