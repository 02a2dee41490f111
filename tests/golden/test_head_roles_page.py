"""The page of head roles shows each measure at its own layer and head, and the heads at its ends."""

from __future__ import annotations

from typing import Any

import pytest

from tests.golden import pages
from tests.golden.expected import MIN_GROUPS, means, one, pick, same_cells, same_figures
from tests.golden.parsed import Page, check, near

WORDS = {
    "image_share": "share of the image",
    "entropy": "entropy on the image",
    "sink_share": "share of the first token",
    "position": "same map on another image",
    "ablation": "effect of ablation",
    "copying": "copying",
}
N_TOP, N_LOW = 8, 4
DATA = ("natural", "medical")


@pytest.fixture(scope="module")
def page(roles: Any, tmp_path_factory: pytest.TempPathFactory) -> Page:
    return Page(pages.report(roles, tmp_path_factory.mktemp("roles") / "page.html"))


def found(result: Any, data: str, measure: str) -> dict[tuple[int, int], float]:
    """(layer, head) → the mean over samples, or what the weights give."""
    if measure == "copying":
        own = pick(result.copying, data=data)
        return dict(zip(zip(own.layer, own["head"], strict=True), own.copying, strict=True))
    return means(pick(result.scores, data=data, measure=measure), "layer", "head")


def place(name: str) -> tuple[int, int]:
    """(layer, head) of "L02H05"."""
    layer, _, head = name[1:].partition("H")
    return int(layer), int(head)


def tables(page: Page, measure: str, end: str) -> list[Any]:
    """The tables of a measure's end, natural data first."""
    return page.all_tables("^ ?head", near=f"{WORDS[measure]}.*{end}$")


@pytest.mark.parametrize("data", DATA)
@pytest.mark.parametrize("measure", list(WORDS))
def test_highest_heads_stand_in_order_with_their_numbers(
    roles: Any, page: Page, measure: str, data: str
) -> None:
    expected = found(roles, data, measure)
    both = tables(page, measure, "highest")
    assert len(both) == len(DATA)
    rows = both[DATA.index(data)].records(head="^ ?head", **WORDS)
    assert len(rows) == N_TOP
    best = sorted(expected.values(), reverse=True)
    for rank, row in enumerate(rows):
        head = place(row["head"])
        assert near(best[rank], expected[head])
        for name in WORDS:
            check_cell(roles, row[name], data, name, head)


@pytest.mark.parametrize("measure", ["ablation", "copying"])
def test_lowest_heads_stand_beside_the_highest(roles: Any, page: Page, measure: str) -> None:
    for data, table in zip(DATA, tables(page, measure, "lowest"), strict=True):
        expected = found(roles, data, measure)
        heads = [place(name) for name in table.column("^ ?head")]
        assert [expected[head] for head in heads] == pytest.approx(sorted(expected.values())[:N_LOW])


def check_cell(result: Any, text: str, data: str, measure: str, head: tuple[int, int]) -> None:
    """Mean and interval of a head, the interval only over groups enough."""
    value = found(result, data, measure)[head]
    if measure == "copying":
        return check(text, value, digits=2)
    row = one(result.summary(), data=data, measure=measure, layer=head[0], head=head[1])
    ends = [] if row["n_groups"] < MIN_GROUPS else [row["low"], row["high"]]
    return check(text, value, *ends, digits=2)


@pytest.mark.parametrize("data", DATA)
@pytest.mark.parametrize("measure", list(WORDS))
def test_heat_map_cells_lie_at_layer_and_head(roles: Any, page: Page, measure: str, data: str) -> None:
    figure = page.figure("heads" if data == "natural" else "heads-2")
    (heat,) = [one for one in figure.traces if one.kind == "heatmap" and one.panel.startswith(WORDS[measure])]
    expected = found(roles, data, measure)
    same_cells(heat, expected)
    for j, head in enumerate(heat.y):
        for i, layer in enumerate(heat.x):
            told = [layer, head, expected[layer, head]]
            if measure != "copying":
                row = one(roles.summary(), data=data, measure=measure, layer=layer, head=head)
                told += [row["low"], row["high"]]
            check(heat.hover(j, i).replace("layer", "").replace("head", ""), *told)


@pytest.mark.parametrize("data", DATA)
def test_scatter_sets_effect_against_share_of_the_image(roles: Any, page: Page, data: str) -> None:
    (points,) = [one for one in page.figure("roles").traces if one.kind == "scatter" and one.panel == data]
    names = [points.hover(i).partition("<br>")[0] for i in range(len(points.x))]
    shares, effects = found(roles, data, "image_share"), found(roles, data, "ablation")
    assert sorted(map(place, names)) == sorted(shares)
    for i, name in enumerate(names):
        assert near(shares[place(name)], points.x[i])
        assert near(effects[place(name)], points.y[i])


def test_page_draws_the_results_own_figures(roles: Any, page: Page) -> None:
    same_figures(page, roles.figures())
