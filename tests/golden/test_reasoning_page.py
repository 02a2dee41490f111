"""The page of a reasoning sweep shows the answer's loss by how much of the thought saw the image."""

from __future__ import annotations

from typing import Any

import pytest

from tests.golden import pages
from tests.golden.expected import check_mean, ends, has_band, means, one, pick, same_figures, same_points
from tests.golden.parsed import Page, check, matches, numbers

N_SHOWN = 3


@pytest.fixture(scope="module")
def page(reasoning: Any, tmp_path_factory: pytest.TempPathFactory) -> Page:
    return Page(pages.report(reasoning, tmp_path_factory.mktemp("reasoning") / "page.html"))


def by_hand(result: Any, seen: float) -> list[float]:
    """Each sample's change with the image hidden from the sentence nearest to this share of them."""
    lines, found = result.cells[0].frame("sentences"), []
    for _, own in lines.groupby("index"):
        changes = own.sort_values("sentence").change.tolist()
        found.append(changes[int(seen * (len(changes) - 1) + 0.5)])
    return found


def test_table_shows_the_change_at_both_ends_and_between(reasoning: Any, page: Page) -> None:
    rows = page.table("sentences that see", "change").records(
        seen="sentences that see", change="change&nats", n="samples"
    )
    assert [row["seen"] for row in rows] == ["0 %", "50 %", "100 %"]
    for row, seen in zip(rows, (0.0, 0.5, 1.0), strict=True):
        summary = one(reasoning.summary(), measure="change", seen=seen)
        check_mean(row["change"], summary)
        assert [shown.value for shown in numbers(row["n"])] == [20, 20]
    for row, seen in ((rows[0], 0.0), (rows[2], 1.0)):
        values = by_hand(reasoning, seen)
        check(row["change"].partition("[")[0], sum(values) / len(values), digits=2)


def test_line_and_band_are_the_means(reasoning: Any, page: Page) -> None:
    figure, own = page.figure("change"), pick(reasoning.scores, measure="change")
    line = figure.lines()[0]
    same_points(line, means(own, "seen"))
    has_band(figure, line, ends(pick(reasoning.summary(), measure="change"), "seen"))
    assert matches("lower.*mattered more", line.axis_title("y"))
    assert matches("see the image", line.axis_title("x"))


def test_each_sentence_shows_its_own_change(reasoning: Any, page: Page) -> None:
    lines = reasoning.cells[0].frame("sentences")
    tables = page.all_tables("hidden from", "change")
    assert len(tables) == N_SHOWN
    for table, index in zip(tables, sorted(set(lines["index"]))[:N_SHOWN], strict=True):
        own = pick(lines, index=index).sort_values("sentence")
        rows = table.records(text="hidden from", change="change")
        assert len(rows) == len(own)
        for row, (_, expected) in zip(rows, own.iterrows(), strict=True):
            if isinstance(expected["text"], str):
                assert row["text"] == expected["text"]
            else:
                assert matches("answer alone", row["text"])
            check(row["change"], expected["change"], digits=2)
            if abs(expected["change"]) >= 0.005:
                assert ("+" in row["change"]) == (expected["change"] > 0)


def test_lead_counts_samples_and_the_one_without_a_thought(reasoning: Any, page: Page) -> None:
    assert matches(r"\b20 samples \(thoughts\)", page.text)
    (failed,) = reasoning.failures["sample"]
    assert failed in page.text[page.text.index("Failures") :]


def test_page_draws_the_results_own_figures(reasoning: Any, page: Page) -> None:
    same_figures(page, reasoning.figures())
