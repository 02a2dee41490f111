from __future__ import annotations

import html
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from interp.data import Samples
from interp.report.gallery import crop, hidden_tokens, picture
from interp.report.tables import interval
from interp.study import Grid, RefinementResult
from interp.study.refinement.page import _verdict, figures, sample_card, shared_samples
from interp.study.refinement.tables import difference_hover, pairs_card, per_group
from tests.golden.parsed import Page
from tests.report.hostile_samples import ATTACK, Elements
from tests.study.planted import sample, samples, token_map
from tests.study.planted_methods import Answering, Looking, Said, Swap, named, planted_plain, refinement

__all__ = ["planted_plain"]


def hostile() -> Samples:
    """Samples whose every text tries to be markup; 23 groups, so that there are intervals."""
    data = [sample(number, group=f"{ATTACK}{number}") for number in range(23)]
    data[4] = data[4].replace(question=ATTACK, id=f"id {ATTACK}", answer=None)
    return Samples(data)


@pytest.fixture(scope="module")
def result(tmp_path_factory: pytest.TempPathFactory) -> RefinementResult:
    study = refinement(
        data=hostile(), model=Answering(wrong=named(0, 1, 2, 3)), method=Looking(), read_layer=1, batch=8
    )
    methods = {
        f"helps {ATTACK}": Looking(changes=named(0, 1, 2)),
        "hurts": Swap(changes=tuple(f"s{number}" for number in range(8, 18)), fails=named(20)),
    }
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("interp.study.refinement.task.PLAIN", Said())
        return Grid(study, method=methods).run(tmp_path_factory.mktemp("runs"), progress=False)


@pytest.fixture(scope="module")
def page(result: RefinementResult) -> str:
    return result.report().read_text()


def test_text_from_the_data_stays_text(page: str) -> None:
    elements = Elements(page)
    assert ATTACK in elements.text
    sources = [attributes.get("src") or "" for tag, attributes in elements.tags if tag == "img"]
    assert sources
    assert all(source.startswith("data:image/webp;base64,") for source in sources)
    assert sum(tag == "script" for tag, _ in elements.tags) == 3
    figures = json.loads(page.split('id="figures">')[1].split("</script>")[0])
    assert set(figures) == {"figure-difference"}
    assert "<script>alert" not in json.dumps(figures)


def test_the_page_loads_nothing_from_elsewhere(page: str) -> None:
    elements = Elements(page)
    assert not {tag for tag, _ in elements.tags} & {"link", "iframe", "object", "embed", "base", "form"}
    for _, attributes in elements.tags:
        for name in ("src", "href", "action", "data", "poster", "srcset"):
            assert (attributes.get(name) or "data:").startswith(("data:", "#"))
    assert not re.search(r"@import|url\(", elements.code)


def test_the_headlines_say_what_changed_whatever_its_sign(page: str) -> None:
    """Of 22 with an answer 4 are wrong before; one method mends 3, the other spoils 10 of the 21 it measured."""
    text = re.sub(r"\s+", " ", Elements(page).text)
    assert "81.8 → 95.5" in text
    assert "Not distinguishable from no change: the interval contains zero. 3 wrong → right" in text
    assert "3 wrong → right, 0 right → wrong; McNemar, exact: p 0.250" in text
    assert "81.0 → 33.3" in text
    assert "Less often right: the interval lies below zero. 0 wrong → right, 10 right → wrong" in text
    assert "Without an answer: 1." in text
    assert "ImageTokenMismatch: the prompt holds 19 image tokens" in text
    assert "Right: the whole generated text is the sample's answer" in text


def test_an_interval_that_rests_on_five_flips_proves_nothing(tmp_path: Path) -> None:
    """Five flips of 24, all one way: a bootstrap hardly ever misses all five, but a fair coin does this in 1 of 16."""
    data = Samples([sample(number, group=f"g{number}") for number in range(24)])
    study = refinement(
        data=data, model=Answering(wrong=named(*range(5))), method=Swap(changes=named(*range(5))), batch=8
    )
    text = re.sub(r"\s+", " ", Elements(study.run(tmp_path, progress=False).report().read_text()).text)
    assert "More often right: the interval lies above zero. But the sign test by group gives p 0.06" in text


def test_costs_stand_beside_the_plain_models(page: str) -> None:
    text = Elements(page).text
    assert "Cost, times the plain model's: 3.00 in seconds, 2.50 in passes, 1.50 in token positions." in text


def test_drawn_samples_are_measured_by_all_and_drawn_by_seed(result: RefinementResult) -> None:
    first = shared_samples(result.cells, 6, 0)
    assert first == shared_samples(result.cells, 6, 0)
    assert first != shared_samples(result.cells, 6, 1)
    assert sorted(set(first)) == first
    everything = shared_samples(result.cells, 100, 0)
    assert len(everything) == 22
    assert 20 not in everything  # failed under one method


def test_a_card_shows_maps_crop_and_both_answers(result: RefinementResult) -> None:
    card = sample_card(result.cells[0], 2)
    captions = [html.unescape(one) for one in re.findall(r"<figcaption[^>]*>(.*?)</figcaption>", card)]
    assert captions == [
        *("image and box", "attention, before", "attention, after", "the method's map"),
        *("hidden: dark (15 of 20)", "where it crops", "the crop"),
    ]
    text = Elements(card).text
    assert "answer left · right ✗ (8.0 %) → left ✓ (60.0 %)" in text
    assert "attention ratio 1.00 → 0.91" in text
    assert "attention, after" not in sample_card(result.cells[1], 2)  # its edits cannot be repeated


def test_hidden_tokens_are_dark_and_kept_ones_as_they_were() -> None:
    given = sample(0, image=np.full((80, 100, 3), 200, np.uint8))
    kept = np.arange(20) % 5 < 2  # the two left columns of five
    shown = np.asarray(hidden_tokens(given, token_map(given), kept))
    assert shown.shape == np.asarray(picture(given)).shape
    columns = shown.mean(axis=(0, 2))
    np.testing.assert_allclose(columns[:118], 200, atol=1)
    np.testing.assert_allclose(columns[122:], 200 * 0.22, atol=1)


def test_few_groups_are_shown_one_by_one(tmp_path: Path) -> None:
    study = refinement(data=samples(6), model=Answering(wrong=named(0)), method=Swap(changes=named(0)))
    text = re.sub(r"\s+", " ", Elements(study.run(tmp_path, progress=False).report().read_text()).text)
    assert "Difference +16.7 points." in text
    assert "Too few groups for a claim beyond these samples." in text
    assert "no claim about a population is made" in text
    assert "50.0 → 100.0 (n = 2)" in text  # patient-0


def test_a_page_of_a_trained_toy_says_it_is_not_the_papers(tmp_path: Path) -> None:
    from interp.study import ModelSpec

    words = "These are not the paper's numbers"
    result = refinement(data=samples(2)).run(tmp_path, progress=False)
    assert words not in Elements(result.report().read_text()).text
    object.__setattr__(result.cells[0].study, "model", ModelSpec("organism"))
    assert words in Elements(result.report().read_text()).text


@pytest.fixture
def grid(tmp_path: Path) -> RefinementResult:
    """Two numbers of heads × three percentiles; every cell's accuracy change is its own."""
    methods = {
        f"k = {k}, p = {p}": Swap(
            changes=named(*range(k + place)), strength=float(p), heads=tuple((0, h) for h in range(k))
        )
        for k in (1, 4)
        for place, p in enumerate((30, 50, 70))
    }
    study = refinement(data=Samples([sample(n, group=f"g{n}") for n in range(20)]), batch=10)
    return Grid(study, method=methods).run(tmp_path, progress=False)


def test_two_parameters_make_a_heat_map_with_intervals(grid: RefinementResult) -> None:
    parameters = grid.parameters
    assert list(parameters.columns[3:]) == ["changes", "k", "strength"]
    # `changes` stands for what the numbers do; the methods of a real table differ in the two numbers alone
    object.__setattr__(grid, "parameters", parameters.drop(columns="changes"))
    shown: dict[str, Any] = figures(grid)
    assert set(shown) == {"heat"}
    heat = shown["heat"].data[0]
    assert (list(heat.x), list(heat.y)) == (["30", "50", "70"], ["1", "4"])
    np.testing.assert_allclose(heat.z, [[-5, -10, -15], [-20, -25, -30]])
    summary = grid.summary().query("measure == 'correct' and method == 'k = 4, p = 50'").iloc[0]
    ends = f"{interval(100 * summary.low, 100 * summary.high, 1)}"
    assert heat.customdata[1][1] == f"−25.0 points {ends} · 20 samples, 20 groups"
    low, high = shown["heat"].layout.coloraxis.cmin, shown["heat"].layout.coloraxis.cmax
    assert low == -high == -30


def test_the_difference_figure_shows_groups_where_they_are_few(tmp_path: Path) -> None:
    methods = {"a": Swap(changes=named(0)), "b": Swap(changes=named(1, 2, 3))}
    result = Grid(refinement(data=samples(4)), method=methods).run(tmp_path, progress=False)
    points, groups = figures(result)["difference"].data
    assert points.x.tolist() == [-25, -75]
    assert np.all(points.error_x.array == 0)  # no interval
    assert groups.x.tolist() == [-50, 0, -50, -100]


def test_a_page_without_answers_claims_nothing(tmp_path: Path) -> None:
    data = Samples([sample(number, answer=None) for number in range(3)])
    text = Elements(refinement(data=data).run(tmp_path, progress=False).report().read_text()).text
    assert "No sample has an answer to compare with." in text
    assert "no answer given" in text


def test_a_small_crop_is_shown_enlarged() -> None:
    given = sample(0)
    shown = crop(given, (10, 10, 60, 50))
    assert shown.size == (300, 240)
    expected = given.load().convert("RGB").crop((10, 10, 60, 50)).resize((300, 240), Image.Resampling.LANCZOS)
    assert np.array_equal(np.asarray(shown), np.asarray(expected))


SURE = {
    "difference": 0.1,
    "wrong_to_right": 9.0,
    "right_to_wrong": 2.0,
    "p_flips": 0.065,
    "n_groups": 20,
    "p": 0.01,
}


@pytest.mark.parametrize(
    ("ends", "more", "said"),
    [
        ((0.02, 0.18), {}, "More often right: the interval lies above zero. 9 wrong"),
        ((-0.18, -0.02), {}, "Less often right: the interval lies below zero. 9 wrong"),
        ((0.0, 0.18), {}, "Not distinguishable from no change"),
        ((-0.18, 0.0), {}, "Not distinguishable from no change"),
        (
            (0.02, 0.18),
            {"n_groups": 19},
            "9 wrong → right, 2 right → wrong; McNemar, exact: p 0.065. Too few",
        ),
        ((0.02, 0.18), {"p": 0.06}, "above zero. But the sign test by group gives p 0.060: few answers"),
        ((0.02, 0.18), {"p": 0.05}, "above zero. 9 wrong"),
    ],
)
def test_a_verdict_is_of_the_interval(ends: tuple[float, float], more: dict[str, Any], said: str) -> None:
    low, high = ends
    assert said in Elements(str(_verdict({**SURE, "low": low, "high": high, **more}))).text


def test_a_difference_says_how_many_samples_and_groups() -> None:
    row = {"difference": 0.025, "low": -0.01, "high": 0.062, "n": 80, "n_groups": 40, "note": ""}
    assert difference_hover(row) == "+2.5 points [−1.0, 6.2] · 80 samples, 40 groups"
    few = difference_hover({**row, "n_groups": 3, "note": "Only 3 groups."})
    assert few.endswith("· 80 samples, 3 groups, too few for an interval")


def test_pairs_beyond_what_a_reader_can_use_are_not_shown(tmp_path: Path) -> None:
    def card_of(n: int) -> str:
        methods = {f"m{place}": Swap(changes=named(place)) for place in range(n)}
        result = Grid(refinement(data=samples(2)), method=methods).run(tmp_path / str(n), progress=False)
        return str(pairs_card(result))

    assert "Methods against one another: 3 pairs" in card_of(3)
    assert card_of(1) == ""


def test_many_groups_are_lines_and_few_are_columns(tmp_path: Path) -> None:
    def tables(n: int) -> list[list[str]]:
        data = Samples([sample(number, group=f"g{number}") for number in range(n)])
        result = refinement(data=data, batch=4, method=Swap(changes=named(1))).run(
            tmp_path / str(n), progress=False
        )
        path = tmp_path / f"{n}.html"
        path.write_text(f"<main>{per_group(result)}</main>")
        (table,) = Page(path).tables
        return [table.heads, *(row.cells for row in table.rows)]

    few, many = tables(10), tables(11)
    assert few[0] == ["accuracy, %", *(f"g{number}" for number in range(10))]
    assert few[1][1:3] == ["100.0 → 100.0 (n = 1)", "100.0 → 0.0 (n = 1)"]
    assert many[0] == ["run", "group", "accuracy, %"]
    assert [row[1:] for row in many[1:3]] == [["g0", "100.0 → 100.0 (n = 1)"], ["g1", "100.0 → 0.0 (n = 1)"]]
    assert len(many) == 12
