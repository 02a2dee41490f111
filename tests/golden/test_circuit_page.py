"""The page of a circuit shows each edge's effects, and the shares that graphs of the strongest edges keep."""

from __future__ import annotations

import math
from typing import Any

import pytest

from tests.golden import pages
from tests.golden.expected import means, pick, same_figures
from tests.golden.parsed import Page, check, matches, near, numbers

N_TABLE, N_DRAWN = 20, 40


@pytest.fixture(scope="module")
def page(circuit: Any, tmp_path_factory: pytest.TempPathFactory) -> Page:
    return Page(pages.report(circuit, tmp_path_factory.mktemp("circuit") / "page.html"))


def strongest(result: Any) -> list[tuple[str, str, list[float], list[float]]]:
    """Source, receiver, effects and exact effects of each edge by sample, the largest mean |effect| first."""
    frame = result.cells[0].frame("edges")
    found = [
        (str(source), str(receiver), own.effect.tolist(), own.exact.dropna().tolist())
        for (source, receiver), own in frame.groupby(["source", "receiver"], sort=False, observed=True)
    ]
    return sorted(found, key=lambda edge: -abs(sum(edge[2]) / len(edge[2])))


def test_strongest_edges_stand_in_order_with_their_numbers(circuit: Any, page: Page) -> None:
    rows = page.table("from", "to", "effect.*nats").records(
        source="^ ?from", receiver="^ ?to", effect="^ ?effect", positive="above 0", exact="exact", n="patched"
    )
    assert len(rows) == N_TABLE
    several = 0
    for row, (source, receiver, effects, exact) in zip(rows, strongest(circuit), strict=False):
        assert (row["source"], row["receiver"]) == (source, receiver)
        check(row["effect"], sum(effects) / len(effects), digits=3)
        check(row["exact"], sum(exact) / len(exact) if exact else math.nan, digits=3 if exact else 0)
        assert matches("%", row["positive"])
        check(row["positive"].rstrip("%"), 100 * sum(value > 0 for value in effects) / len(effects))
        assert [shown.value for shown in numbers(row["n"])] == [len(exact), len(effects)]
        several += len(exact) > 0
    assert several > 2


def test_drawn_edges_join_their_nodes_and_say_their_effect(circuit: Any, page: Page) -> None:
    figure = page.figure("graph")
    (nodes,) = [one for one in figure.traces if "markers" in one.raw["mode"]]
    places = dict(zip(nodes.raw["text"], zip(nodes.x, nodes.y, strict=True), strict=True))
    edges = [one for one in figure.traces if one.raw["mode"] == "lines" and len(one.x) > 1]
    expected = {
        (source, receiver): sum(effects) / len(effects)
        for source, receiver, effects, _ in strongest(circuit)[:N_DRAWN]
    }
    key = {one.name: one.colour for one in figure.traces if one.name}
    found, widths = {}, []
    for one in edges:
        source, _, receiver = one.hover(0).partition(":")[0].partition(" → ")
        effect = expected[source, receiver]
        check(one.hover(0).partition(":")[2], effect, digits=3)
        assert (one.x[0], one.y[0]) == pytest.approx(places[source])
        assert (one.x[-1], one.y[-1]) == pytest.approx(places[receiver])
        assert one.colour == key["for the answer" if effect > 0 else "against it"]
        widths.append((abs(effect), one.raw["line"]["width"]))
        found[source, receiver] = effect
    assert found == expected
    assert {effect > 0 for effect in expected.values()} == {True, False}
    assert [width for _, width in sorted(widths)] == sorted(width for _, width in widths)


def test_nodes_stand_at_their_layer_and_head(page: Page) -> None:
    (nodes,) = [one for one in page.figure("graph").traces if "markers" in one.raw["mode"]]
    for name, x, y in zip(nodes.raw["text"], nodes.x, nodes.y, strict=True):
        if name.startswith("L") and "H" in name:
            layer, _, head = name[1:].partition("H")
            assert (x, y) == (int(layer), int(head))


def test_points_are_mean_shares_by_number_of_edges(circuit: Any, page: Page) -> None:
    (points,) = [one for one in page.figure("faithfulness").traces if "markers" in one.raw["mode"]]
    expected = means(pick(circuit.scores, measure="share"), "n_edges")
    assert set(points.points) == set(expected) == {5, 40, 160}
    for x, value in expected.items():
        assert near(value, points.points[x])
    values = means(pick(circuit.scores, measure="value"), "n_edges")
    assert any(abs(values[x] - expected[x]) > 0.1 for x in expected)


def test_lead_counts_samples_and_failures(circuit: Any, page: Page) -> None:
    measured = circuit.cells[0].frame("edges")["index"].nunique()
    assert matches(rf"\b{measured} samples \(natural\)", page.text)
    assert len(circuit.failures) == 4 - measured > 0
    assert matches(rf"\b{len(circuit.failures)} left out", page.text)


def test_page_draws_the_results_own_figures(circuit: Any, page: Page) -> None:
    same_figures(page, circuit.figures())
