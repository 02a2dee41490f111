"""The page and the figures of knockout sweeps show what the blocked passes gave."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pandas as pd
import pytest

from interp.stats import holm, paired_test
from tests.golden import examples, pages
from tests.golden.expected import (
    MIN_GROUPS,
    check_mean,
    ends,
    group_means,
    means,
    one,
    pick,
    same_cells,
    same_figures,
    same_points,
)
from tests.golden.parsed import Page, Table, check, check_p, matches, numbers

CONTROL = {"box→last": "elsewhere→last"}
PANELS = {"relative": r"probability.*%", "accuracy": r"accuracy.*point"}


@pytest.fixture(scope="module")
def page(knockout: Any, tmp_path_factory: pytest.TempPathFactory) -> Page:
    return Page(pages.report(knockout, tmp_path_factory.mktemp("knockout") / "page.html"))


@pytest.fixture(scope="module")
def heads_page(knockout_heads: Any, tmp_path_factory: pytest.TempPathFactory) -> Page:
    return Page(pages.report(knockout_heads, tmp_path_factory.mktemp("knockout-heads") / "page.html"))


def change(passes: pd.DataFrame, measure: str) -> pd.DataFrame:
    """Each sample's change under a blocked flow, from its probabilities and marks."""
    if measure == "relative":
        own = passes[(passes.correct_before == True)]  # noqa: E712 (missing marks count as neither)
        return own.assign(value=100 * (own.p_after - own.p_before) / own.p_before)
    own = passes[passes.correct.notna()]
    return own.assign(value=100 * (own.correct.astype(float) - own.correct_before.astype(float)))


def strongest(result: Any, data: str, flow: str) -> Any:
    """The row of the summary with the lowest mean change of the probability."""
    own = pick(result.summary(), data=data, flow=flow, measure="relative")
    lowest = means(pick(change(result.passes, "relative"), data=data, flow=flow), "layer")
    return one(own, layer=min(lowest, key=lambda layer: lowest[layer]))


@pytest.mark.parametrize("data", ["natural", "medical"])
def test_strongest_table_shows_probability_and_accuracy(knockout: Any, page: Page, data: str) -> None:
    table = page.table("flow", "probability", "accuracy", "layers", near=data)
    rows = table.records(
        flow="flow", layers="layers", probability="probability&%", accuracy="accuracy&points", n="samples"
    )
    measured = set(pick(knockout.passes, data=data).flow)
    assert [row["flow"] for row in rows] == [flow for flow in examples.FLOWS if flow in measured]
    for row in rows:
        best = strongest(knockout, data, row["flow"])
        here = {"data": data, "flow": row["flow"], "layer": best["layer"]}
        check_mean(row["probability"], best, digits=1)
        accuracy = one(knockout.summary(), **here, measure="accuracy")
        gaps = pick(change(knockout.passes, "accuracy"), **here)
        check_mean(row["accuracy"], accuracy, digits=1, mean=float(gaps.value.mean()))
        check(row["n"], len(pick(change(knockout.passes, "relative"), **here)))
        if best["mean"] <= -0.1:
            assert [shown.value for shown in numbers(row["layers"])] == sorted({best["first"], best["last"]})
        else:
            assert not numbers(row["layers"])


def test_probability_and_accuracy_differ_in_these_runs(knockout: Any) -> None:
    best = strongest(knockout, "natural", "image→last")
    accuracy = one(
        knockout.summary(), data="natural", flow="image→last", layer=best["layer"], measure="accuracy"
    )
    assert abs(best["mean"] - accuracy["mean"]) > 1


def differences(result: Any, data: str) -> list[dict[str, Any]]:
    """Each test made anew: a flow against the unedited model, then against its control."""
    own = pick(result.passes, data=data)
    own = own[own.correct_before == True]  # noqa: E712
    rows = []
    for flow in examples.FLOWS:
        for against in ("unedited", *([CONTROL[flow]] if flow in CONTROL else [])):
            for layer in sorted(set(own.layer)):
                here = pick(own, flow=flow, layer=layer).set_index("index")
                other = pick(own, flow=against, layer=layer).set_index("index").delta
                other = here.delta * 0 if against == "unedited" else other
                both = here.join(other.rename("other"), how="inner")
                if len(both):
                    test = paired_test(both.delta.to_numpy(), both.other.to_numpy(), both.group, seed=1)
                    ends = sorted({int(both["first"].iloc[0]), int(both["last"].iloc[0])})
                    gap = float((both.delta - both.other).mean())
                    rows.append(
                        {
                            "flow": flow,
                            "against": against,
                            "layers": ends,
                            "gap": gap,
                            "p": test.p,
                            "layer": layer,
                        }
                    )
    for row, p in zip(rows, holm([row["p"] for row in rows]), strict=True):
        row["holm"] = float(p)
    return rows


@pytest.mark.parametrize("data", ["natural", "medical"])
def test_tests_table_shows_differences_in_nats_and_p(knockout: Any, page: Page, data: str) -> None:
    table: Table = page.table("flow", "against", "difference.*nats", near=data)
    rows = table.records(
        flow="flow", against="against", layers="layers", gap="difference", ends="95", p="^ ?p$", holm="holm"
    )
    expected, tests = differences(knockout, data), knockout.tests()
    assert len(rows) == len(expected) > 0
    for row, own in zip(rows, expected, strict=True):
        assert (row["flow"], row["against"]) == (own["flow"], own["against"])
        assert [shown.value for shown in numbers(row["layers"])] == own["layers"]
        check(row["gap"], own["gap"], digits=3)
        check_p(row["p"], own["p"])
        check_p(row["holm"], own["holm"])
        tested = one(tests, data=data, flow=own["flow"], against=own["against"], layer=own["layer"])
        if tested["n_groups"] < MIN_GROUPS:
            check(row["ends"], math.nan)
        else:
            check(row["ends"], tested["low"], tested["high"], digits=3)


@pytest.mark.parametrize("data", ["natural", "medical"])
def test_sizes_of_flows_are_means_over_samples(knockout: Any, page: Page, data: str) -> None:
    (cell,) = [cell for cell in knockout.cells if cell.labels["data"] == data]
    sizes = cell.frame("sizes")
    table = page.table("flow", "keys", "queries", "tokens", near=data)
    places = [i for i, head in enumerate(table.heads) if matches("tokens", head)]
    keys, queries = table.place("keys"), table.place("queries")
    assert [keys, places[0], queries, places[1]] == sorted([keys, places[0], queries, places[1]])
    for row in table.rows:
        own = sizes[sizes.flow == row.cells[table.place("flow")]]
        check(row.cells[places[0]], float(own.n_keys.mean()), digits=1)
        check(row.cells[places[1]], float(own.n_queries.mean()), digits=1)
        check(row.cells[table.place("samples")], len(own))
    samples = cell.frame("samples")
    prompt, image = round(samples.n_prompt.mean()), round(samples.n_tokens.mean())
    assert matches(rf"\b{prompt} tokens\b.*?\b{image}\b", page.text)


@pytest.mark.parametrize("data", ["natural", "medical"])
@pytest.mark.parametrize("measure", list(PANELS))
def test_flow_lines_go_through_the_means(knockout: Any, page: Page, data: str, measure: str) -> None:
    figure = page.figure("flow")
    scores = pick(change(knockout.passes, measure), data=data)
    summary = pick(knockout.summary(), data=data, measure=measure)
    panel = [
        line
        for line in figure.lines()
        if matches(PANELS[measure], line.axis_title("y"))
        and _column(figure, line) == _columns(knockout).index(data)
    ]
    assert panel, "no such panel"
    for flow in dict.fromkeys(scores.flow):
        expected = means(pick(scores, flow=flow), "layer")
        (line,) = [one for one in panel if one.name == flow]
        same_points(line, expected)
        assert line.solid == (flow not in CONTROL.values())
        own = pick(summary, flow=flow)
        groups = int(own.n_groups.max())
        for place, layer in enumerate(line.x):
            row = one(own, layer=layer)
            check(line.hover(place), expected[layer], row["low"], row["high"], row["n"], row["n_groups"])
        thin = [one for one in panel if one.name.startswith(f"{flow} ") and "group" in one.name]
        if groups >= MIN_GROUPS:
            bands = _bands(figure, panel)
            assert not _spread(own) or any(_equal(band, ends(own)) for band, c in bands if c == line.colour)
            assert not thin
        elif flow not in CONTROL.values():
            wanted = group_means(pick(scores, flow=flow), "layer")
            assert len(thin) == len(wanted)
            for group, points in wanted.items():
                (own_line,) = [one for one in thin if one.name.endswith(f"group {group}")]
                same_points(own_line, points)


def _spread(own: pd.DataFrame) -> bool:
    return bool((own.high > own.low).any())


def _columns(result: Any) -> list[str]:
    return [cell.labels["data"] for cell in result.cells]


def _column(figure: Any, line: Any) -> int:
    starts = sorted({axis["domain"][0] for name, axis in figure.layout.items() if name.startswith("xaxis")})
    return starts.index(figure.axis("x", line.raw.get("xaxis", "x"))["domain"][0])


def _bands(figure: Any, panel: list[Any]) -> list[Any]:
    axes = {(line.raw.get("xaxis", "x"), line.raw.get("yaxis", "y")) for line in panel}
    kept = [raw for raw in figure.content["data"] if (raw.get("xaxis", "x"), raw.get("yaxis", "y")) in axes]
    return type(figure)({"data": kept, "layout": figure.layout}).coloured_bands()


def _equal(band: dict[Any, tuple[float, float]], expected: dict[Any, tuple[float, float]]) -> bool:
    return set(band) == set(expected) and all(
        np.allclose(sorted(band[x]), expected[x], rtol=1e-6, atol=1e-9) for x in band
    )


def test_control_has_the_colour_of_its_flow(page: Page) -> None:
    colours: dict[str, set[Any]] = {}
    for line in page.figure("flow").lines():
        colours.setdefault(line.name, set()).add(line.colour)
    assert colours["box→last"] == colours["elsewhere→last"] != colours["image→last"]


def test_lead_counts_samples_and_those_answered_rightly(knockout: Any, page: Page) -> None:
    for cell in knockout.cells:
        passes = pick(knockout.passes, data=cell.labels["data"])
        measured = passes["index"].nunique()
        assert matches(rf"\b{measured} samples of [^.,]*{cell.labels['data']}", page.text)


def test_failures_are_counted_by_flow(knockout: Any, page: Page) -> None:
    lost = knockout.failures
    whole = int(lost.flow.isna().sum())
    assert whole
    assert matches(rf"left out: {whole}\b", page.text)
    for flow, rows in lost[lost.flow.notna()].groupby("flow"):
        assert matches(rf"{flow}: {rows['sample'].nunique()} sample", page.text)


@pytest.mark.parametrize("flow", ["image→last", "question→last"])
def test_head_cells_lie_at_their_layer_and_head(knockout_heads: Any, heads_page: Page, flow: str) -> None:
    figure = heads_page.figure("heads")
    (heat,) = [one for one in figure.traces if one.kind == "heatmap" and one.panel == flow]
    own = pick(knockout_heads.passes, flow=flow)
    own = own.assign(value=100 * (own.p_after - own.p_before) / own.p_before)
    expected = dict(means(own, "layer", "head").items())
    same_cells(heat, expected)
    assert len(set(np.round(list(expected.values()), 9))) > len(expected) / 2
    assert (heat.axis_title("x"), heat.axis_title("y")) == ("layer", "head")
    assert matches(r"probability.*%", figure.layout["coloraxis"]["colorbar"]["title"]["text"])
    assert figure.layout["coloraxis"]["cmin"] == -figure.layout["coloraxis"]["cmax"]
    summary = pick(knockout_heads.summary(), flow=flow, measure="relative")
    for j, head in enumerate(heat.y):
        for i, layer in enumerate(heat.x):
            row = one(summary, layer=layer, head=head)
            told = heat.hover(j, i).partition(":")
            check(told[0], layer, head)
            check(told[2], expected[layer, head], row["low"], row["high"], row["n"], digits=0)


def test_head_table_names_the_lowest_head(knockout_heads: Any, heads_page: Page) -> None:
    own = knockout_heads.passes.assign(
        value=lambda rows: 100 * (rows.p_after - rows.p_before) / rows.p_before,
        gap=lambda rows: 100 * (rows.correct.astype(float) - rows.correct_before.astype(float)),
    )
    table = heads_page.table("flow", "head", "probability", "accuracy")
    for row in table.records(flow="flow", layers="layers", head="head", p="probability", a="accuracy"):
        found = means(pick(own, flow=row["flow"]), "layer", "head")
        layer, head = min(found, key=lambda place: found[place])
        check(row["head"], head)
        check(row["p"], found[layer, head], digits=1)
        check(row["a"], float(pick(own, flow=row["flow"], layer=layer, head=head).gap.mean()), digits=1)
        if found[layer, head] <= -0.1:
            check(row["layers"], layer)


def test_page_draws_the_results_own_figures(knockout: Any, page: Page) -> None:
    same_figures(page, knockout.figures())
