"""The page of a comparison: what it says, that text stays text, and that flattered cells are framed."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from interp.data import Samples
from interp.indicators import CentrePrior, RandomMap
from interp.study import Grid, IndicatorResult
from tests.report.hostile_samples import ATTACK, Elements
from tests.study.planted import sample
from tests.study.planted_indicators import Knowing, Take, Truthful, comparison, scenes


def hostile(n: int, name: str) -> Samples:
    """Samples whose every text tries to be markup."""
    meta = {"marker": [80, 60, 100, 80]}
    data = [sample(i, group=f"{ATTACK}{i}", meta=meta) for i in range(n)]
    data[1] = data[1].replace(question=ATTACK, id=f"id {ATTACK}", answer=None)
    return Samples(data, name)


@pytest.fixture(scope="module")
def result(tmp_path_factory: pytest.TempPathFactory) -> IndicatorResult:
    """Two cells, of 22 and of 5 groups; one indicator is built on the removal, one fails on a sample."""
    runs = tmp_path_factory.mktemp("runs")
    indicators = {
        f"knows {ATTACK}": Knowing(removal=Take()),
        "off": Knowing(shift=7, fails=("s3",)),
        "centre": CentrePrior(),
        "random": RandomMap(),
    }
    parts = []
    for n, name in ((22, "many"), (5, "few")):
        study = comparison(
            data=hostile(n, name), indicators=indicators, truth=("boxes", "marker"), n_faithful=3
        )
        parts.append(Grid(study, model={"planted": Truthful()}).run(runs, progress=False))
    return IndicatorResult.join(parts)


@pytest.fixture(scope="module")
def page(result: IndicatorResult) -> str:
    return result.report().read_text()


def test_text_from_the_data_stays_text_and_nothing_is_loaded(page: str) -> None:
    elements = Elements(page)
    assert ATTACK in elements.text
    assert sum(tag == "script" for tag, _ in elements.tags) == 3
    assert not {tag for tag, _ in elements.tags} & {"link", "iframe", "object", "embed", "base", "form"}
    figures = page.split('id="figures">')[1].split("</script>")[0]
    assert "<script>alert" not in json.dumps(json.loads(figures))
    assert not re.search(r"@import|url\(", elements.code)


def test_it_says_what_was_measured_on_what(page: str) -> None:
    text = re.sub(r"\s+", " ", Elements(page).text)
    assert "many (22 samples in 22 groups, tokens removed on 3, sanity checks on 22)" in text
    assert "Only 5 groups: fewer than 20" in text
    assert "no claim about a population is made" in text
    assert "Group by group: few" in text
    assert "1×, first s3. ImageTokenMismatch: the prompt holds 19 image tokens" in text
    assert "1.00 [1.00, 1.00] ✓" in text
    assert "Not included: vision tower and projector" in text


def test_every_part_has_its_figure(result: IndicatorResult, page: str) -> None:
    figures = result.figures()
    names = {"localisation", "pareto", "sanity", *(f"{kind}-{i}" for kind in KINDS for i in (1, 2))}
    assert set(figures) == names
    assert all(f'id="figure-{name}"' in page for name in names)
    assert {len(figures["localisation"].data), len(figures["curves-1"].data)} == {2 * 2, 2 * 1 * 4}


KINDS = ("agreement", "curves", "matrix")


def test_a_cell_that_a_removal_flatters_is_framed(result: IndicatorResult) -> None:
    rows = result.faithfulness()
    assert set(rows[rows.own].indicator) == {f"knows {ATTACK}"}
    assert len(result.figures()["matrix-1"].layout.shapes) == 2  # deletion and insertion


def test_the_front_joins_what_nothing_beats(tmp_path: Path) -> None:
    """A free map scores some, a dear one all; one as dear that points off is not on the line."""
    study = comparison(data=scenes(20), removals=(), n_checked=0)
    figure = study.run(tmp_path, progress=False).figures()["pareto"]
    line, *points = figure.data
    scores = {point.text[0]: point.y[0] for point in points}
    assert max(line.y) == scores["knows"] == 1.0
    assert scores["off"] not in line.y
    assert list(line.x) == sorted(line.x)
