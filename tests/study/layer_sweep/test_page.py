from __future__ import annotations

import re
from pathlib import Path

import pytest

from interp.study import Grid, ModelSpec, Result, choose_layer
from tests.report.hostile_samples import ATTACK, Elements, hostile
from tests.study.planted import Planted, samples, sweep


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
