"""The page of a probe sweep shows what the probes named rightly, beside their control."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest

from tests.golden import pages
from tests.golden.expected import check_mean, ends, has_band, means, one, pick, same_figures, same_points
from tests.golden.parsed import Page, check, matches, numbers

PLACES = {"last": "last token", "box": "tokens in the boxes"}
LINES = {"accuracy": "probe", "control": "control task", "majority": "most frequent class"}
COLUMNS = {
    "accuracy": "accuracy",
    "control": "control",
    "selectivity": "selectivity",
    "majority": "most frequent",
}


@pytest.fixture(scope="module")
def page(probes: Any, tmp_path_factory: pytest.TempPathFactory) -> Page:
    return Page(pages.report(probes, tmp_path_factory.mktemp("probes") / "page.html"))


def test_accuracy_is_the_share_of_classes_named_rightly(probes: Any, page: Page) -> None:
    rows = page.table("position", "layer", "accuracy").records(
        position="position", layer="layer", n="samples", **COLUMNS
    )
    said = probes.said
    assert len(rows) == 2 * said.layer.nunique()
    for row in rows:
        (position,) = [name for name, words in PLACES.items() if words == row["position"]]
        own = pick(said, position=position, layer=int(row["layer"]))
        right = float((own.said == own.target).mean())
        check(row["accuracy"].partition("[")[0], right, digits=2)
        for measure in COLUMNS:
            summary = one(probes.summary(), position=position, layer=int(row["layer"]), measure=measure)
            check_mean(row[measure], summary)
        assert [shown.value for shown in numbers(row["n"])] == [len(own), own.group.nunique()]


def test_selectivity_is_accuracy_less_control(probes: Any, page: Page) -> None:
    differ = 0
    for row in page.table("position", "layer", "accuracy").records(**COLUMNS):
        accuracy, control, gap = (
            numbers(row[name])[0].value for name in ("accuracy", "control", "selectivity")
        )
        assert gap == pytest.approx(accuracy - control, abs=0.011)
        differ += accuracy != control
    assert differ > 2


@pytest.mark.parametrize("position", list(PLACES))
@pytest.mark.parametrize("measure", list(LINES))
def test_lines_and_bands_are_the_means(probes: Any, page: Page, position: str, measure: str) -> None:
    figure = page.figure("accuracy")
    panel = f"{PLACES[position]}$"
    (line,) = [one for one in figure.lines(panel) if one.name == LINES[measure]]
    own = pick(probes.scores, position=position, measure=measure)
    same_points(line, means(own, "layer"))
    summary = pick(probes.summary(), position=position, measure=measure)
    if (summary.high > summary.low).any():
        has_band(figure, line, ends(summary), panel)


def test_the_line_at_chance_is_the_commonest_class(probes: Any) -> None:
    """Of two folds each takes the other's most frequent class."""
    said = pick(probes.said, position="last", layer=0)
    share = max(Counter(said.target).values()) / len(said)
    majority = means(pick(probes.scores, measure="majority", position="last", layer=0), "layer")[0]
    assert 0 < majority <= share


def test_lead_counts_samples_and_folds(probes: Any, page: Page) -> None:
    assert matches(rf"\b{len(probes.samples)} samples \(colours\).*\b2 folds", page.text)


def test_page_draws_the_results_own_figures(probes: Any, page: Page) -> None:
    same_figures(page, probes.figures())
