from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from interp.data import Samples
from interp.errors import StudyError
from interp.study import ModelSpec
from interp.study.head_ranking.page import heat_maps, rank_scatter, ranking_figures
from interp.study.head_ranking.result import HeadResult
from tests.golden.parsed import Page
from tests.report.hostile_samples import ATTACK, Elements, hostile
from tests.study.planted import sample, samples
from tests.study.planted_heads import GAIN, PlantedHeads, made, ranking


@pytest.fixture(scope="module")
def result(tmp_path_factory: pytest.TempPathFactory) -> HeadResult:
    """Head (1, 1) is silent, so it has no score."""
    study = ranking(indicator=PlantedHeads(silent=((1, 1),)))
    return study.run(tmp_path_factory.mktemp("runs"), progress=False)


def test_a_cell_lies_at_its_layer_and_head(result: HeadResult) -> None:
    figure = heat_maps([result], k=2)
    heat, marks = figure.data
    assert (figure.layout.xaxis.range, figure.layout.yaxis.range) == ((-0.5, 2.5), (-0.5, 1.5))
    assert (list(heat.x), list(heat.y)) == ([0, 1, 2], [0, 1])
    for layer, row in enumerate(GAIN):
        for head, gain in enumerate(row):
            found = heat.z[head][layer]
            if (layer, head) == (1, 1):
                assert np.isnan(found)
            else:
                assert found == pytest.approx((1 + gain) * 20 / (20 + 2 * gain))
    assert heat.customdata[1][0][2] == 1  # the rank of layer 0, head 1
    assert list(zip(marks.x, marks.y, strict=True)) == [(0, 1), (2, 0)]  # gain 3 each, in order
    assert marks.name == "top 2"


def test_data_sets_share_a_scale_on_which_light_is_good(tmp_path: Path) -> None:
    values = np.arange(100.0)[None] + np.zeros((3, 1))
    for metric, ends, reverse in (("ar", (3.98, 199.0), False), ("kl", (0.0, 195.02), True)):
        a = made(tmp_path / metric, values, name="a", metric=metric, heads=10)
        b = made(tmp_path / metric, values + 100, name="b", metric=metric, heads=10)
        figure = heat_maps([a, b], k=1)
        axis = figure.layout.coloraxis
        assert (axis.cmin, axis.cmax) == pytest.approx(ends, abs=0.01)
        assert axis.reversescale is reverse
        assert [trace.coloraxis for trace in figure.data if trace.type == "heatmap"] == ["coloraxis"] * 2
        cut = axis.colorbar.ticktext[-1 if reverse else 0]
        assert cut.startswith("≥" if reverse else "≤")
        assert [title.text for title in figure.layout.annotations] == ["a", "b"]
        best = [(trace.x[0], trace.y[0]) for trace in figure.data if trace.type == "scatter"]
        assert best == [(0, 0) if reverse else (9, 9)] * 2
    with pytest.raises(StudyError, match="one colour scale needs one metric; got ar, kl"):
        heat_maps([made(tmp_path / "ar", values, name="a", heads=10), a])


def test_the_scatter_sets_rank_against_rank(result: HeadResult, tmp_path: Path) -> None:
    other = ranking(
        data=samples(6, "other"), indicator=PlantedHeads(gain=((3.0, 0.0), (7.0, 1.0), (0.5, 2.0)))
    )
    figure = rank_scatter(result, other.run(tmp_path, progress=False), k=2)
    points = figure.data[0]
    where = {tuple(pair): (x, y) for pair, x, y in zip(points.customdata, points.x, points.y, strict=True)}
    assert where == {(0, 1): (1, 6), (2, 0): (2, 5), (1, 0): (3, 1), (2, 1): (4, 3), (0, 0): (5, 2)}
    assert (1, 1) not in where  # it has no rank in one of them
    square = figure.layout.shapes[0]
    assert (square.x1, square.y1) == (2.5, 2.5)
    assert figure.layout.xaxis.title.text == "rank in planted (1 = best)"
    assert figure.layout.yaxis.title.text == "rank in other (1 = best)"


def test_there_is_a_scatter_for_each_other_result(result: HeadResult) -> None:
    assert list(ranking_figures([result])) == ["heads"]
    assert list(ranking_figures([result, result, result])) == ["heads", "ranks", "ranks-2"]
    assert list(result.figures(2, against=result)) == ["heads", "ranks"]


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> str:
    out = tmp_path_factory.mktemp("runs")
    study = ranking(data=hostile(), batch=8, model=ranking().model)
    first = study.run(out, progress=False)
    few = study.replace(data=samples(6, f"few {ATTACK}", start=60)).run(out, progress=False)
    return first.report(out / "deep" / "report.html", k=2, against=[few]).read_text()


def test_text_from_the_data_stays_text_and_nothing_is_loaded(page: str) -> None:
    elements = Elements(page)
    assert ATTACK in elements.text
    assert "alert('x')</script>" not in page
    assert sum(tag == "script" for tag, _ in elements.tags) == 3
    assert not {tag for tag, _ in elements.tags} & {"link", "iframe", "img", "object", "base", "form"}
    assert "evil.example" not in "".join(str(attributes) for _, attributes in elements.tags)
    for name in ("figure-heads", "figure-ranks"):
        assert f'id="{name}"' in page
        assert f'"{name}": ' in page


def test_the_page_says_what_was_measured_and_how_far_it_agrees(page: str) -> None:
    text = " ".join(Elements(page).text.split())
    assert "Which heads look at what the question is about? Are they the same on samples and on few" in text
    assert "22 samples of samples, 6 samples of few" in text
    assert "attention ratio (higher is better)" in text
    assert "rank correlation over 6 heads1.00 no interval: too few groups" in text
    assert "overlap of the top 2" in text
    assert "By chance 0.33: 2 of 6 heads." in text
    assert "Only 3 groups: fewer than 20" in text
    assert "Each group alone against all of the other data set:" in text
    assert "patient-30" in text
    assert "A uniform map scores 1.000: 2 of the top 2 heads and 5 of all 6 are better." in text
    assert "1 of 23 samples left out" in text
    assert "SampleError: the sample has no box" in text
    assert "fingerprint ffffffffffffffff" in text
    assert "a uniform map scores better" in text
    assert "score no better than a uniform map" not in text
    assert "model organism" not in text


def test_the_page_warns_of_uniform_maps_and_of_organisms(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dull = PlantedHeads(gain=((-0.9, -0.8), (-0.5, 2.0), (-0.95, 0.0)))
    data = [sample(number) for number in range(4)]
    result = ranking(indicator=dull, metric="kl", data=data).run(tmp_path, progress=False)
    monkeypatch.setitem(result.study.__dict__, "model", ModelSpec("organism"))
    text = " ".join(Elements(result.report(k=3).read_text()).text.split())
    assert "At least half of the top 3 heads of samples score no better than a uniform map" in text
    assert "These are not the paper's numbers" in text
    assert "Agreement" not in text
    assert (result.folder / "report.html").exists()


def test_no_head_above_a_uniform_map_is_said_before_the_top(tmp_path: Path) -> None:
    said = "no head is better than a uniform map, so this order shows which heads are the least bad"
    bad, good = (made(tmp_path, np.full((24, 8), value), name=f"at-{value}") for value in (0.5, 2.0))
    table = bad.table(2)
    assert table.startswith(f"planted · at-0.5: {said}")
    assert said not in good.table(2)
    pages = [one.report(tmp_path / "page.html", k=2).read_text() for one in (bad, good)]
    assert pages[0].index(said) < pages[0].index("The top 2")
    assert said not in pages[1]


@pytest.mark.parametrize("split", ["validation", None])
def test_a_split_is_named_only_where_the_data_have_one(split: str | None, tmp_path: Path) -> None:
    data = Samples([sample(i, meta={"split": split} if split else {}) for i in range(4)], "planted")
    page = ranking(data=data).run(tmp_path, progress=False).report().read_text()
    assert ("4 validation samples of planted" in page) == (split is not None)
    assert ("4 samples of planted" in page) == (split is None)


@pytest.mark.parametrize(("scores", "warns"), [((2.0, 3.0), False), ((2.0, 0.5), True)])
def test_the_warning_is_of_the_heads_that_have_a_rank(
    scores: tuple[float, float], warns: bool, tmp_path: Path
) -> None:
    """Two of eight heads have a score, so a top 20 is these two."""
    values = np.full((4, 8), np.nan)
    values[:, [1, 6]] = scores
    page = made(tmp_path, values).report(tmp_path / "page.html", k=20).read_text()
    assert ("score no better than a uniform map. This ranking" in " ".join(page.split())) is warns


def test_a_star_marks_heads_at_the_top_of_every_data_set(tmp_path: Path) -> None:
    values = np.array([5.0, 4.0, 3.0, 2.0]) * np.ones((20, 1))
    groups = [f"g{i}" for i in range(20)]
    a = made(tmp_path, values, name="a", groups=groups)
    b = made(
        tmp_path, values[:, [0, 3, 2, 1]], name="b", groups=groups
    )  # heads 0 and 2 again, but 3 before 1
    page = Page(a.report(tmp_path / "page.html", k=2, against=[b]))
    ranks = {name: page.table("^ rank$", "gain", near=name).column("^ rank$") for name in "ab"}
    heads = {name: page.table("^ rank$", "gain", near=name).column("^ head$") for name in "ab"}
    assert ranks == {"a": ["1 *", "2"], "b": ["1 *", "2"]}
    assert heads == {"a": ["0", "1"], "b": ["0", "3"]}
    row = page.table("^ rank$", "gain", near="b").records(mean="mean", ends="95", gain="gain", n="samples")[1]
    assert list(row.values())[1:] == ["4.00", "[4.00, 4.00]", "+3.00", "20"]
