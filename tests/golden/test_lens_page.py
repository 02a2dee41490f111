"""The page of a logit lens shows what the image tokens' words gave."""

from __future__ import annotations

import re
from typing import Any

import pandas as pd
import pytest

from interp.stats import holm, paired, paired_test
from tests.golden import pages
from tests.golden.expected import (
    MIN_GROUPS,
    ends,
    group_means,
    has_band,
    means,
    one,
    pick,
    same_figures,
    same_points,
)
from tests.golden.parsed import Page, check, check_p, matches, numbers

OWN, OTHER = "own word", "another's word"
LINES = {
    "gap": (("gap", OWN), ("gap", OTHER)),
    "first": (("first inside", OWN), ("first outside", OWN), ("first inside", OTHER)),
}
TITLES = {"gap": r"inside − outside.*nats", "first": "share"}


@pytest.fixture(scope="module")
def page(lens: Any, tmp_path_factory: pytest.TempPathFactory) -> Page:
    return Page(pages.report(lens, tmp_path_factory.mktemp("lens") / "page.html"))


def gaps(result: Any) -> pd.DataFrame:
    """Own word minus another's, by data, word and layer, with Holm's p over all."""
    scores, rows = pick(result.scores, measure="gap"), []
    for (data, word, layer), part in scores.groupby(["data", "word", "layer"], sort=False):
        wide = (
            part.pivot_table(index=["sample", "group"], columns="of", values="value").dropna().reset_index()
        )
        found = paired(wide[OWN], wide[OTHER], wide.group, seed=1)
        p = paired_test(wide[OWN], wide[OTHER], wide.group, seed=1).p
        mean = float((wide[OWN] - wide[OTHER]).mean())
        rows.append((data, word, layer, mean, found.low, found.high, len(wide), wide.group.nunique(), p))
    frame = pd.DataFrame(rows, columns=["data", "word", "layer", "mean", "low", "high", "n", "n_groups", "p"])
    return frame.assign(holm=holm(frame.p.to_numpy()))


def test_table_shows_each_words_best_layer(lens: Any, page: Page) -> None:
    found = gaps(lens)
    best = found.loc[found.groupby(["data", "word"], sort=False)["mean"].idxmax()]
    rows = page.table("word", "layer", "gap.*nats", "Holm's p").records(
        data="data", word="word", layer="layer", gap="gap&nats", p="Holm's p", n="samples"
    )
    assert len(rows) == len(best) == 4
    for row in rows:
        (data,) = [name for name in ("natural", "medical") if name in row["data"]]
        own = one(best, data=data, word=row["word"])
        check(row["layer"], own["layer"])
        few = own["n_groups"] < MIN_GROUPS
        check(row["gap"], *(own[name] for name in (("mean",) if few else ("mean", "low", "high"))), digits=2)
        check_p(row["p"], own["holm"])
        assert [shown.value for shown in numbers(row["n"])][:2] == [own["n"], own["n_groups"]]


@pytest.mark.parametrize("name", list(LINES))
@pytest.mark.parametrize("data", ["natural", "medical"])
def test_lines_and_bands_are_the_summary(lens: Any, page: Page, name: str, data: str) -> None:
    figure = page.figure(name)
    column = [cell.labels["data"] for cell in lens.cells].index(data)
    for word in ("label", "answer"):
        panel = [
            line
            for line in figure.traces
            if matches(word, line.axis_title("y")) and _column(figure, line) == column
        ]
        assert panel
        assert all(matches(TITLES[name], line.axis_title("y")) for line in panel)
        axes = {(line.raw.get("xaxis", "x"), line.raw.get("yaxis", "y")) for line in panel}
        assert len(axes) == 1
        here = type(figure)({"data": [line.raw for line in panel], "layout": figure.layout})
        drawn = 0
        for measure, of in LINES[name]:
            scores = pick(lens.scores, data=data, word=word, measure=measure, of=of)
            (line,) = [one for one in here.lines() if one.name == f"{measure}, {of}"]
            same_points(line, means(scores, "layer"))
            summary = pick(lens.summary(), data=data, word=word, measure=measure, of=of)
            for place, layer in enumerate(line.x):
                row = one(summary, layer=layer)
                check(line.hover(place), line.y[place], row["low"], row["high"], row["n"], row["n_groups"])
            if int(summary.n_groups.max()) >= MIN_GROUPS:
                drawn += 1
                if (summary.high > summary.low).any():
                    has_band(here, line, ends(summary))
            elif line.solid:
                wanted = group_means(scores, "layer")
                start = f"{measure}, {of} · group "
                thin = {one.name.removeprefix(start): one for one in here.lines() if start in one.name}
                assert set(thin) == set(wanted)
                for group, points in wanted.items():
                    same_points(thin[group], points)
        assert len(here.bands()) == drawn
        assert bool(drawn) == (data == "natural")


def test_bands_have_a_width(page: Page) -> None:
    for name in LINES:
        for band in page.figure(name).bands():
            assert any(abs(a - b) > 1e-9 for a, b in band.values()) or name == "first"
    assert any(abs(a - b) > 0.01 for band in page.figure("first").bands() for a, b in band.values())


def _column(figure: Any, line: Any) -> int:
    starts = sorted({axis["domain"][0] for name, axis in figure.layout.items() if name.startswith("xaxis")})
    return starts.index(figure.axis("x", line.raw.get("xaxis", "x"))["domain"][0])


def test_few_groups_are_told_one_by_one(lens: Any, page: Page) -> None:
    last = lens.scores.layer.max()
    for word in ("label", "answer"):
        scores = pick(lens.scores, data="medical", word=word, measure="gap", of=OWN, layer=last)
        for group, value in means(scores, "group").items():
            told = re.findall(rf"medical, {word}\b.*?{re.escape(str(group))}: (−?[\d.]+)", page.text)
            assert told
            check(told[0], value, digits=2)


def test_failures_and_samples_are_counted(lens: Any, page: Page) -> None:
    assert matches(rf"\b{len(lens.samples)} samples", page.text)
    assert matches(rf"Words or samples left out: {len(lens.failures)}\b", page.text)
    for reason, n in lens.failures.reason.value_counts().items():
        assert f"{reason} ×{n}" in page.text


def test_page_draws_the_results_own_figures(lens: Any, page: Page) -> None:
    same_figures(page, lens.figures())
