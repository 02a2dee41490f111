"""The page and the figures of a comparison of indicators show each indicator's own numbers."""

from __future__ import annotations

import math
import re
from typing import Any

import numpy as np
import pandas as pd
import pytest

from interp.metrics import METRICS
from interp.stats import holm, paired, paired_test
from tests.golden import pages
from tests.golden.expected import (
    MIN_GROUPS,
    check_mean,
    means,
    one,
    pick,
    same_cells,
    same_figures,
    same_points,
)
from tests.golden.parsed import Page, check, check_p, matches, numbers

DATA = ("marked", "a few")
TRUTHS = ("marker", "boxes")
FAITHFUL = ("deletion", "insertion", "comprehensiveness", "sufficiency")
COSTS = {
    "seconds": "^ *seconds$",
    "forwards": "forwards",
    "backwards": "backwards",
    "tokens": "token positions",
}


@pytest.fixture(scope="module")
def page(comparison: Any, tmp_path_factory: pytest.TempPathFactory) -> Page:
    return Page(pages.report(comparison, tmp_path_factory.mktemp("comparison") / "page.html"))


def mean(result: Any, **where: Any) -> float:
    return float(pick(result.scores, **where).value.mean())


def test_calibration_shows_each_indicator_against_each_truth(comparison: Any, page: Page) -> None:
    (table,) = [t for t in page.all_tables("marker", "boxes") if "marked" in t.groups]
    assert [row.cells[0] for row in table.rows] == list(comparison.indicators)
    found = comparison.found()
    for row in table.rows:
        for data in DATA:
            for truth in TRUTHS:
                where = {"data": data, "indicator": row.cells[0], "measure": "auroc", "against": truth}
                text = row.cells[table.place(f"{data} {truth}")]
                check_mean(text, one(comparison.summary(), **where), mean=mean(comparison, **where))
                verdict = pick(found, data=data, indicator=row.cells[0])
                finds = None if truth != "marker" or not len(verdict) else verdict.iloc[0]["finds"]
                assert ("✓" in text, "✗" in text) == (finds is True, finds is False)
    assert matches(re.escape(METRICS["auroc"].label), table.heads[0])


@pytest.mark.parametrize("data", DATA)
def test_every_metric_stands_under_its_header(comparison: Any, page: Page, data: str) -> None:
    labels = [f"{re.escape(METRICS[m].label)}, {truth}" for m in ("auroc", "ar") for truth in TRUTHS]
    (table,) = [t for t in page.all_tables(*labels) if t.title.endswith(data)]
    assert len(table.rows) == len(comparison.indicators)
    for row in table.rows:
        for metric in ("auroc", "ar"):
            for truth in TRUTHS:
                where = {"data": data, "indicator": row.cells[0], "measure": metric, "against": truth}
                text = row.cells[table.place(f"{re.escape(METRICS[metric].label)}, {truth}")].partition(" (")[
                    0
                ]
                check_mean(text, one(comparison.summary(), **where), mean=mean(comparison, **where))


@pytest.mark.parametrize("data", DATA)
def test_faithfulness_stands_under_its_removal(comparison: Any, page: Page, data: str) -> None:
    removals = [removal.name for removal in comparison.cells[0].study.removals]
    (table,) = [t for t in page.all_tables("deletion", "sufficiency") if t.title.endswith(data)]
    for row in table.rows:
        for measure in FAITHFUL:
            for removal in removals:
                where = {"data": data, "indicator": row.cells[0], "measure": measure, "against": removal}
                text = row.cells[table.place(f"{measure}, {re.escape(removal)}$")]
                scores = pick(comparison.scores, **where)
                if not scores.value.notna().any():
                    assert text.startswith("–")
                    continue
                undefined = int(scores.value.isna().sum())
                assert ("undefined" in text) == bool(undefined)
                check_mean(
                    text.partition(" (")[0],
                    one(comparison.summary(), **where),
                    mean=mean(comparison, **where),
                )


@pytest.mark.parametrize("data", DATA)
def test_costs_are_per_sample_and_in_plain_forwards(comparison: Any, page: Page, data: str) -> None:
    (cell,) = [cell for cell in comparison.cells if cell.labels["data"] == data]
    total = cell.folder.read_json("cost.json", {})["total"]
    (table,) = [
        t for t in page.all_tables("seconds", "forwards", "backwards", "GFLOP") if t.title.endswith(data)
    ]
    ratios = [i for i, head in enumerate(table.heads) if matches("× plain", head)]
    assert [row.cells[0] for row in table.rows] == ["plain forward", *comparison.indicators]
    for row in table.rows:
        each = {n: total[f"{n}|{row.cells[0]}"] / total[f"samples|{row.cells[0]}"] for n in (*COSTS, "flops")}
        plain = {n: total[f"{n}|plain forward"] / total["samples|plain forward"] for n in (*COSTS, "flops")}
        for name, head in COSTS.items():
            check(row.cells[table.place(head)], each[name], digits={"seconds": 4, "tokens": 0}.get(name, 2))
        check(row.cells[table.place("GFLOP$")], each["flops"] / 1e9, digits=3)
        for place, name in zip(ratios, ("seconds", "flops"), strict=True):
            assert place == table.place("^ *seconds$" if name == "seconds" else "GFLOP$") + 1
            check(row.cells[place], each[name] / plain[name], digits=2)
        peak = numbers(row.cells[table.place("peak memory")])[0]
        unit = {"kB": 1e3, "MB": 1e6, "GB": 1e9}[row.cells[table.place("peak memory")].split()[-1]]
        assert peak.value * unit == pytest.approx(total[f"peak_bytes|{row.cells[0]}"], rel=0.06)


@pytest.mark.parametrize("data", DATA)
def test_pairs_are_differences_with_holm(comparison: Any, page: Page, data: str) -> None:
    (table,) = [t for t in page.all_tables("means of both", "difference", "holm") if t.title.endswith(data)]
    own = pick(comparison.scores, data=data, measure="auroc", against="marker")
    wide = own.pivot(index=["sample", "group"], columns="indicator", values="value").reset_index()
    tests = []
    for row in table.rows:
        a, b = row.cells[0].split(" − ")
        both = wide[["group", a, b]].dropna()
        check(row.cells[table.place("means of both")], float(both[a].mean()), float(both[b].mean()), digits=2)
        gap = [float((both[a] - both[b]).mean())]
        if both.group.nunique() >= MIN_GROUPS:
            found = paired(both[a].to_numpy(), both[b].to_numpy(), both.group.to_numpy(object), seed=1)
            gap += [found.low, found.high]
        check(row.cells[table.place("difference")], *gap, digits=2)
        tests.append(
            paired_test(both[a].to_numpy(), both[b].to_numpy(), both.group.to_numpy(object), seed=1).p
        )
    assert len(table.rows) == math.comb(len(comparison.indicators), 2)
    for row, p, adjusted in zip(table.rows, tests, holm(tests), strict=True):
        check_p(row.cells[table.place("^ *p$")], p)
        check_p(row.cells[table.place("holm")], float(adjusted))


def test_groups_of_few_are_told_one_by_one(comparison: Any, page: Page) -> None:
    table = page.table("^ *group$", "random", "centre")
    own = pick(comparison.scores, data="a few", measure="auroc", against="marker")
    assert sorted(table.column("^ *group$")) == sorted(set(own.group))
    for row in table.rows:
        for label in set(own.indicator):
            value = pick(own, group=row.cells[0], indicator=label).value.mean()
            check(row.cells[table.place(f"^ *{label}$")], float(value), digits=2)


@pytest.mark.parametrize("data", DATA)
def test_localisation_points_are_means_with_intervals(comparison: Any, page: Page, data: str) -> None:
    figure = page.figure("localisation")
    assert all(
        matches(f"{re.escape(METRICS['auroc'].label)}.*higher is better", title)
        for title in figure.axis_titles("x")
    )
    for truth in TRUTHS:
        (points,) = [t for t in figure.traces if t.panel.startswith(data) and t.name == truth]
        assert sorted(points.y) == sorted(comparison.indicators)
        for place, label in enumerate(points.y):
            where = {"data": data, "indicator": label, "measure": "auroc", "against": truth}
            row, value = one(comparison.summary(), **where), mean(comparison, **where)
            assert points.x[place] == pytest.approx(value)
            few = row["n_groups"] < MIN_GROUPS
            assert points.bars("x")[place] == pytest.approx(
                (value, value) if few else (row["low"], row["high"])
            )
            told = numbers(points.hover(place).partition(": ")[2])
            for shown, wanted in zip(
                told, (value, row["low"], row["high"], row["n"], row["n_groups"]), strict=True
            ):
                assert shown.says(wanted)
    assert {x for x, _ in figure.vertical_lines()} == {0.5}


@pytest.mark.parametrize("data", DATA)
def test_sanity_points_are_mean_correlations(comparison: Any, page: Page, data: str) -> None:
    figure = page.figure("sanity")
    assert all(matches("rank correlation", title) for title in figure.axis_titles("x"))
    for name, measure, against in (
        ("another question", "question", "spearman"),
        ("shuffled", "weights", None),
    ):
        (points,) = [t for t in figure.traces if t.panel.startswith(data) and t.name.startswith(name)]
        own = pick(comparison.scores, data=data, measure=measure)
        own = own if against is None else pick(own, against=against)
        expected = dict(means(own, "indicator").items())
        assert dict(zip(points.y, points.x, strict=True)) == pytest.approx(expected, nan_ok=True)


@pytest.mark.parametrize("data", DATA)
def test_cost_figure_sets_score_against_time(comparison: Any, page: Page, data: str) -> None:
    figure = page.figure("pareto")
    (cell,) = [cell for cell in comparison.cells if cell.labels["data"] == data]
    total = cell.folder.read_json("cost.json", {})["total"]
    plain = total["seconds|plain forward"] / total["samples|plain forward"]
    points = [t for t in figure.traces if t.panel == data and t.name in comparison.indicators]
    assert len(points) == len(comparison.indicators)
    for point in points:
        seconds = total[f"seconds|{point.name}"] / total[f"samples|{point.name}"] / plain
        assert point.x == pytest.approx([seconds])
        where = {"data": data, "indicator": point.name, "measure": "auroc", "against": "marker"}
        assert point.y == pytest.approx([mean(comparison, **where)])
        row = one(comparison.summary(), **where)
        few = row["n_groups"] < MIN_GROUPS
        assert point.bars("y") == [pytest.approx((row["mean"],) * 2 if few else (row["low"], row["high"]))]
    assert all(matches("seconds, in plain forwards", title) for title in figure.axis_titles("x"))
    assert all(matches("higher is better", title) for title in figure.axis_titles("y"))
    best, front = -np.inf, []
    for x, y in sorted(((p.x[0], p.y[0]) for p in points), key=lambda place: (place[0], -place[1])):
        if y > best:
            best = y
            front.append((x, y))
    (line,) = [t for t in figure.traces if t.panel == data and t.raw.get("mode") == "lines"]
    assert list(zip(line.x, line.y, strict=True)) == front


def of_cell(page: Page, kind: str, data: str) -> Any:
    return page.figure(f"{kind}-{DATA.index(data) + 1}")


@pytest.mark.parametrize("data", DATA)
def test_agreement_cells_are_mean_correlations(comparison: Any, page: Page, data: str) -> None:
    (heat,) = of_cell(page, "agreement", data).traces
    own = pick(comparison.scores, data=data, measure="spearman")
    found = means(own, "indicator", "against")
    expected = {(label, label): 1.0 for label in comparison.indicators}
    expected |= {(b, a): value for (a, b), value in found.items()} | found
    same_cells(heat, expected)
    for j, row in enumerate(heat.raw["text"]):
        for i, text in enumerate(row):
            check(text, heat.z[j, i], digits=2)


@pytest.mark.parametrize("data", DATA)
def test_areas_lie_at_indicator_and_removal(comparison: Any, page: Page, data: str) -> None:
    figure = of_cell(page, "matrix", data)
    removals = [removal.name for removal in comparison.cells[0].study.removals]
    for measure in ("deletion", "insertion"):
        (heat,) = [t for t in figure.traces if matches(measure, t.panel)]
        assert ("↓" if measure == "deletion" else "↑") in heat.panel
        own = pick(comparison.scores, data=data, measure=measure)
        same_cells(
            heat, {(against, label): v for (label, against), v in means(own, "indicator", "against").items()}
        )
        frames = [s for s in figure.layout["shapes"] if s["xref"] == heat.raw.get("xaxis", "x")]
        places = {
            (heat.x[round((s["x0"] + s["x1"]) / 2)], heat.y[round((s["y0"] + s["y1"]) / 2)]) for s in frames
        }
        assert places == {(removals[0], "token knockout")}


@pytest.mark.parametrize("data", DATA)
def test_curves_are_mean_heights(comparison: Any, page: Page, data: str) -> None:
    figure = of_cell(page, "curves", data)
    titles = {"deletion": "left", "insertion": "back"}
    curves = pick(comparison.curves, data=data)
    for (label, removal, curve), part in curves.groupby(["indicator", "removal", "curve"]):
        found = [
            t
            for t in figure.traces
            if t.name == label
            and matches(f"{curve}.*{titles[curve]}", t.axis_title("y"))
            and _removal(figure, t, removal)
        ]
        (line,) = found
        points = part.groupby("fraction").height.mean()
        same_points(line, {100 * fraction: float(v) for fraction, v in points.items()})
    assert all(matches("%", title) for title in figure.axis_titles("x"))


def _removal(figure: Any, trace: Any, removal: str) -> bool:
    domain = figure.axis("x", trace.raw.get("xaxis", "x"))["domain"]
    notes = [n["text"] for n in figure.layout["annotations"] if abs(n["x"] - sum(domain) / 2) < 1e-6]
    return any(note.endswith(removal) for note in notes)


@pytest.mark.parametrize("data", DATA)
def test_drawn_samples_show_each_indicators_score(comparison: Any, page: Page, data: str) -> None:
    own = pick(comparison.scores, data=data, measure="auroc", against="marker")
    shown = [s for s in dict.fromkeys(own["sample"]) if page.cards(s)]
    assert len(shown) == min(3, own["sample"].nunique())
    for sample_id in shown:
        wanted = {row["indicator"]: row["value"] for _, row in pick(own, sample=sample_id).iterrows()}
        assert any(
            _captions_say(card, wanted) for card in page.cards(sample_id)
        )  # both data sets may have the id


def _captions_say(card: Any, wanted: dict[str, float]) -> bool:
    """Whether each indicator's caption has its score."""
    captions = [node.text for node in card.all("figcaption")]
    for label, value in wanted.items():
        told = [numbers(c.removeprefix(label)) for c in captions if c.startswith(f"{label} ")]
        if len(told) != 1 or len(told[0]) != 1 or not told[0][0].says(value) or told[0][0].step > 0.01:
            return False
    return True


def test_lead_counts_samples_groups_and_checks(comparison: Any, page: Page) -> None:
    for data in DATA:
        frame: pd.DataFrame = pick(comparison.samples, data=data)
        counts = (len(frame), frame.group.nunique(), int(frame.faithful.sum()), int(frame.checked.sum()))
        assert matches(r"{} \({} samples in {} groups\D+{}\D+{}\)".format(data, *counts), page.text)


def test_page_draws_the_results_own_figures(comparison: Any, page: Page) -> None:
    same_figures(page, comparison.figures())
