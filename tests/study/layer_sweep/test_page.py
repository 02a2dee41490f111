from __future__ import annotations

import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest

from interp.data import Samples
from interp.study import Grid, ModelSpec, Result, choose_layer
from interp.study.layer_choice import LayerChoice
from interp.study.layer_sweep.page import (
    _basis,
    _context,
    _lesion_table,
    _ranked,
    _verdict,
    comparisons,
    findings,
)
from tests.golden.parsed import Page
from tests.report.hostile_samples import ATTACK, Elements, hostile
from tests.study.planted import Planted, sample, samples, sweep


@pytest.fixture(scope="module")
def result(tmp_path_factory: pytest.TempPathFactory) -> Result:
    study = sweep(batch=8, data=hostile(), metrics=("ar", "js"))
    grid = Grid(study, data={f"natural {ATTACK}": hostile(), "medical": samples(6, start=60)})
    return grid.run(tmp_path_factory.mktemp("runs"), progress=False)


@pytest.fixture(scope="module")
def page(result: Result) -> str:
    return result.report().read_text()


def test_text_from_the_data_stays_text(page: str) -> None:
    elements = Elements(page)
    scripts = [attributes for tag, attributes in elements.tags if tag == "script"]
    assert len(scripts) == 3  # Plotly, the figures' numbers, and the lines that draw them
    assert ATTACK in elements.text
    assert "alert('x')</script>" not in page
    described = {"alt", "title"}  # texts, which name the sample
    named = [
        value
        for _, attributes in elements.tags
        for name, value in attributes.items()
        if name not in described
    ]
    assert "evil.example" not in "".join(map(str, named))


def test_nothing_is_loaded_from_elsewhere(page: str) -> None:
    elements = Elements(page)
    assert {tag for tag, _ in elements.tags} & {
        "link",
        "iframe",
        "object",
        "embed",
        "base",
        "form",
    } == set()
    for _, attributes in elements.tags:
        for name in ("src", "href", "action", "data", "poster", "srcset"):
            assert (attributes.get(name) or "data:").startswith(("data:", "#"))
    assert not re.search(r"@import|url\(", elements.code)
    policy = next(found["content"] for tag, found in elements.tags if tag == "meta" and "http-equiv" in found)
    assert policy is not None
    assert "default-src 'none'" in policy
    assert "http" not in policy


def test_the_page_says_what_was_measured_and_found(page: str) -> None:
    text = " ".join(Elements(page).text.split())
    assert (
        "At which layers does the model look at what the question is about? Does it depend on the data?"
        in text
    )
    assert "3.08" in text  # the attention ratio planted at layer 1
    assert "beyond zero" in text
    assert "Only 3 groups" in text
    assert "Per group: patient-30: 3.08" in text
    assert "Descriptive only" in text
    assert "higher is better" in text
    assert "Samples left out: 1." in text
    assert "SampleError: the sample has no box" in text
    assert "fingerprint ffffffffffffffff" in text
    assert "model organism" not in text


def test_the_gallery_shows_best_and_worst_with_pictures(page: str, result: Result) -> None:
    images = [found["src"] for tag, found in Elements(page).tags if tag == "img"]
    assert len(images) == 2 * (6 + 6)
    assert len(set(images)) > 12
    assert len(page) < 12e6


def test_a_layer_chosen_elsewhere_is_featured_as_such(result: Result, tmp_path: Path) -> None:
    study = sweep(data=samples(20, start=300), indicator=Planted((0.0, 1.0, 5.0)))
    choice = choose_layer(study.run(tmp_path, progress=False))
    path = result.report(tmp_path / "deep" / "report.html", choice=choice)
    text = Elements(path.read_text()).text
    assert "Layer 2 of planted: the best mean attention ratio on other samples, which share" in text
    assert "Descriptive only" not in text


def test_an_organisms_numbers_are_not_the_papers(result: Result, monkeypatch: pytest.MonkeyPatch) -> None:
    from interp.study.layer_sweep.page import LEAD, sweep_opening

    for cell in result.cells:
        monkeypatch.setitem(cell.sweep.__dict__, "model", ModelSpec("organism"))
    assert "These are not the paper's numbers" in " ".join(Elements(sweep_opening(LEAD, result)).text.split())


ELSEWHERE = LayerChoice("ar", {"planted": 1}, frozenset({"other"}))


@pytest.fixture(scope="module")
def compared(tmp_path_factory: pytest.TempPathFactory) -> Result:
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
def section(compared: Result) -> str:
    return comparisons(compared, ELSEWHERE)


def words(section: str) -> str:
    return " ".join(Elements(section).text.split())


def test_each_axis_has_a_table_of_its_pairs(section: str, compared: Result) -> None:
    text = words(section)
    assert section.count("<h3>") == 2
    assert text.index("Data") < text.index("many − few") < text.index("Indicator") < text.index("good − weak")
    tables = [compared.compare("ar", layer=1, over=axis) for axis in ("data", "indicator")]
    assert section.count("same samples, ") == 2
    assert section.count("different samples, ≥ 3 groups") == 2
    row = tables[1].iloc[0]
    assert f"+{row.difference:.2f} [{row.low:.2f}, {row.high:.2f}]" in text
    assert "&lt; 0.001" in section
    assert f"<b>{tables[0].iloc[0].p_holm:.3f}</b>" in section


def test_what_only_changes_the_computation_is_not_compared(tmp_path: Path) -> None:
    rules = Grid(sweep(data=Samples([sample(i) for i in range(4)])), rule=["touch", "center"])
    assert comparisons(rules.run(tmp_path, progress=False), ELSEWHERE) == ""


def test_different_samples_are_also_compared_at_like_box_sizes(section: str, compared: Result) -> None:
    row = compared.compare("ar", layer=1, over="data").iloc[0]
    text = words(section)
    assert row.n_matched > 0
    assert "at like box sizes" in text
    assert f"{row.n_matched} pairs" in text


def test_few_groups_have_their_values_and_no_interval(section: str, compared: Result) -> None:
    text = words(section)
    assert "Only 3 groups: fewer than 20" in text
    assert "no claim about a population is made" in text
    assert "smallest p this test can give is 0.25" in text
    assert section.count("Per group: ") == 2 + 1
    groups = compared.compare_groups("ar", layer=1, over="data")
    value = groups[groups.n_b > 0].iloc[0]
    assert f"{value.mean_b:.2f} n = 3" in text
    assert "g7" not in text  # the side with enough groups is not listed
    table = compared.compare("ar", layer=1, over="indicator")
    few = table[table.n_groups < 20].iloc[0]
    assert f"{few.difference:.2f} [" not in text


def test_a_size_dependent_metric_says_so(compared: Result) -> None:
    text = words(comparisons(compared, LayerChoice("kl", {"planted": 1}, frozenset())))
    assert "read the difference at like box sizes" in text


def test_a_map_beats_the_baselines_by_either_kind_of_metric(compared: Result) -> None:
    """The planted map lies in the boxes: a high attention ratio, and a low divergence."""
    for metric in ("ar", "kl"):
        found = findings(compared, LayerChoice(metric, {"planted": 1}, frozenset({"other"})))
        own = found[found.index("many · good") :]
        assert "than <b>both</b> baselines" in own[: own.index("<table")], metric


def test_text_of_tables_from_the_data_stays_text(section: str) -> None:
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


def test_a_layer_chosen_here_makes_every_p_descriptive(compared: Result, section: str) -> None:
    assert "chosen on these same samples" not in words(section)
    assert "chosen on these same samples" in words(comparisons(compared, compared.best_layer()))


def test_a_single_cell_has_nothing_to_compare(tmp_path: Path) -> None:
    alone = sweep(data=Samples([sample(i) for i in range(4)])).run(tmp_path, progress=False)
    assert comparisons(alone, ELSEWHERE) == ""


def test_the_page_shows_it_between_the_figures_and_the_samples(compared: Result) -> None:
    page = compared.report(choice=ELSEWHERE).read_text()
    assert (
        page.index("Layer by layer") < page.index("Compared with one another") < page.index("Best and worst")
    )


@pytest.mark.parametrize(
    ("metric", "shuffled", "centre", "said"),
    [
        ("ar", (0.1, 0.3), (0.2, 0.4), "than both baselines"),
        ("kl", (-0.3, -0.1), (-0.4, -0.2), "than both baselines"),
        ("ar", (-0.3, -0.1), (-0.4, -0.2), "Less than another sample's boxes and centre prior."),
        ("kl", (0.1, 0.3), (0.2, 0.4), "Less than another sample's boxes and centre prior."),
        ("ar", (0.1, 0.3), (-0.1, 0.4), "More inside the boxes than another sample's boxes."),
        ("ar", (-0.1, 0.3), (0.1, 0.4), "More inside the boxes than centre prior."),
        (
            "ar",
            (0.1, 0.3),
            (-0.4, -0.1),
            "More inside the boxes than another sample's boxes. Less than centre prior.",
        ),
        ("ar", (0.0, 0.3), (-0.4, 0.0), "Not distinguishable from the baselines"),
    ],
)
def test_a_verdict_says_which_baseline_is_beaten(
    metric: str, shuffled: tuple[float, float], centre: tuple[float, float], said: str
) -> None:
    found: dict[str, Any] = {"boxes": {"n_groups": 20}}
    for name, (low, high) in (("shuffled_boxes", shuffled), ("centre_prior", centre)):
        found |= {name: {}, f"boxes − {name}": {"low": low, "high": high}}
    assert said in words(_verdict(found, metric))
    found["boxes"] = {"n_groups": 19}
    assert words(_verdict(found, metric)) == "Too few groups for a claim beyond these samples."


@pytest.mark.usefixtures("unchecked")
def test_a_card_tells_boxes_and_answers_of_its_own_samples() -> None:
    own = pd.DataFrame(
        {"n_box_tokens": [1, 2, 5], "correct": [True, None, False], "lost_area": [0.01, 0.5, 0]}
    ).assign(data="a", n_tokens=10)
    result: Any = SimpleNamespace(samples=pd.concat([own, own.assign(data="b", n_box_tokens=9)]))
    cell: Any = SimpleNamespace(labels={"data": "a"})
    assert _context(result, cell) == (
        "The median box covers 20.0 % of the image tokens. First answer token right: 50 % of 2. "
        "For 1 sample the model does not see the whole box."
    )
    result.samples = own.assign(correct=None, lost_area=0.0)
    assert _context(result, cell) == "The median box covers 20.0 % of the image tokens."


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(("metric", "order"), [("ar", [3, 0, 2, 1]), ("kl", [1, 0, 2, 3])])
def test_the_best_sample_comes_first_by_either_kind_of_metric(metric: str, order: list[int]) -> None:
    scores = pd.DataFrame({"index": [2, 1, 0, 3, 4], "value": [2.0, 1.0, 2.0, 5.0, np.nan]})
    scores = scores.assign(metric=metric, control="boxes", layer=1)
    others = [
        scores.assign(layer=0, value=9.0),
        scores.assign(control="centre_prior"),
        scores.assign(metric="js"),
    ]
    cell: Any = SimpleNamespace(frame=lambda _: pd.concat([*others, scores], ignore_index=True))
    assert [index for index, _ in _ranked(cell, metric, 1)] == order


@pytest.mark.parametrize(
    ("paired", "left_out", "said"),
    [
        ("sample", 0, "same samples, 24 groups"),
        ("sample", 2, "same samples, 24 groups, 2 values left out"),
        ("group", 0, "other samples, same groups, 24 groups"),
        ("none", 0, "different samples, ≥ 24 groups"),
    ],
)
def test_a_pair_says_what_it_rests_on(paired: str, left_out: int, said: str) -> None:
    assert _basis({"paired": paired, "n_groups": 24, "left_out": left_out}) == said


def test_lesions_stand_by_layer_beside_their_baselines(tmp_path: Path) -> None:
    rows = [
        {
            "layer": layer,
            "control": control,
            "hits": hits,
            "low": hits,
            "high": hits,
            "chance": chance,
            "n_groups": 24,
        }
        for layer, control, hits, chance in (
            (2, "boxes", 0.5, 0.125),
            (2, "centre_prior", 0.25, 0.9),
            (0, "boxes", 0.75, 0.0625),
            (0, "shuffled_boxes", 0.375, 0.9),
            (1, "shuffled_boxes", 0.3, 0.9),
        )
    ]
    path = tmp_path / "page.html"
    path.write_text(f"<main>{_lesion_table([{**row, 'note': ''} for row in rows])}</main>")
    found = [[cell.split(" ")[0] for cell in row.cells] for row in Page(path).table("lesions hit").rows]
    assert found == [["0", "0.75", "0.38", "–", "0.06"], ["2", "0.50", "–", "0.25", "0.12"]]
