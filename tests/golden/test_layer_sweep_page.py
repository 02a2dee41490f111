"""The page and the figures of a layer sweep show what its scores are."""

from __future__ import annotations

import re
from typing import Any

import pytest

from interp.metrics import METRICS
from interp.stats import holm, unpaired_test
from interp.study import choose_layer
from tests.golden import examples, pages
from tests.golden.expected import (
    MIN_GROUPS,
    check_mean,
    ends,
    group_means,
    has_band,
    means,
    one,
    pick,
    same_figures,
    same_points,
    shown_layer,
)
from tests.golden.parsed import Page, check, check_p, matches, numbers

METRIC_NAMES = ("ar", "kl_gain", "js")
DATA = ("natural", "medical")
NULLS = {"shuffled_boxes": "another sample|shuffled", "centre_prior": "middle|cent(re|er) prior"}


@pytest.fixture(scope="module")
def choice(validation: Any) -> Any:
    return choose_layer(validation)


@pytest.fixture(scope="module")
def page(sweep: Any, choice: Any, tmp_path_factory: pytest.TempPathFactory) -> Page:
    return Page(pages.report(sweep, tmp_path_factory.mktemp("sweep") / "page.html", choice=choice))


def layer_of(validation: Any) -> int:
    """The layer with the best mean AR on validation, both data sets counting the same."""
    own = pick(validation.scores, metric="ar", control="boxes")
    found = own.groupby(["data", "layer"]).value.mean().groupby("layer").mean()
    return int(found.idxmax())


@pytest.mark.parametrize("metric", METRIC_NAMES)
def test_every_layer_table_shows_mean_and_interval(sweep: Any, page: Page, metric: str) -> None:
    tables = page.all_tables("layer", "natural", "medical", "shuffled|another", "cent|middle")
    assert len(tables) == len(METRIC_NAMES)
    (table,) = [
        t
        for t in tables
        if matches(rf"{re.escape(METRICS[metric].label)}.*{METRICS[metric].better} is better", t.title)
    ]
    heads = table.heads
    starts = {data: heads.index(data) for data in DATA}
    for row in table.rows:
        layer = int(numbers(row.cells[table.place("layer")])[0].value)
        for data, start in starts.items():
            assert matches("shuffled|another", heads[start + 1])
            assert matches("cent|middle", heads[start + 2])
            for shift, control in enumerate(("boxes", *NULLS)):
                place = {"data": data, "metric": metric, "layer": layer, "control": control}
                value = float(pick(sweep.scores, **place).value.mean())
                check_mean(row.cells[start + shift], one(sweep.summary(), **place), mean=value)
    assert [numbers(text)[0].value for text in table.column("layer")] == sorted(set(sweep.scores.layer))


@pytest.mark.parametrize("data", DATA)
def test_featured_layer_is_set_against_both_baselines(
    sweep: Any, validation: Any, page: Page, data: str
) -> None:
    layer = layer_of(validation)
    table = page.table("^ *baseline", "score", "own boxes minus", near=data)
    here = pick(sweep.scores, data=data, metric="ar", layer=layer).pivot(
        index="sample", columns="control", values="value"
    )
    at = sweep.at_layer(layer)
    for (control, word), row in zip(NULLS.items(), table.rows, strict=True):
        assert matches(word, row.cells[table.place("^ *baseline$")])
        own = one(at, data=data, metric="ar", control=control)
        check_mean(row.cells[table.place("its score")], own, mean=float(here[control].mean()))
        gap = one(at, data=data, metric="ar", control=f"boxes − {control}")
        check_mean(
            row.cells[table.place("own boxes minus")],
            gap,
            mean=float((here.boxes - here[control]).dropna().mean()),
        )


@pytest.mark.parametrize("data", DATA)
def test_card_tells_mean_size_of_boxes_and_accuracy(
    sweep: Any, validation: Any, page: Page, data: str
) -> None:
    own = one(sweep.summary(), data=data, metric="ar", control="boxes", layer=layer_of(validation))
    interval = "" if own["n_groups"] < MIN_GROUPS else rf" ?\[{own['low']:.2f}, {own['high']:.2f}\] ·"
    assert matches(rf"{own['mean']:.2f}{interval} {own['n']} samples, {own['n_groups']} groups", page.text)
    samples = pick(sweep.samples, data=data)
    share = 100 * float((samples.n_box_tokens / samples.n_tokens).median())
    assert matches(rf"median box\D+{share:.1f} %", page.text)
    answered = samples.correct.dropna().astype(float)
    assert matches(rf"right\D+{100 * answered.mean():.0f} % of {len(answered)}\b", page.text)


@pytest.mark.parametrize("metric", METRIC_NAMES)
@pytest.mark.parametrize("data", DATA)
def test_lines_bands_and_baselines_are_the_means(sweep: Any, page: Page, metric: str, data: str) -> None:
    figure = page.figure(metric)
    scores = pick(sweep.scores, data=data, metric=metric)
    (line,) = [one for one in figure.lines() if one.name == data]
    same_points(line, means(pick(scores, control="boxes"), "layer"))
    summary = pick(sweep.summary(), data=data, metric=metric, control="boxes")
    for place, layer in enumerate(line.x):
        row = one(summary, layer=layer)
        check(line.hover(place), line.y[place], row["low"], row["high"], row["n"], row["n_groups"], digits=0)
    for control, word in NULLS.items():
        (null,) = [
            one for one in figure.lines() if one.name.startswith(f"{data} ") and matches(word, one.name)
        ]
        same_points(null, means(pick(scores, control=control), "layer"))
        assert not null.solid
    if summary.n_groups.max() >= MIN_GROUPS:
        has_band(figure, line, ends(summary))
    else:
        wanted = group_means(pick(scores, control="boxes"), "layer")
        thin = {
            one.name.rpartition("group ")[2]: one for one in figure.lines() if f"{data} · group" in one.name
        }
        assert set(thin) == set(wanted)
        for group, points in wanted.items():
            same_points(thin[group], points)
    assert len(figure.bands()) == 1


@pytest.mark.parametrize("metric", METRIC_NAMES)
def test_figures_name_metric_direction_and_chosen_layer(validation: Any, page: Page, metric: str) -> None:
    figure, described = page.figure(metric), METRICS[metric]
    assert matches(re.escape(described.label), figure.title)
    assert [matches(f"{described.better} is better", title) for title in figure.axis_titles("y")] == [True]
    assert figure.axis_titles("x") == ["layer"]
    assert [x for x, _ in figure.vertical_lines()] == [layer_of(validation)]
    chance = [described.chance_value] if described.chance_value is not None else []
    assert figure.horizontal_lines() == chance


def test_data_sets_are_compared_with_holm(sweep: Any, validation: Any, page: Page) -> None:
    here = pick(sweep.scores, metric="ar", control="boxes", layer=layer_of(validation)).dropna()
    first, second = (pick(here, data=data) for data in DATA)
    table = page.table("mean of each", "difference", "holm", "^ ?p$")
    (row,) = table.rows
    assert matches("natural − medical", row.cells[0])
    check(
        row.cells[table.place("mean of each")],
        float(first.value.mean()),
        float(second.value.mean()),
        digits=2,
    )
    found = one(sweep.compare("ar", layer=layer_of(validation), over="data"))
    gap = float(first.value.mean() - second.value.mean())
    check(row.cells[table.place("difference")], gap, digits=2)
    test = unpaired_test(first.value.to_numpy(), second.value.to_numpy(), first.group, second.group, seed=1)
    check_p(row.cells[table.place("^ ?p$")], test.p)
    check_p(row.cells[table.place("holm")], float(holm([test.p])[0]))
    assert found["n_groups"] == min(first.group.nunique(), second.group.nunique())
    check(
        row.cells[table.place("from")].partition(" values")[0].partition(",")[2].split(",")[0],
        found["n_groups"],
    )


@pytest.mark.parametrize("data", DATA)
def test_best_and_worst_samples_show_their_score_and_map(
    sweep: Any, validation: Any, page: Page, data: str
) -> None:
    layer = layer_of(validation)
    own = pick(sweep.scores, data=data, metric="ar", control="boxes", layer=layer).dropna(subset=["value"])
    ordered = own.sort_values("value", ascending=False)["sample"].tolist()
    (cell,) = [cell for cell in sweep.cells if cell.labels["data"] == data]
    for sample_id in dict.fromkeys((*ordered[:3], *ordered[3:][-3:])):
        (card,) = page.cards(sample_id)
        row = one(own, sample=sample_id)
        told = one(pick(sweep.samples, data=data), sample=sample_id)
        assert any(shown.says(row["value"]) and shown.step <= 0.01 for shown in numbers(card.text))
        assert told["question"] in card.text
        assert str(told["predicted"]) in card.text
        index = int(told["index"])
        assert shown_layer(cell, card, index) == layer


def test_failures_are_counted(sweep: Any, page: Page) -> None:
    whole = int(sweep.failures.layer.isna().sum())
    assert matches(rf"left out: {whole}\. \D+undefined: {len(sweep.failures) - whole}\b", page.text)
    assert matches(rf"\b{len(sweep.samples)} samples", page.text)


def test_provenance_names_run_and_passes(sweep: Any, page: Page) -> None:
    assert page.named("^run$") == [cell.folder.path.name for cell in sweep.cells]
    for cell, time in zip(sweep.cells, page.named("^time$"), strict=True):
        total = cell.folder.read_json("cost.json", {})["total"]
        check(time, total["wall_seconds"], total["forwards"])


def test_examples_cover_intervals_and_few_groups(sweep: Any) -> None:
    counts = {data: pick(sweep.samples, data=data).group.nunique() for data in DATA}
    assert counts["medical"] < MIN_GROUPS <= counts["natural"] == examples.N_NATURAL


def test_page_draws_the_results_own_figures(sweep: Any, choice: Any, page: Page) -> None:
    same_figures(page, sweep.figures(choice))
