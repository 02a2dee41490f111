"""The pages of head rankings and of head attributions show each number at its own layer and head."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy.stats import rankdata, spearmanr

from interp.metrics import METRICS
from interp.study.head_attribution import page as page_of_attribution
from tests.golden import pages
from tests.golden.expected import MIN_GROUPS, check_mean, means, one, pick, same_cells, same_figures
from tests.golden.parsed import Page, Trace, check, matches, numbers

K = 6
DATA = ("natural", "medical")
EFFECTS = {"direct": "direct effect.*logits", "total": "total effect.*logits", "ar": "attention ratio"}


@pytest.fixture(scope="module")
def ranking_page(rankings: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Page:
    path = tmp_path_factory.mktemp("ranking") / "page.html"
    return Page(pages.report(rankings["natural"], path, k=K, against=[rankings["medical"]]))


@pytest.fixture(scope="module")
def attribution_page(
    attribution: Any, described_rankings: dict[str, Any], tmp_path_factory: pytest.TempPathFactory
) -> Page:
    path = tmp_path_factory.mktemp("attribution") / "page.html"
    return Page(pages.attribution(attribution, described_rankings, path))


def order(result: Any) -> list[tuple[int, int]]:
    """Heads from the lowest mean KL, ties by number."""
    found = means(result.scores, "layer", "head")
    return sorted(found, key=lambda place: (found[place], place))


@pytest.mark.parametrize("data", DATA)
def test_top_heads_stand_in_order_with_their_numbers(
    rankings: dict[str, Any], ranking_page: Page, data: str
) -> None:
    result = rankings[data]
    found, summary = means(result.scores, "layer", "head"), result.summary()
    even = result.scores.merge(result.samples[["sample", "even"]], on="sample").dropna(subset=["value"])
    gain = means(even.assign(value=even.even - even.value), "layer", "head")  # lower KL is better
    table = ranking_page.table("rank", "layer", "head", "mean", "gain", near=data)
    rows = table.records(
        rank="rank", layer="layer", head="head", mean="mean", ends="95", gain="gain", n="samples"
    )
    assert len(rows) == K
    for place, (row, head) in enumerate(zip(rows, order(result), strict=False), start=1):
        check(row["rank"], place)
        check(row["layer"], head[0])
        check(row["head"], head[1])
        check(row["mean"], found[head], digits=2)
        check(row["gain"], gain[head], digits=2)
        own = one(summary, layer=head[0], head=head[1])
        check(row["n"], int(pick(result.scores, layer=head[0], head=head[1]).value.notna().sum()))
        few = own["n_groups"] < MIN_GROUPS
        check(row["ends"], *([float("nan")] if few else [own["low"], own["high"]]), digits=0 if few else 2)


def test_shared_top_heads_have_a_star(rankings: dict[str, Any], ranking_page: Page) -> None:
    tops = [set(order(result)[:K]) for result in rankings.values()]
    for data in DATA:
        for row in ranking_page.table("rank", "layer", "head", "gain", near=data).records(
            r="rank", l="layer", h="head"
        ):
            assert ("*" in row["r"]) == ((int(row["l"]), int(row["h"])) in tops[0] & tops[1])


@pytest.mark.parametrize("data", DATA)
def test_heat_map_cells_lie_at_layer_and_head(
    rankings: dict[str, Any], ranking_page: Page, data: str
) -> None:
    result, figure = rankings[data], ranking_page.figure("heads")
    (heat,) = [one for one in figure.traces if one.kind == "heatmap" and one.panel == data]
    expected = means(result.scores, "layer", "head")
    same_cells(heat, expected)
    assert (heat.axis_title("x"), heat.axis_title("y")) == ("layer", "head")
    summary, ranks = result.summary(), {head: place for place, head in enumerate(order(result), start=1)}
    for j, head in enumerate(heat.y):
        for i, layer in enumerate(heat.x):
            row = one(summary, layer=layer, head=head)
            told = (layer, head, expected[layer, head], row["low"], row["high"], ranks[layer, head])
            check(heat.hover(j, i), *told)
    marks = [one for one in figure.traces if one.kind == "scatter" and one.panel == data]
    assert [set(zip(one.x, one.y, strict=True)) for one in marks] == [set(order(result)[:K])]


def test_colour_scale_says_metric_and_direction(rankings: dict[str, Any], ranking_page: Page) -> None:
    scale = ranking_page.figure("heads").layout["coloraxis"]
    both = np.concatenate([list(means(r.scores, "layer", "head").values()) for r in rankings.values()])
    assert scale["cmin"] == pytest.approx(both.min())
    assert scale["cmax"] == pytest.approx(np.quantile(both, 0.98))
    assert scale["reversescale"] is True
    assert matches(re.escape(METRICS["kl"].label), scale["colorbar"]["title"]["text"])
    assert matches("lower is better", scale["colorbar"]["title"]["text"])


def test_ranks_are_set_against_ranks(rankings: dict[str, Any], ranking_page: Page) -> None:
    (points,) = [one for one in ranking_page.figure("ranks").traces if one.kind == "scatter"]
    orders = [order(rankings[data]) for data in DATA]
    expected = {(*head, orders[0].index(head) + 1, orders[1].index(head) + 1) for head in orders[0]}
    found = set()
    for place in range(len(points.x)):
        layer, head, a, b = (int(shown.value) for shown in numbers(points.hover(place)))
        found.add((layer, head, a, b))
        assert (points.x[place], points.y[place]) == (a, b)
    assert found == expected
    assert matches("rank in natural", points.axis_title("x"))
    assert matches("rank in medical", points.axis_title("y"))


def test_agreement_is_spearmans_and_the_shared_share(rankings: dict[str, Any], ranking_page: Page) -> None:
    found = [means(rankings[data].scores, "layer", "head") for data in DATA]
    heads = sorted(found[0])
    rho = float(spearmanr([found[0][h] for h in heads], [found[1][h] for h in heads]).statistic)
    overlap = len(set(order(rankings["natural"])[:K]) & set(order(rankings["medical"])[:K])) / K
    text = ranking_page.text.replace("−", "-")
    assert matches(rf"rank correlation over {len(heads)} heads {rho:.2f}\b", text)
    assert matches(rf"overlap of the top {K} {overlap:.2f}\b", text)
    assert matches(rf"chance {K / len(heads):.2f}: {K} of {len(heads)}", text)


def test_groups_of_few_are_set_against_the_other_data(rankings: dict[str, Any], ranking_page: Page) -> None:
    other = means(rankings["natural"].scores, "layer", "head")
    heads = sorted(other)
    table = ranking_page.table("group", "rank correlation", "overlap")
    groups = rankings["medical"].samples.group
    assert sorted(table.column("group")) == sorted(set(groups))
    for row in table.records(data="data", group="group", n="samples", rho="rank correlation", top="overlap"):
        own = means(pick(rankings["medical"].scores, group=row["group"]), "layer", "head")
        assert row["data"] == "medical"
        check(row["n"], int((groups == row["group"]).sum()))
        check(
            row["rho"],
            float(spearmanr([own[h] for h in heads], [other[h] for h in heads]).statistic),
            digits=2,
        )
        best = [set(sorted(heads, key=lambda h, v=values: v[h])[:K]) for values in (own, other)]
        check(row["top"], len(best[0] & best[1]) / K, digits=2)


def test_ranking_counts_samples_and_failures(rankings: dict[str, Any], ranking_page: Page) -> None:
    for data, result in rankings.items():
        assert matches(rf"\b{len(result.samples)} validation samples of {data}", ranking_page.text)
    lost, whole = rankings["medical"].failures, len(rankings["medical"].study.data)
    assert matches(rf"{int(lost.layer.isna().sum())} of {whole} samples left out", ranking_page.text)


def effects(attribution: Any, described_rankings: dict[str, Any], data: str, name: str) -> dict[Any, float]:
    """(layer, head) → mean effect, or attention ratio."""
    if name == "ar":
        return means(described_rankings[data].scores, "layer", "head")
    return means(pick(attribution.scores, data=data, part="head", measure=name), "layer", "head")


def summary_of(attribution: Any, described_rankings: dict[str, Any], data: str, name: str) -> pd.DataFrame:
    """The same with intervals."""
    if name == "ar":
        return described_rankings[data].summary()
    return pick(attribution.summary(), data=data, part="head", measure=name)


@pytest.mark.parametrize("name", list(EFFECTS))
@pytest.mark.parametrize("data", DATA)
def test_effects_lie_at_layer_and_head(
    attribution: Any, described_rankings: dict[str, Any], attribution_page: Page, data: str, name: str
) -> None:
    figure = attribution_page.figure("heads")
    (heat,) = [one for one in figure.traces if matches(f"{data}: {EFFECTS[name]}", one.panel)]
    expected = effects(attribution, described_rankings, data, name)
    same_cells(heat, expected)
    summary = summary_of(attribution, described_rankings, data, name)
    for place in ((0, 0), (3, 1), (7, 5)):
        row = one(summary, layer=heat.x[place[1]], head=heat.y[place[0]])
        told = (row["layer"], row["head"], float(heat.z[place]), row["low"], row["high"])
        check(heat.hover(*place), *told)
    scale = figure.layout[heat.raw["coloraxis"]]
    assert matches("attention ratio" if name == "ar" else "logits", str(scale["colorbar"]["title"]))
    if name != "ar":
        assert scale["cmin"] == -scale["cmax"]


def test_largest_gaps_of_direct_and_total_are_listed(
    attribution: Any, described_rankings: dict[str, Any], attribution_page: Page
) -> None:
    table = attribution_page.table("layer, head", "direct", "total", "attention ratio")
    rows = table.records(data="data", place="layer, head", **EFFECTS)
    for data in DATA:
        found = {name: effects(attribution, described_rankings, data, name) for name in EFFECTS}
        largest = sorted(found["direct"], key=lambda h: -abs(found["total"][h] - found["direct"][h]))
        own = [row for row in rows if row["data"] == data]
        assert own
        for row, head in zip(own, largest, strict=False):
            check(row["place"], *head)
            for name in EFFECTS:
                interval = one(
                    summary_of(attribution, described_rankings, data, name), layer=head[0], head=head[1]
                )
                check_mean(row[name], interval, mean=found[name][head])


def test_correlations_are_spearmans(
    attribution: Any, described_rankings: dict[str, Any], attribution_page: Page
) -> None:
    table = attribution_page.table("between", "spearman", "groups")
    rows = table.records(data="data", between="between", rho="spearman", groups="groups")
    assert len(rows) == 6
    for row in rows:
        first, second = row["between"].split(" and ")
        names = [
            next(n for n, pattern in EFFECTS.items() if matches(pattern.partition(".")[0], side))
            for side in (first, second)
        ]
        scores = [common(attribution, described_rankings, row["data"], name) for name in names]
        a, b = (means(own, "layer", "head") for own in scores)
        heads = sorted(a)
        rho = float(spearmanr([a[h] for h in heads], [b[h] for h in heads]).statistic)
        groups = len(_groups(attribution, described_rankings, row["data"]))
        check(row["groups"], groups)
        ends = [] if groups < MIN_GROUPS else rank_interval(*scores)
        check(row["rho"].partition("(")[0], rho, *ends, digits=2)


def _groups(attribution: Any, described_rankings: dict[str, Any], data: str) -> set[str]:
    """The groups that both studies measured."""
    return set(pick(attribution.samples, data=data).group) & set(described_rankings[data].samples.group)


def common(attribution: Any, described_rankings: dict[str, Any], data: str, name: str) -> pd.DataFrame:
    """The heads' scores of the groups that both studies measured."""
    own = described_rankings[data].scores
    if name != "ar":
        own = pick(attribution.scores, data=data, part="head", measure=name)
    return own[own.group.isin(_groups(attribution, described_rankings, data))]


def rank_interval(first: pd.DataFrame, second: pd.DataFrame) -> list[float]:
    """95 % of Spearman's ρ over 1000 draws of groups, both drawn together; seed 1."""
    n = first.group.nunique()
    weights = np.random.default_rng(1).multinomial(n, np.full(n, 1 / n), size=1000)
    ranks = []
    for own in (first, second):
        wide = own.pivot_table(
            index="group", columns=["layer", "head"], values="value", aggfunc=["sum", "count"]
        )
        wide = wide.sort_index()
        ranks.append(
            rankdata((weights @ wide["sum"].to_numpy()) / (weights @ wide["count"].to_numpy()), axis=1)
        )
    found = [np.corrcoef(a, b)[0, 1] for a, b in zip(*ranks, strict=True)]
    return np.quantile(found, [0.025, 0.975]).tolist()


@pytest.mark.parametrize("part", ["attention", "mlp", "embedding"])
@pytest.mark.parametrize("data", DATA)
def test_bars_are_the_parts_by_layer(attribution: Any, attribution_page: Page, data: str, part: str) -> None:
    figure = attribution_page.figure("parts")
    (bar,) = [one for one in figure.traces if one.name.lower() == part and one.panel == data]
    scores = pick(attribution.scores, data=data, part=part)
    expected = means(scores, "layer")
    assert dict(zip(bar.x, bar.y, strict=True)) == pytest.approx(expected)
    summary = pick(attribution.summary(), data=data, part=part)
    for layer, middle, (low, high) in zip(bar.x, bar.y, bar.bars("y"), strict=True):
        row = one(summary, layer=layer)
        few = row["n_groups"] < MIN_GROUPS
        assert (low, high) == pytest.approx((middle, middle) if few else (row["low"], row["high"]))
    assert matches("logits", bar.axis_title("y"))


@pytest.mark.parametrize("name", ["total", "ar"])
@pytest.mark.parametrize("data", DATA)
def test_scatter_sets_effects_against_the_direct_one(
    attribution: Any, described_rankings: dict[str, Any], attribution_page: Page, data: str, name: str
) -> None:
    x, y = (effects(attribution, described_rankings, data, one) for one in ("direct", name))
    column = DATA.index(data)
    figure = attribution_page.figure("scatter")
    found = [
        p
        for p in _points(figure)
        if matches(EFFECTS[name], p.axis_title("y")) and _column(figure, p) == column
    ]
    (points,) = found
    assert matches("direct effect.*logits", points.axis_title("x"))
    told = {}
    for place in range(len(points.x)):
        layer, head = (int(shown.value) for shown in numbers(points.hover(place))[:2])
        told[layer, head] = (points.x[place], points.y[place])
    assert told == {head: pytest.approx((x[head], y[head])) for head in x}


def _points(figure: Any) -> list[Trace]:
    return [one for one in figure.traces if one.raw.get("mode") == "markers"]


def _column(figure: Any, trace: Trace) -> int:
    starts = sorted({axis["domain"][0] for name, axis in figure.layout.items() if name.startswith("xaxis")})
    return starts.index(figure.axis("x", trace.raw.get("xaxis", "x"))["domain"][0])


def test_attribution_tells_samples_and_error(attribution: Any, attribution_page: Page) -> None:
    assert matches(rf"\b{len(attribution.samples)} samples", attribution_page.text)
    error = float(attribution.samples.completeness_error.max())
    assert f"{error:.1g}" in attribution_page.text
    assert matches(rf"\b{len(attribution.failures)} left out", attribution_page.text)


def test_pages_draw_the_results_own_figures(
    rankings: dict[str, Any],
    ranking_page: Page,
    attribution: Any,
    described_rankings: dict[str, Any],
    attribution_page: Page,
) -> None:
    same_figures(ranking_page, rankings["natural"].figures(K, against=[rankings["medical"]]))
    same_figures(attribution_page, page_of_attribution.figures(attribution, described_rankings))
