"""What a benchmark's result computes: tables by benchmark and field, averages, lengths, published tables."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from interp.data import Samples
from interp.errors import StudyError
from interp.inputs.sample import Sample
from interp.methods import Plain
from interp.metrics.scorers import OpenRecall, Strict
from interp.stats import holm
from interp.study import BenchmarkResult, Grid, paper_table
from interp.study.benchmark.tables import mean_rows
from interp.study.dataframes import records, rows_of
from tests.study.benchmark.planted_benchmark import benchmark, divided
from tests.study.planted import sample
from tests.study.planted_methods import Answering, Swap, named


class Saying(Answering):
    """Says the first word of the answer."""

    def says(self, one: Sample) -> str:
        return str(one.answer).split()[0]


WRONG = named(0, 1, 2, 3, 4, 20)
CHANGES = named(0, 1, 2, 3, 7, 20)


@pytest.fixture(scope="module")
def result(tmp_path_factory: pytest.TempPathFactory) -> BenchmarkResult:
    """12 questions, 5 wrong before and 2 after; and 3 more, 1 wrong before and none after."""
    study = benchmark(model=Answering(wrong=WRONG), method=Swap(changes=CHANGES))
    few = [
        one.replace(group="patient-0") for one in divided(3, start=20)
    ]  # a name that the large set has too
    data = {"large": divided(12, "large"), "small": Samples(few, "small")}
    grid = Grid(study, data=data, method={"Plain": Plain(), "Swap": Swap(changes=CHANGES)})
    return grid.run(tmp_path_factory.mktemp("runs"), progress=False)


def test_the_figure_of_differences_is_in_points(result: BenchmarkResult) -> None:
    """Right answers rise from 7 to 10 of 12, and from 2 to 3 of 3."""
    figure = result.figures()["difference"]
    assert "points" in figure.layout.xaxis.title.text
    (trace,) = figure.data
    assert dict(zip(trace.y, trace.x, strict=True)) == pytest.approx({"large": 25.0, "small": 100 / 3})


def test_rows_are_a_table_of_a_paper(result: BenchmarkResult) -> None:
    found = result.rows().set_index("model")
    assert list(found) == ["large", "small", "micro", "macro"]
    assert found.loc["N"].tolist() == [12, 3, 15, 15]
    before, after = [7 / 12, 2 / 3, 9 / 15, (7 / 12 + 2 / 3) / 2], [10 / 12, 1, 13 / 15, (10 / 12 + 1) / 2]
    assert found.loc["planted, as it is"].tolist() == pytest.approx([100 * one for one in before])
    assert found.loc["planted, Swap"].tolist() == pytest.approx([100 * one for one in after])


def test_averages_say_their_weights_and_sizes(result: BenchmarkResult) -> None:
    found = result.averages(weights={"large": 1, "small": 3})
    own = {row["average"]: row for row in records(rows_of(found, {"method": "Swap"}))}
    assert own["micro"]["difference"] == pytest.approx(4 / 15)
    assert own["macro"]["difference"] == pytest.approx((3 / 12 + 1 / 3) / 2)
    assert own["weighted"]["after"] == pytest.approx((10 / 12 + 3 * 1) / 4)
    assert {row["strata"] for row in own.values()} == {"large 12, small 3"}
    assert [own["macro"][name] for name in ("n", "n_strata", "n_groups")] == [15, 2, 7]
    assert own["macro"]["low"] < own["macro"]["difference"] < own["macro"]["high"]
    plain = records(rows_of(found, {"method": "Plain"}))
    assert all(row["difference"] == row["low"] == row["high"] == 0 for row in plain)


@pytest.mark.parametrize("weights", [{"large": 1}, {"large": 0, "small": 0}, {"large": 1, "small": -1}])
def test_weights_that_do_not_fit_are_refused(result: BenchmarkResult, weights: dict[str, float]) -> None:
    with pytest.raises(StudyError, match=r"weights give each stratum, large, small, a number ≥ 0"):
        result.averages(weights=weights)


def test_modalities_have_their_own_lines_and_one_family(result: BenchmarkResult) -> None:
    assert result.strata() == ("modality",)  # every question is closed, so the kind divides nothing
    found = rows_of(result.by("modality"), {"data": "large", "method": "Swap"}).set_index("modality")
    assert found.n.to_dict() == {"CT": 8, "MR": 4}
    assert found.before.to_dict() == pytest.approx({"CT": 4 / 8, "MR": 3 / 4})
    assert found.after.to_dict() == pytest.approx({"CT": 6 / 8, "MR": 1})
    every = result.by("modality")
    np.testing.assert_allclose(every.p_holm, holm(every.p))
    assert every[every.method == "Plain"].p.isna().all()
    rows = result.rows("modality").set_index("model")
    assert rows.loc["N", ["CT", "MR"]].tolist() == [10, 5]  # of both data sets
    assert rows.loc["planted, as it is", ["CT", "MR"]].tolist() == pytest.approx([50, 80])


def test_a_field_that_no_sample_has_is_refused(result: BenchmarkResult) -> None:
    with pytest.raises(StudyError, match=r"no sample has a field 'scanner'.*modality"):
        result.by("scanner")
    with pytest.raises(StudyError, match=r"measure is one of strict; got 'bleu'"):
        result.averages(measure="bleu")


def test_lengths_count_words_and_answers_that_did_not_come(tmp_path: Path) -> None:
    found = benchmark(data=divided(4)).run(tmp_path, progress=False)
    found.samples.loc[0, "text_after"], found.samples.loc[1, "text_after"] = "two words", None
    before, after = records(found.lengths())
    assert (before["mean_words"], before["n_missing"], before["limit"]) == (1, 0, 4)
    assert (after["mean_words"], after["max_words"], after["n_missing"]) == (pytest.approx(4 / 3), 2, 1)


def test_the_page_shows_flips_and_the_published_table(result: BenchmarkResult, tmp_path: Path) -> None:
    text = result.report(tmp_path / "page.html", beside=["1"]).read_text()
    words = " ".join(text.split())
    assert words.count("<img") == 5  # three of four gained, one lost; and one gained of the small set
    assert "Published, table 1" in words
    assert "65.3 fits neither" in words
    assert "nothing of it was measured here" in words
    assert "All flips: 6" in words
    assert "planted answered 15 questions of large, small, greedily, with at most 4 new tokens" in words
    assert "is the accuracy on these questions, and does it change with Swap?" in words
    assert '"figure-by-modality"' in text
    with pytest.raises(StudyError, match=r"tables of answers are 1, 2, 3, 4k, 4p, E.3, F.4, G.5; got '9'"):
        result.report(tmp_path / "page.html", beside=["9"])


def test_the_page_of_answers_without_marks_says_so(tmp_path: Path) -> None:
    mute = benchmark(data=Samples([sample(0, answer=None, question="<b>Who?</b>")])).run(
        tmp_path, progress=False
    )
    text = mute.report(tmp_path / "page.html").read_text()
    assert "No sample has an answer to compare with." in text
    assert mute.table()


def test_exported_tables_are_those_of_the_result(result: BenchmarkResult, tmp_path: Path) -> None:
    names = {path.name for path in result.export(tmp_path, formats=())}
    assert {"rows.csv", "averages.tex", "by-modality.csv", "flips.csv", "lengths.csv", "summary.csv"} <= names


def test_flips_and_means_of_several_scorers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Planted words score 1 or 0 by both scorers; recall is no mark, so it has no flips."""
    study = benchmark(data=divided(4), method=Swap(changes=named(0, 1, 2)), scorer=(Strict(), OpenRecall()))
    found = study.run(tmp_path, progress=False)
    assert found.measures == ("strict", "recall")
    assert found.summary().wrong_to_right.tolist()[:1] == [0]
    assert found.summary().right_to_wrong.isna().tolist() == [False, True]
    with pytest.raises(StudyError, match="recall gives a share"):
        found.flips("recall")
    pd.testing.assert_frame_equal(mean_rows(found), found.rows())  # both are 100 and 25
    monkeypatch.setattr("interp.study.benchmark.page.MANY_FLIPS", 2)
    text = found.report(tmp_path / "page.html").read_text()
    assert "Not listed here: 1 flip. All are in result.flips()" in text


@dataclass(frozen=True)
class Shared(Strict):
    """Right answers share their mark, as options of equal log-probability do."""

    name: str = "shared"

    def scores(self, texts: Any, samples: Any, prompt: Any) -> list[float | None]:
        return [None if one is None else one / 2 for one in super().scores(texts, samples, prompt)]


def test_shares_of_right_have_no_flips(tmp_path: Path) -> None:
    study = benchmark(data=divided(4), method=Swap(changes=named(1)), scorer=Shared())
    found = study.run(tmp_path, progress=False)
    assert found.summary()[["before", "after"]].iloc[0].tolist() == [0.5, 0.375]
    assert found.summary().p_flips.isna().all()
    assert "flips" not in found.tables()
    assert "What flipped" not in found.report(tmp_path / "page.html").read_text()


def test_a_mean_of_scorers_is_of_their_tables(tmp_path: Path) -> None:
    words = Samples([sample(0, answer="left lung"), sample(1, answer="right")], "words")
    study = benchmark(data=words, model=Saying(), method=Plain(), scorer=(Strict(), OpenRecall()))
    found = study.run(tmp_path, progress=False)
    assert found.rows()["micro"].tolist() == [2, 50]
    assert found.rows(measure="recall")["micro"].tolist() == [2, 75]  # half of "left lung", all of "right"
    assert mean_rows(found)["micro"].tolist() == [2, 62.5]


def test_a_field_and_an_average_are_of_the_measure_asked_for(tmp_path: Path) -> None:
    words = [
        sample(i, answer=answer, meta={"modality": kind})
        for i, (answer, kind) in enumerate((("left lung", "CT"), ("right", "MR")))
    ]
    scorers = (Strict(), OpenRecall())
    found = benchmark(data=words, model=Saying(), method=Plain(), scorer=scorers).run(
        tmp_path, progress=False
    )
    for measure, expected in ((None, [0, 1]), ("strict", [0, 1]), ("recall", [0.5, 1])):
        assert found.by("modality", measure).before.tolist() == expected
        assert found.rows("modality", measure)[["CT", "MR"]].iloc[1].tolist() == [100 * x for x in expected]
        averages = found.averages("modality", measure).set_index("average").before
        assert averages.to_dict() == {"micro": sum(expected) / 2, "macro": sum(expected) / 2}
    assert mean_rows(found, "modality")[["CT", "MR"]].iloc[1].tolist() == [25, 100]


def test_a_lower_level_gives_narrower_intervals(result: BenchmarkResult) -> None:
    for wide, half in (
        (result.by("modality"), result.by("modality", level=0.5)),
        (result.averages(), result.averages(level=0.5)),
        (result.averages("modality"), result.averages("modality", level=0.5)),
    ):
        own = wide.method == "Swap"
        assert ((half.high - half.low) < (wide.high - wide.low))[own].any()


def test_the_studys_seed_decides_the_resamplings(result: BenchmarkResult) -> None:
    rng = np.random.default_rng(0)
    drawn = result.pairs.assign(before=rng.random(len(result.pairs)), after=rng.random(len(result.pairs)))
    found = []
    for seed in (0, 1):
        cells = tuple(replace(cell, study=cell.study.replace(seed=seed)) for cell in result.cells)
        seeded = BenchmarkResult(result.study, cells, result.folder)
        vars(seeded).update(pairs=drawn, _marks=frozenset())  # shares, so that nothing flips
        found.append([seeded.summary(), seeded.by("modality"), seeded.averages()])
    for one, two in zip(*found, strict=True):
        assert one.difference.equals(two.difference)
        known = one.low.notna() & (one.n_groups > 5)  # of few groups the ends are often the same
        assert known.any()
        assert ((one.low != two.low) | (one.high != two.high))[known].all()


def weighted(values: list[float], sizes: list[int]) -> float:
    return sum(value * size for value, size in zip(values, sizes, strict=True)) / sum(sizes)


@pytest.mark.parametrize(
    ("name", "row", "sizes"),
    [
        ("1", "VGRefine (Ours)", [1299, 2781, 3370, 2000]),
        ("3", "VGRefine (Ours)", [15808, 5398, 31877, 4646, 6679, 5680, 7916, 10991]),
        ("3", "HuatuoGPT-V-7B", [15808, 5398, 31877, 4646, 6679, 5680, 7916, 10991]),
    ],
)
def test_published_averages_follow_from_their_rows(name: str, row: str, sizes: list[int]) -> None:
    frame = paper_table(name).frame.set_index("Model")
    values: list[Any] = frame.loc[row].tolist()
    assert weighted(values[:-1], sizes) == pytest.approx(values[-1], abs=0.051)


def test_published_tables_are_whole() -> None:
    shapes = {name: paper_table(name).frame.shape for name in ("1", "2", "3", "E.3", "F.4", "G.5")}
    assert shapes == {"1": (8, 6), "2": (9, 7), "3": (9, 10), "E.3": (7, 13), "F.4": (5, 6), "G.5": (29, 8)}
    larger = paper_table("G.5").frame
    assert larger.query("Benchmark == 'OmniMedVQA' and Subset == 'CT'").iloc[0, 3:].tolist() == [
        50.6, 56.9, 62.5, 69.7, 71.7,
    ]  # fmt: skip
    assert "PMC-VQA" in paper_table("G.5").note
    assert "–" in paper_table("G.5").text()
