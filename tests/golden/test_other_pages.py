"""The pages of text tokens, of failures and of maps show the sweeps they are made of."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import pandas as pd
import pytest

from interp.stats import bootstrap_statistic, holm, paired, paired_test
from interp.study import choose_layer
from interp.study.layer_choice import LayerChoice
from tests.golden import examples, pages
from tests.golden.expected import (
    MIN_GROUPS,
    check_mean,
    ends,
    has_band,
    means,
    one,
    pick,
    same_points,
    shown_layer,
)
from tests.golden.parsed import Page, check, check_p, matches, numbers

DATA = ("natural", "medical")
DIVISORS = {"relative": examples.GENERIC_PROMPT, "plain": None}
LAST, QUESTION = examples.KINDS
OUTCOMES = {
    "looked, right": (True, True),
    "looked, wrong": (True, False),
    "looked elsewhere, right": (False, True),
    "looked elsewhere, wrong": (False, False),
}


@pytest.fixture(scope="module")
def tokens(run: Callable[[Any], Any]) -> dict[str, Any]:
    return {name: run(examples.token_sweep(divisor)) for name, divisor in DIVISORS.items()}


@pytest.fixture(scope="module")
def token_layers() -> dict[str, dict[str, LayerChoice]]:
    """Layers as if chosen elsewhere, every one another."""
    layers = iter((3, 2, 4, 1))
    chosen = partial(LayerChoice, "ar", groups=frozenset(), split="validation", n=25)
    return {name: {kind: chosen({"organism": next(layers)}) for kind in examples.KINDS} for name in DIVISORS}


@pytest.fixture(scope="module")
def token_page(tokens: Any, token_layers: Any, tmp_path_factory: pytest.TempPathFactory) -> Page:
    return Page(
        pages.text_tokens(tokens, token_layers, LAST, tmp_path_factory.mktemp("tokens") / "page.html")
    )


@pytest.fixture(scope="module")
def choice(validation: Any) -> Any:
    return choose_layer(validation)


@pytest.fixture(scope="module")
def failures_page(sweep: Any, validation: Any, choice: Any, tmp_path_factory: pytest.TempPathFactory) -> Page:
    return Page(pages.failures(sweep, validation, choice, tmp_path_factory.mktemp("failures") / "page.html"))


@pytest.fixture(scope="module")
def plain_maps(run: Callable[[Any], Any]) -> Any:
    return run(examples.plain_maps())


@pytest.mark.parametrize("name", list(DIVISORS))
def test_token_table_shows_gaps_from_boxes_and_last_token(
    tokens: Any, token_layers: Any, token_page: Page, name: str
) -> None:
    scores = pick(tokens[name].scores, metric="ar")
    table = token_page.table("rows of", "AR", "minus shuffled", "minus.*last", "Holm's p", near=name)
    rows = table.records(
        data="^ *data", kind="rows of", layer="layer", ar="^ *AR$", shuffled="minus shuffled",
        last="minus.*last", p="Holm's p", n="samples",
    )  # fmt: skip
    tests, texts = [], []
    assert [(row["data"], row["kind"]) for row in rows] == [(d, k) for d in DATA for k in examples.KINDS]
    for row in rows:
        layer = dict(token_layers[name][row["kind"]].layers)["organism"]
        check(row["layer"], layer)
        here = pick(scores, data=row["data"], indicator=row["kind"], layer=layer)
        own, other = (pick(here, control=c).set_index("sample") for c in ("boxes", "shuffled_boxes"))
        place = {"data": row["data"], "indicator": row["kind"], "layer": layer, "control": "boxes"}
        check_mean(row["ar"], one(tokens[name].summary(), **place), mean=float(own.value.mean()))
        check_gap(row["shuffled"], own, other)
        assert [shown.value for shown in numbers(row["n"])][:2] == [len(own), own.group.nunique()]
        if row["kind"] == LAST:
            check(row["last"], float("nan"))
            check(row["p"], float("nan"))
            continue
        at = dict(token_layers[name][LAST].layers)["organism"]
        last = pick(scores, data=row["data"], indicator=LAST, layer=at, control="boxes").set_index("sample")
        check_gap(row["last"], own, last)
        last = last.loc[own.index]
        tests.append(paired_test(own.value.to_numpy(), last.value.to_numpy(), own.group.to_numpy(), seed=1).p)
        texts.append(row["p"])
    for text, p in zip(texts, holm(tests), strict=True):
        check_p(text, float(p))


def check_gap(text: str, a: pd.DataFrame, b: pd.DataFrame) -> None:
    b = b.loc[a.index]
    gap = float((a.value - b.value).mean())
    if a.group.nunique() < MIN_GROUPS:
        check(text, gap, digits=2)
    else:
        found = paired(a.value.to_numpy(), b.value.to_numpy(), a.group.to_numpy(), seed=1)
        check(text, gap, found.low, found.high, digits=2)


@pytest.mark.parametrize("kind", list(examples.KINDS))
@pytest.mark.parametrize("name", list(DIVISORS))
@pytest.mark.parametrize("data", DATA)
def test_token_curves_are_means_with_bands(
    tokens: Any, token_page: Page, data: str, name: str, kind: str
) -> None:
    (figure,) = [f for f in token_page.figures.values() if matches(name, f.title)]
    scores = pick(tokens[name].scores, data=data, indicator=kind)
    lines = [line for line in figure.lines() if line.panel == data and line.name == kind]
    (own,) = [line for line in lines if line.solid]
    (dashed,) = [line for line in lines if not line.solid]
    same_points(own, means(pick(scores, control="boxes"), "layer"))
    same_points(dashed, means(pick(scores, control="shuffled_boxes"), "layer"))
    assert matches("attention ratio", own.axis_title("y"))
    bands = figure.bands(data)
    assert len(bands) == (2 if data == "natural" else 0)
    if bands:
        summary = pick(tokens[name].summary(), data=data, indicator=kind, control="boxes")
        has_band(figure, own, ends(summary), data)


def judged(sweep: Any, validation: Any, choice: Any) -> pd.DataFrame:
    """Each test sample: AR at the chosen layer, whether it looked, whether it was right."""
    layer = dict(choice.layers)["organism"]
    at = {"metric": "ar", "layer": layer}
    frames = []
    for data in DATA:
        luck = pick(validation.scores, data=data, control="shuffled_boxes", **at).value.dropna()
        limit = float(np.quantile(luck, 0.95))
        own = pick(sweep.scores, data=data, control="boxes", **at)[["sample", "group", "value"]]
        own = own.merge(pick(sweep.samples, data=data)[["sample", "index", "correct"]], on="sample").dropna()
        frames.append(
            own.assign(data=data, limit=limit, looked=own.value > limit, right=own.correct.astype(bool))
        )
    return pd.concat(frames)


@pytest.mark.parametrize("data", DATA)
def test_outcomes_are_counted_in_percent(
    sweep: Any, validation: Any, choice: Any, failures_page: Page, data: str
) -> None:
    own = pick(judged(sweep, validation, choice), data=data)
    table = failures_page.table("outcome", "samples", "share", "expected", near=data)
    rows = {
        row["outcome"]: row
        for row in table.records(outcome="outcome", n="samples", share="share", e="expected")
    }
    assert set(rows) == set(OUTCOMES)
    for name, (looked, right) in OUTCOMES.items():
        here = (own.looked == looked) & (own.right == right)
        check(rows[name]["n"], int(here.sum()))
        shown = numbers(rows[name]["share"])
        assert shown[0].says(100 * float(here.mean()))
        assert len(shown) == (1 if own.group.nunique() < MIN_GROUPS else 3)
        assert len(shown) == 1 or shown[1].value <= shown[0].value <= shown[2].value
        check(rows[name]["e"], 100 * float((own.looked == looked).mean() * (own.right == right).mean()))
        assert "%" in rows[name]["share"]
        assert "%" in rows[name]["e"]
    text = failures_page.text
    assert matches(rf"\b{own.limit.iloc[0]:.2f} for {data}", text)


def gap_of_right(looked: np.ndarray, right: np.ndarray) -> float:
    """Share right among those that looked minus that among the others; NaN where there is nothing to compare."""
    if len(set(looked)) < 2 or len(set(right)) < 2:
        return math.nan
    return float(right[looked > 0].mean() - right[looked < 1].mean())


def chance_of_order(values: np.ndarray, right: np.ndarray) -> float:
    """How often a right answer's value is above a wrong one's, ties half; NaN without both."""
    if len(set(right)) < 2:
        return math.nan
    gaps = values[right > 0][:, None] - values[right < 1][None]
    return float((gaps > 0).mean() + (gaps == 0).mean() / 2)


def test_looking_is_related_to_being_right(
    sweep: Any, validation: Any, choice: Any, tmp_path_factory: pytest.TempPathFactory
) -> None:
    own = pick(judged(sweep, validation, choice), data="natural")
    wrong = own["sample"].tolist()[::3]  # the organism is right on all scenes
    path = tmp_path_factory.mktemp("mixed") / "page.html"
    (text,) = related(Page(pages.failures(sweep, validation, choice, path, wrong)), "natural")
    right = (own.right & ~own["sample"].isin(wrong)).to_numpy(float)
    told = re.findall(r"others: (.*?) percentage points\. AUROC of AR for a right answer: (.*?) \(0\.5", text)
    looked, ar = own.looked.to_numpy(float), own.value.to_numpy(float)
    each = ((gap_of_right, looked, 100, 0), (chance_of_order, ar, 1, 2))
    for shown, (statistic, values, scale, digits) in zip(told[0], each, strict=True):
        found = bootstrap_statistic(statistic, [values, right], own.group, seed=1)
        assert found.low < found.mean < found.high
        check(shown, *(scale * one for one in (found.mean, found.low, found.high)), digits=digits)


def test_no_relation_is_told_where_all_answers_are_wrong(failures_page: Page) -> None:
    assert matches("cannot be said", related(failures_page, "medical")[0])


def related(page: Page, data: str) -> list[str]:
    """The text of the card of this data set that counts outcomes."""
    titles = [node for node in page.body.all("h3") if matches(f"{data}$", node.text)]
    return [node.parent.text for node in titles if node.parent is not None]


def test_outcomes_of_few_groups_are_told_one_by_one(
    sweep: Any, validation: Any, choice: Any, failures_page: Page
) -> None:
    own = pick(judged(sweep, validation, choice), data="medical")
    (text,) = related(failures_page, "medical")
    told = text.partition("Counts per group, in the table's order: ")[2]
    assert "Counts per group" not in related(failures_page, "natural")[0]
    table = failures_page.table("outcome", "samples", "share", "expected", near="medical")
    order = [OUTCOMES[name] for name in table.column("outcome")]
    for group, here in own.groupby("group"):
        counts = [int(((here.looked == looked) & (here.right == right)).sum()) for looked, right in order]
        assert f"{group} {' / '.join(map(str, counts))}" in told


@pytest.mark.parametrize("data", DATA)
def test_outcome_points_are_the_samples(
    sweep: Any, validation: Any, choice: Any, failures_page: Page, data: str
) -> None:
    own = pick(judged(sweep, validation, choice), data=data)
    figure = failures_page.figure("outcomes")
    for name, (looked, right) in OUTCOMES.items():
        here = own[(own.looked == looked) & (own.right == right)]
        (points,) = [t for t in figure.traces if t.panel == data and t.name == name]
        found = sorted(x for x in points.x if x is not None and x == x)
        assert found == pytest.approx(sorted(here.value))
        assert all((y > 0.5) == right for y in points.y if y is not None and y == y)
        assert matches("attention ratio", points.axis_title("x"))
    assert any(x == pytest.approx(own.limit.iloc[0]) for x, _ in figure.vertical_lines())


def test_cases_show_their_ar_and_map(sweep: Any, validation: Any, choice: Any, failures_page: Page) -> None:
    found = judged(sweep, validation, choice)
    layer, shown = dict(choice.layers)["organism"], 0
    for _, row in found[found.looked != found.right].iterrows():
        for card in failures_page.cards(row["sample"]):
            check_card(sweep, card, row, layer)
            shown += 1
        if shown > 2:
            break
    assert shown


def check_card(sweep: Any, card: Any, row: Any, layer: int) -> None:
    """The sample's AR, the layer in the caption, and the map of that layer."""
    assert any(one.says(row["value"]) and one.step <= 0.01 for one in numbers(card.text))
    captions = [node.text for node in card.all("figcaption")]
    assert any(matches(rf"layer {layer}\b", caption) for caption in captions)
    (cell,) = [cell for cell in sweep.cells if cell.labels["data"] == row["data"]]
    assert shown_layer(cell, card, int(row["index"])) == layer


def test_maps_page_shows_ar_and_both_maps(
    sweep: Any, plain_maps: Any, choice: Any, tmp_path_factory: pytest.TempPathFactory
) -> None:
    results = {"attention": plain_maps, "relative": sweep}
    page = Page(pages.maps(results, choice, tmp_path_factory.mktemp("maps") / "page.html"))
    layer = dict(choice.layers)["organism"]
    own = pick(sweep.scores, metric="ar", control="boxes", layer=layer)
    own = own.merge(sweep.samples[["data", "sample", "index"]], on=["data", "sample"])
    for _, row in own.iterrows():
        (card,) = page.cards(row["sample"])
        assert any(one.says(row["value"]) and one.step <= 0.01 for one in numbers(card.text))
        if int(row["index"]) < 1:
            for result in results.values():
                (cell,) = [cell for cell in result.cells if cell.labels["data"] == row["data"]]
                assert shown_layer(cell, card, int(row["index"])) == layer
