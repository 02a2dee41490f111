"""Tables of several models, data sets and methods: whose numbers stand where."""

from __future__ import annotations

import html
from pathlib import Path

import numpy as np
import pytest

from interp.data import Samples
from interp.study import Grid, RefinementResult
from interp.study.refinement.page import figures
from interp.study.refinement.tables import (
    MANY_PAIRS,
    cell_title,
    count_of,
    failures_section,
    flips_card,
    methods_card,
    pairs_card,
    panel_name,
    places,
)
from tests.golden.parsed import Page
from tests.report.hostile_samples import Elements
from tests.study.planted import sample, samples
from tests.study.planted_methods import (
    LIKELY,
    UNLIKELY,
    Answering,
    Said,
    Swap,
    named,
    planted_plain,
    refinement,
)

__all__ = ["planted_plain"]


@pytest.fixture
def grid(tmp_path: Path) -> RefinementResult:
    """Model “good” is right on all four samples of each data set, “bad” wrong on the first of the first."""
    models = {"good": Answering(fingerprint="a" * 64), "bad": Answering(fingerprint="b" * 64, wrong=named(0))}
    data = {"one": samples(4, "one"), "two": samples(4, "two", start=20)}
    methods = {"mends": Swap(changes=named(0)), "spoils": Swap(changes=named(20, 21), fails=named(3))}
    base = refinement(data=data["one"])
    return Grid(base, model=models, data=data, method=methods).run(tmp_path, progress=False)


def test_each_model_and_data_set_has_a_place(grid: RefinementResult) -> None:
    found = places(grid)
    assert found == [{"model": m, "data": d} for m in ("good", "bad") for d in ("one", "two")]
    assert [panel_name(grid, place) for place in found] == [
        "good · one",
        "good · two",
        "bad · one",
        "bad · two",
    ]
    assert [cell_title(grid, cell) for cell in grid.cells[:3]] == [
        "good · one · mends",
        "good · one · spoils",
        "good · two · mends",
    ]


def test_one_model_is_not_named_above_its_panels(tmp_path: Path) -> None:
    result = refinement(data=samples(2)).run(tmp_path, progress=False)
    assert panel_name(result, places(result)[0]) == "planted"
    assert cell_title(result, result.cells[0]) == "planted · Swap"


def test_lines_stand_below_their_model_and_data(grid: RefinementResult, tmp_path: Path) -> None:
    path = tmp_path / "card.html"
    path.write_text(f"<main>{methods_card(grid)}</main>")
    rows = (
        Page(path)
        .table("method", "before")
        .records(
            name="method",
            before="before",
            after="after",
            more=r"^ \+$",
            less="^ −$",
            s="^ s ×",
            t="tokens",
            logprob="log p",
        )
    )
    assert [(row["section"], row["name"], row["before"], row["after"]) for row in rows] == [
        ("good · one", "mends", "100.0", "75.0"),
        ("good · one", "spoils", "100.0", "100.0"),
        ("good · two", "mends", "100.0", "100.0"),
        ("good · two", "spoils", "100.0", "50.0"),
        ("bad · one", "mends", "75.0", "100.0"),
        ("bad · one", "spoils", "66.7", "66.7"),
        ("bad · two", "mends", "100.0", "100.0"),
        ("bad · two", "spoils", "100.0", "50.0"),
    ]
    flips = {(row["section"], row["name"]): (row["more"], row["less"]) for row in rows}
    assert flips["bad · one", "mends"] == ("1", "0")
    assert flips["good · two", "spoils"] == ("0", "2")
    assert {(row["s"], row["t"]) for row in rows} == {("3.00", "1.50")}
    step = np.log(LIKELY / UNLIKELY)
    changes = {"good · one": -step / 4, "bad · one": step / 4, "good · two": 0.0, "bad · two": 0.0}
    for row in rows:
        if row["name"] == "mends":
            wanted = f"{changes[row['section']]:+.2f}".replace("-", "−").replace("+0.00", "0.00")
            assert row["logprob"].split(" ")[0] == wanted


def test_flips_are_of_one_cell_with_unmarked_samples_apart(tmp_path: Path) -> None:
    data = Samples([sample(0), sample(1), sample(2), sample(3), sample(4, answer=None)], "five")
    study = refinement(data=data, model=Answering(wrong=named(0, 1)), method=Swap(changes=named(0, 3)))
    result = study.run(tmp_path, progress=False)
    path = tmp_path / "card.html"
    path.write_text(f"<main>{flips_card(result, result.cells[0])}</main>")
    table = Page(path).table("right after", "wrong after")
    assert [row.cells for row in table.rows] == [["right before", "1", "1"], ["wrong before", "1", "1"]]
    words = " ".join(Elements(path.read_text()).text.split())
    assert "4 samples; McNemar p 1.000. Without an answer: 1." in words


def test_failures_name_what_varies_and_their_number(grid: RefinementResult, tmp_path: Path) -> None:
    words = " ".join(Elements(str(failures_section(grid, "None at all."))).text.split())
    assert "Left out, over all runs: 2." in words
    assert "None at all." not in words
    assert "spoils" in words
    assert "s3" in words
    whole = refinement(data=samples(2)).run(tmp_path, progress=False)
    assert "None at all." in str(failures_section(whole, "None at all."))


def test_a_count_that_is_none_is_a_dash() -> None:
    assert [count_of(value) for value in (3.0, 0, None)] == ["3", "0", "–"]


def test_more_pairs_than_a_reader_can_use_are_left_out(
    monkeypatch: pytest.MonkeyPatch, grid: RefinementResult
) -> None:
    found = grid.compare()
    assert len(found) == 4
    assert "4 pairs" in html.unescape(str(pairs_card(grid)))
    monkeypatch.setattr("interp.study.refinement.tables.MANY_PAIRS", 4)
    assert "4 pairs" in str(pairs_card(grid))
    monkeypatch.setattr("interp.study.refinement.tables.MANY_PAIRS", 3)
    assert pairs_card(grid) == ""
    assert MANY_PAIRS == 90


def test_the_page_counts_each_places_samples(grid: RefinementResult, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("interp.study.refinement.page._gallery", lambda result: "")  # pictures take time
    path = grid.report()
    words = " ".join(Elements(path.read_text()).text.split())
    assert (
        "4 samples of good · one, 4 samples of good · two, 4 samples of bad · one, 4 samples of bad · two"
        in words
    )
    assert "Is the model right more often with Swap than without?" in words
    assert "What the method changed" not in words  # eight cells are lines of a table
    assert "What flipped" in words
    figure = figures(grid)["difference"]
    titles = [note.text for note in figure.layout.annotations][:4]
    assert titles == ["good · one", "good · two", "bad · one", "bad · two"]
    points = [trace for trace in figure.data if trace.error_x.array is not None]
    assert [list(trace.x) for trace in points] == [[-25, 0], [0, -50], [25, 0], [0, -50]]


def test_many_methods_fold_their_numbers_and_draw_no_samples(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("interp.study.refinement.page.MANY_CELLS", 2)  # ten would take ten times as long

    def words(n: int) -> str:
        methods = {f"m{place}": Swap(strength=1.0 + place) for place in range(n)}
        found = Grid(refinement(data=samples(1), batch=1), method=methods).run(
            tmp_path / str(n), progress=False
        )
        return " ".join(Elements(found.report().read_text()).text.split())

    few, many = words(2), words(3)
    assert "Drawn samples, before and after" in few
    assert "What flipped" in few
    assert "All numbers" not in few
    assert "Drawn samples, before and after" not in many
    assert "What flipped" not in many
    assert "All numbers" in many


def test_the_plain_model_has_no_flips_and_no_pictures(tmp_path: Path) -> None:
    methods = {"as it is": Said(), "swapped": Swap(changes=named(0))}
    result = Grid(refinement(data=samples(1)), method=methods).run(tmp_path, progress=False)
    words = " ".join(Elements(result.report().read_text()).text.split())
    assert "Is the model right more often with Swap than without?" in words
    flipped = words[words.index("What flipped") : words.index("Group by group")]
    assert "swapped" in flipped
    assert "as it is" not in flipped
    drawn = words[words.index("Drawn samples, before") : words.index("Failures")]
    assert "swapped" in drawn
    assert "as it is" not in drawn
