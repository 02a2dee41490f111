"""The page of stated boxes shows each overlap and ratio under its own name, and what could not be read."""

from __future__ import annotations

import html
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from tests.golden import examples, pages
from tests.golden.expected import MIN_GROUPS, check_mean, one, pick, same_figures
from tests.golden.parsed import Page, check, matches, near, numbers

DATA = ("natural", "medical")
POINTS = {
    "overlap": {
        "mask_expert": "attention mask and expert's",
        "mask_stated": "attention mask and stated boxes",
        "iou_shuffled": "stated and another sample's",
        "iou": "stated and expert's boxes",
    },
    "attention": {"ar_expert": "inside the expert's boxes", "ar_stated": "inside the stated boxes"},
}


@pytest.fixture(scope="module")
def page(stated: Any, tmp_path_factory: pytest.TempPathFactory) -> Page:
    return Page(pages.report(stated, tmp_path_factory.mktemp("stated") / "page.html"))


def overlap(said: Sequence[float], expert: Sequence[Sequence[float]]) -> float:
    """IoU of a box and of a union of boxes, by the cells of the grid that all their edges span."""
    x, y = (np.unique([box[k] for box in (said, *expert) for k in (i, i + 2)]) for i in (0, 1))
    areas = np.outer(np.diff(x), np.diff(y))

    def inside(box: Sequence[float]) -> np.ndarray:
        across, down = ((edges[:-1] >= box[i]) & (edges[1:] <= box[i + 2]) for i, edges in enumerate((x, y)))
        return np.outer(across, down)

    true = np.any([inside(box) for box in expert], axis=0)
    return float(areas[inside(said) & true].sum() / areas[inside(said) | true].sum())


def overlaps(data: str) -> list[float]:
    """The IoU of the text's box and the expert's, of each sample whose text holds a box in order."""
    found = []
    for place, sample in enumerate(examples.both()[data]):
        if sample.boxes and place % 5 != 4:
            said = [float(number) for number in examples.stated(sample, place)[10:-2].split(",")]
            scaled = [value * side for value, side in zip(said, sample.sizes[0] * 2, strict=True)]
            found.append(overlap(scaled, [box.as_tuple() for box in sample.boxes]))
    return found


@pytest.mark.parametrize("data", DATA)
def test_each_measure_stands_under_its_name(stated: Any, page: Page, data: str) -> None:
    table = page.all_tables("measure", "mean", "undefined")[DATA.index(data)]
    rows = table.records(measure="measure", mean="mean", n="samples", undefined="undefined")
    assert len(rows) == 10
    for row in rows:
        measure = row["measure"].split()[-1]
        summary = one(stated.summary(), data=data, measure=measure)
        values = pick(stated.scores, data=data, measure=measure).value
        check_mean(row["mean"], summary, mean=float(values.mean()))
        assert [shown.value for shown in numbers(row["n"])] == [summary["n"], summary["n_groups"]]
        check(row["undefined"], float(values.isna().sum()))
    (iou,) = [row for row in rows if row["measure"].split()[-1] == "iou"]
    expected = overlaps(data)
    check(iou["mean"].partition("[")[0], sum(expected) / len(expected), digits=2)


@pytest.mark.parametrize("data", DATA)
@pytest.mark.parametrize("name", list(POINTS))
def test_points_and_arms_are_means_and_intervals(stated: Any, page: Page, name: str, data: str) -> None:
    figure = page.figure(name)
    (points,) = [one for one in figure.traces if data in one.panel]
    labels = [" ".join(html.unescape(label).replace("<br>", " ").split()) for label in points.y]
    assert labels == list(POINTS[name].values())
    for place, measure in enumerate(POINTS[name]):
        row = one(stated.summary(), data=data, measure=measure)
        assert near(row["mean"], points.x[place])
        if row["n_groups"] >= MIN_GROUPS:
            assert points.bars("x")[place] == pytest.approx((row["low"], row["high"]))


def test_cards_show_each_samples_overlap_and_counts(stated: Any, page: Page) -> None:
    scored = 0
    for sample in list(examples.natural())[:6]:
        card = page.cards(sample.id)[0]
        value = float(pick(stated.scores, data="natural", sample=sample.id, measure="iou").value.iloc[0])
        own = pick(stated.samples, data="natural", sample=sample.id).iloc[0]
        assert matches(rf"boxes read: {own.n_stated}\b.*unparsed: {own.n_unparsed}\b", card.text)
        if math.isnan(value):
            assert "IoU" not in card.text
        else:
            scored += 1
            check(card.text.partition("IoU ")[2].split()[0], value, digits=2)
    assert 0 < scored < 6


def test_what_could_not_be_read_is_counted(stated: Any, page: Page) -> None:
    for data in DATA:
        measured = [one for one in examples.both()[data] if one.boxes]
        bad = sum(place % 5 == 4 and bool(one.boxes) for place, one in enumerate(examples.both()[data]))
        assert matches(rf"{data}: {bad} parts? in {bad} of {len(measured)} samples", page.text)


def test_page_draws_the_results_own_figures(stated: Any, page: Page) -> None:
    same_figures(page, stated.figures())
