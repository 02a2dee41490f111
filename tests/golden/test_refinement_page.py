"""The pages and the figures of refinements show marks, probabilities, flips and cost of the right method."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy.stats import binomtest

from interp.stats import holm, paired, paired_test
from tests.golden import examples, pages
from tests.golden.expected import MIN_GROUPS, one, pick, same_cells, same_figures
from tests.golden.parsed import Page, check, check_p, matches, numbers

DATA = ("natural", "medical")
METHODS = ("Plain", "VGRefine", "ScalingVis")
MEASURES = {"correct": "accuracy", "logprob": "log p", "probability": "^p of", "ar": "attention ratio"}


@pytest.fixture(scope="module")
def page(methods: Any, tmp_path_factory: pytest.TempPathFactory) -> Page:
    return Page(pages.report(methods, tmp_path_factory.mktemp("methods") / "page.html"))


@pytest.fixture(scope="module")
def single(run: Callable[[Any], Any]) -> Any:
    return run(examples.refinement())


@pytest.fixture(scope="module")
def single_page(single: Any, tmp_path_factory: pytest.TempPathFactory) -> Page:
    return Page(pages.report(single, tmp_path_factory.mktemp("single") / "page.html"))


@pytest.fixture(scope="module")
def parameters(run: Callable[[Any], Any]) -> Any:
    return run(examples.parameters())


def pairs(result: Any, measure: str, **where: Any) -> pd.DataFrame:
    """Before and after of each sample that has both, from the scores."""
    own = pick(result.scores, measure=measure, **where)
    wide = own.pivot(index=["sample", "group"], columns="when", values="value").reset_index()
    return wide[np.isfinite(wide.before) & np.isfinite(wide.after)]


def family(result: Any, measure: str) -> dict[tuple[str, str], dict[str, float]]:
    """(data, method) → p of whole groups' signs and Holm's over all cells; NaN for the plain model."""
    found = {}
    for cell in result.cells:
        where = {"data": cell.labels["data"], "method": cell.labels["method"]}
        own = pairs(result, measure, **where)
        plain = where["method"] == "Plain"
        p = (
            math.nan
            if plain
            else paired_test(own.after.to_numpy(), own.before.to_numpy(), own.group, seed=1).p
        )
        found[tuple(where.values())] = {"p": p}
    for row, adjusted in zip(found.values(), holm([row["p"] for row in found.values()]), strict=True):
        row["holm"] = float(adjusted)
    return found


def mcnemar(gained: int, lost: int) -> float:
    return binomtest(gained, gained + lost).pvalue if gained + lost else 1.0


def check_difference(text: str, own: pd.DataFrame, row: Any, scale: float, digits: int) -> None:
    gap = scale * float((own.after - own.before).mean())
    few = own.group.nunique() < MIN_GROUPS
    check(text, *([gap] if few else [gap, scale * row["low"], scale * row["high"]]), digits=digits)


def test_methods_stand_beside_the_plain_model(methods: Any, page: Page) -> None:
    table = page.table("before", "after", "points", "mcnemar", "holm", "log p", "passes", "tokens")
    rows = table.records(
        method="^ *method$", before="before&%", after="after&%", points="points", gained=r"^ *\+$", lost="^ *−$",
        mcnemar="mcnemar", holm="holm", logp="log p", s="^ *s ×", passes="passes", tokens="tokens",
    )  # fmt: skip
    assert len(rows) == 6
    tests = family(methods, "correct")
    for row in rows:
        where = {"data": row["section"] or "natural", "method": row["method"]}
        assert where["data"] in DATA
        own, summary = pairs(methods, "correct", **where), one(methods.summary(), **where, measure="correct")
        check(row["before"], 100 * float(own.before.mean()), digits=1)
        check(row["after"], 100 * float(own.after.mean()), digits=1)
        check_difference(row["points"], own, summary, 100, 1)
        gained, lost = int((own.after > own.before).sum()), int((own.after < own.before).sum())
        check(row["gained"], gained)
        check(row["lost"], lost)
        check_p(row["mcnemar"], mcnemar(gained, lost))
        check_p(row["holm"], tests[tuple(where.values())]["holm"])
        logs = pairs(methods, "logprob", **where)
        check_difference(row["logp"], logs, one(methods.summary(), **where, measure="logprob"), 1, 2)
        (cell,) = [cell for cell in methods.cells if where.items() <= dict(cell.labels).items()]
        spent = cell.folder.read_json("cost.json", {})["total"]
        for name, column in (("seconds", "s"), ("forwards", "passes"), ("tokens", "tokens")):
            check(row[column], spent[f"method_{name}"] / spent[f"plain_{name}"], digits=2)


def test_methods_differ_in_these_runs(methods: Any) -> None:
    after = {m: float(pairs(methods, "correct", data="natural", method=m).after.mean()) for m in METHODS}
    assert len(set(after.values())) == 3


def test_pairs_of_methods_are_compared(methods: Any, page: Page) -> None:
    table = page.table("accuracy", "difference", "only one right", "holm")
    rows = table.records(
        pair="^ *methods$", both="accuracy&%", gap="difference", only="only one", p="^ *p$", holm="holm"
    )
    expected = []
    for row in rows:
        data = next(name for name in DATA if name in row["pair"])
        a, b = (part.strip() for part in row["pair"].replace(data, "").split(" − "))
        first, second = (pairs(methods, "correct", data=data, method=m).set_index("sample") for m in (a, b))
        first, second = first.loc[second.index], second
        check(row["both"], 100 * float(first.after.mean()), 100 * float(second.after.mean()), digits=1)
        values = (first.after.to_numpy(float), second.after.to_numpy(float), first.group)
        gap = [float((first.after - second.after).mean())]
        if first.group.nunique() >= MIN_GROUPS:
            interval = paired(*values, seed=1)
            gap += [interval.low, interval.high]
        check(row["gap"], *(100 * one for one in gap), digits=1)
        better = first.after > second.after
        check(row["only"], int(better.sum()), int((first.after < second.after).sum()))
        expected.append(paired_test(*values, seed=1).p)
    assert len(rows) == 6
    for row, p, adjusted in zip(rows, expected, holm(expected), strict=True):
        check_p(row["p"], p)
        check_p(row["holm"], float(adjusted))


def test_flips_are_counted_right_and_wrong(methods: Any, page: Page) -> None:
    found = 0
    for table in page.all_tables("right after", "wrong after"):
        where = {
            "data": next(name for name in DATA if name in table.title),
            "method": next(name for name in METHODS[1:] if name in table.title),
        }
        own = pairs(methods, "correct", **where)
        for row in table.rows:
            before = 1.0 if matches("right before", row.cells[0]) else 0.0
            assert matches("right before|wrong before", row.cells[0])
            for after, word in ((1.0, "right after"), (0.0, "wrong after")):
                check(row.cells[table.place(word)], len(pick(own, before=before, after=after)))
        found += 1
    assert found == 4


def test_groups_of_few_are_told_one_by_one(methods: Any, page: Page) -> None:
    groups = sorted({*pick(methods.samples, data="medical").group})
    table = page.table("accuracy", groups[0])
    assert len(table.rows) == 3
    for row in table.rows:
        method = next(name for name in METHODS if name in row.cells[0])
        own = pairs(methods, "correct", data="medical", method=method)
        for group in groups:
            here = pick(own, group=group)
            if len(here):
                told = (100 * float(here.before.mean()), 100 * float(here.after.mean()), len(here))
                check(row.cells[table.heads.index(group)], *told)


def test_difference_figure_shows_points_and_intervals(methods: Any, page: Page) -> None:
    figure = page.figure("difference")
    assert all(matches("accuracy.*after − before.*points", title) for title in figure.axis_titles("x"))
    for data in DATA:
        big = [t for t in figure.traces if t.panel == data and "error_x" in t.raw]
        (points,) = big
        assert sorted(points.y) == sorted(METHODS)
        for place, method in enumerate(points.y):
            own = pairs(methods, "correct", data=data, method=method)
            row = one(methods.summary(), data=data, method=method, measure="correct")
            gap = 100 * float((own.after - own.before).mean())
            assert points.x[place] == pytest.approx(gap)
            few = own.group.nunique() < MIN_GROUPS
            wanted = (gap, gap) if few else (100 * row["low"], 100 * row["high"])
            assert points.bars("x")[place] == pytest.approx(wanted)
            told = [shown.value for shown in numbers(points.hover(place).partition(":")[2])]
            assert told[0] == pytest.approx(gap, abs=0.051)
            assert told[-2:] == [len(own), own.group.nunique()]
        singles = [t for t in figure.traces if t.panel == data and "error_x" not in t.raw]
        if data == "medical":
            (circles,) = singles
            shown = sorted(zip(circles.y, np.round(circles.x, 6).tolist(), strict=True))
            wanted = []
            for method in METHODS:
                own = pairs(methods, "correct", data=data, method=method)
                gaps = (own.after - own.before).groupby(own.group).mean()
                wanted += [(method, round(100 * float(gap), 6)) for gap in gaps]
            assert shown == sorted(wanted)


def test_headline_tells_before_after_difference_and_cost(single: Any, single_page: Page) -> None:
    own = pairs(single, "correct")
    row = one(single.summary(), measure="correct")
    before, after = (100 * float(own[when].mean()) for when in ("before", "after"))
    assert matches(
        rf"{before:.1f} → {after:.1f}.{{0,40}}\b{len(own)} samples, {own.group.nunique()} groups",
        single_page.text,
    )
    gained, lost = int((own.after > own.before).sum()), int((own.after < own.before).sum())
    assert matches(rf"\b{gained} wrong → right, {lost} right → wrong", single_page.text)
    gap = f"{after - before:.1f} [{100 * row['low']:.1f}, {100 * row['high']:.1f}]".replace("-", "−")
    assert gap in single_page.text
    spent = single.cells[0].folder.read_json("cost.json", {})["total"]
    ratios = [spent[f"method_{name}"] / spent[f"plain_{name}"] for name in ("seconds", "forwards", "tokens")]
    assert matches("{:.2f} in seconds, {:.2f} in passes, {:.2f} in token".format(*ratios), single_page.text)


def test_measures_table_has_each_mean(single: Any, single_page: Page) -> None:
    table = single_page.table("mean of", "before", "after", "difference")
    rows = table.records(name="mean of", before="^ *before$", after="^ *after$", gap="difference")
    assert len(rows) == len(MEASURES)
    for row, (measure, word) in zip(rows, MEASURES.items(), strict=True):
        assert matches(word, row["name"])
        own = pairs(single, measure)
        check(row["before"], float(own.before.mean()), digits=3)
        check(row["after"], float(own.after.mean()), digits=3)
        check_difference(row["gap"], own, one(single.summary(), measure=measure), 1, 3)


def test_drawn_samples_show_both_answers_and_probabilities(single: Any, single_page: Page) -> None:
    shown = [s for s in single.samples["sample"] if single_page.cards(s)]
    assert len(shown) == 6
    scores = single.scores
    for sample_id in shown:
        (card,) = single_page.cards(sample_id)
        row = one(single.samples, sample=sample_id)
        told = card.text.replace("✓", " ").replace("✗", " ")
        for when in ("before", "after"):
            p = 100 * one(scores, sample=sample_id, measure="probability", when=when)["value"]
            assert matches(rf"{row[f'text_{when}']} *\({p:.1f} %\)", told)
        ar = [one(scores, sample=sample_id, measure="ar", when=when)["value"] for when in ("before", "after")]
        assert matches(rf"attention ratio {ar[0]:.2f} → {ar[1]:.2f}", told)
        hidden = int(row["n_tokens"] - row["n_kept"])
        assert matches(rf"\({hidden} of {int(row['n_tokens'])}\)", told)
        marks = [bool(row[f"correct_{when}"]) for when in ("before", "after")]
        assert (card.text.count("✓"), card.text.count("✗")) == (sum(marks), 2 - sum(marks))


def test_cells_of_two_parameters_lie_at_their_place(
    parameters: Any, tmp_path_factory: pytest.TempPathFactory
) -> None:
    page = Page(pages.report(parameters, tmp_path_factory.mktemp("parameters") / "page.html"))
    figure = page.figure("heat")
    (heat,) = [one for one in figure.traces if one.kind == "heatmap"]
    expected = {}
    for k in (1, 3):
        for p in (20, 95):
            own = pairs(parameters, "correct", method=f"{k}, {p}")
            expected[f"{p}", f"{k}"] = 100 * float((own.after - own.before).mean())
    assert len(set(expected.values())) > 2
    same_cells(heat, expected)
    assert matches("percentile", heat.axis_title("x"))
    assert matches("heads", heat.axis_title("y"))
    assert matches("points", figure.layout["coloraxis"]["colorbar"]["title"]["text"])
    texts = np.array(heat.raw["text"])
    for j, up in enumerate(heat.y):
        for i, across in enumerate(heat.x):
            check(texts[j, i], expected[across, up], digits=1)
            assert numbers(heat.hover(j, i))[2].says(expected[across, up])


def test_page_draws_the_results_own_figures(methods: Any, page: Page) -> None:
    same_figures(page, methods.figures())
