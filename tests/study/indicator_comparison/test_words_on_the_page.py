"""What the page of a comparison says in words, and how its points are laid out, on results written by hand."""

from __future__ import annotations

import html
import re
from types import SimpleNamespace
from typing import Any

import pandas as pd
import pytest

from interp.indicators import CentrePrior, RandomMap
from interp.inputs.prompt import Target, diff
from interp.report.figures import GREY, series_colour
from interp.study.indicator_comparison import page
from interp.study.indicator_comparison.figures import _front, _side, colours
from tests.study.planted_indicators import Knowing, Take

pytestmark = pytest.mark.usefixtures("unchecked")


def text(markup: object) -> str:
    return " ".join(html.unescape(re.sub(r"<[^>]+>", " ", str(markup))).split())


def test_the_target_and_the_truth_are_named_in_words() -> None:
    assert page._target(Target("greedy")) == "the answer that the model gives"
    assert page._target(Target("left")) == "“left”"
    assert "left" in page._target(Target(diff("left", "right")))
    assert [page._truth(one) for one in ("boxes", "marker")] == ["the samples' boxes", "the marker"]


def cell(data: str, n: int, groups: int, *, measured: bool = True, **study: Any) -> Any:
    fields: dict[str, Any] = {
        "removals": (Take(), Take("other")), "target": Target(), "truth": ("boxes",), "model": "m", "least": 0.1,
    }  # fmt: skip
    frame = pd.DataFrame(
        {
            "model": "m", "data": data, "group": [f"g{i % groups}" for i in range(n)],
            "faithful": [True] * 2 + [False] * (n - 2), "checked": [True] + [False] * (n - 1),
        }
    )  # fmt: skip
    labels = {"model": "m", "data": data}
    return SimpleNamespace(
        labels=labels, key=("m", data), measured=measured, study=SimpleNamespace(**fields | study), rows=frame
    )


def compared(*cells: Any, sentences: tuple[str, ...] = ()) -> Any:
    return SimpleNamespace(
        cells=cells, samples=pd.concat([one.rows for one in cells if one.measured]), indicators=("a", "b", "c"),
        n_samples=3, sentences=lambda: list(sentences), axes=("model", "data"),
    )  # fmt: skip


def test_the_lead_counts_samples_and_warns_of_few_groups() -> None:
    """Of two sets one has too few groups; a third could not be measured."""
    lost = cell("lost", 4, 4, measured=False)
    said = text(
        page._lead(compared(cell("many", 30, 25), cell("few", 8, 4), lost, sentences=("Layer of a.",)))
    )
    assert "m · many (30 samples in 25 groups, tokens removed on 2, sanity checks on 1); m · few" in said
    assert "m · few (8 samples in 4 groups, tokens removed on 2, sanity checks on 1)" in said
    assert "each of 3 indicators" in said
    assert "the answer that the model gives" in said
    assert "the effect of removing their tokens (take, other)" in said
    assert "few: Only 4 groups" in said
    assert "many: Only" not in said
    assert said.endswith("Layer of a.")
    plain = text(
        page._lead(compared(cell("many", 30, 25, removals=(), truth=("marker",), target=Target("no"))))
    )
    assert "tokens removed" not in plain
    assert "removing their tokens, with" in plain
    assert "“no”" in plain
    assert "compared with the marker" in plain


def test_the_least_fall_is_told_of_each_cell() -> None:
    one, two = cell("a", 3, 3, least=0.25), cell("b", 3, 3)
    assert "lowers the target by less than 0.1, 0.25 of its value have no area" in " ".join(
        page._faithful(compared(one, two)).split()
    )


def test_a_verdict_shows_holms_p() -> None:
    said = {finds: str(page._verdict({"finds": finds, "p_holm": 0.031})) for finds in (True, False, None)}
    assert [("✓" in one, "✗" in one) for one in said.values()] == [
        (True, False),
        (False, True),
        (False, False),
    ]
    assert "Holm's p 0.031" in html.unescape(said[True])
    assert said[None] == page._verdict(None) == ""


def test_undefined_values_are_counted_beside_the_mean() -> None:
    row = {"mean": 0.5, "low": 0.25, "high": 0.75, "n_groups": 30, "n_undefined": 0}
    assert page._mean(row) == "0.50 [0.25, 0.75]"
    assert page._mean({**row, "n_undefined": 3, "n_groups": 3}) == "0.50 (3 undefined)"
    assert page._mean(None) is None


def failures(*rows: tuple[str, str | None, str, str, str]) -> Any:
    columns = ["data", "control", "metric", "error", "reason"]
    frame = pd.DataFrame(rows, columns=columns).assign(model="m", sample=[f"s{i}" for i in range(len(rows))])
    cells = [SimpleNamespace(labels={"model": "m", "data": data}) for data in ("one", "two")]
    return SimpleNamespace(failures=frame, cells=cells, failure_counts=lambda: "3 failures")


def test_failures_of_one_kind_are_told_once() -> None:
    lost = ("one", "knows", "", "MapError", "too dark.")
    said = text(page._failures(failures(("two", None, "take", "undefined", "flat."), lost, lost)))
    assert "3 failures. Means are over the rest." in said
    assert "1×, first s0. undefined: flat." in said
    assert "2×, first s1. MapError: too dark." in said
    assert said.count("too dark") == 1
    assert "every map was made" in text(page._failures(failures()))


def result(*indicators: tuple[str, Any]) -> Any:
    study = SimpleNamespace(indicators=dict(indicators))
    return SimpleNamespace(
        cells=[SimpleNamespace(study=study)], indicators=tuple(label for label, _ in indicators)
    )


FOUR = result(("centre", CentrePrior()), ("a", Knowing()), ("random", RandomMap()), ("b", Knowing()))


def test_baselines_are_grey_and_the_others_coloured() -> None:
    assert colours(FOUR) == {
        "centre": GREY, "a": series_colour(0), "random": GREY, "b": series_colour(1)
    }  # fmt: skip


def points(*rows: tuple[str, float, float]) -> pd.DataFrame:
    frame = pd.DataFrame(rows, columns=["indicator", "seconds_ratio", "mean"])
    return frame.assign(low=0.0, high=1.0, n_groups=30, n=30, forwards=2.0, backwards=1.0, tokens=9.0)


@pytest.mark.parametrize(
    ("higher", "line"),
    [(True, [(1, 0.5), (3, 0.9)]), (False, [(1, 0.5), (2, 0.4)])],
)
def test_the_front_is_better_than_all_that_is_cheaper(higher: bool, line: list[Any]) -> None:
    """Of two that cost the same the better counts; one that is dearer and no better is off the line."""
    table = points(
        ("b", 3, 0.9), ("a", 1, 0.5), ("centre", 2, 0.4), ("random", 1, 0.5 + (-0.1 if higher else 0.1))
    )
    found, *dots = _front(FOUR, table, higher, legend=True)
    assert list(zip(found.x, found.y, strict=True)) == line
    assert [dot.name for dot in dots] == ["centre", "a", "random", "b"]
    named = [dot.name for dot in dots if "text" in dot.mode]
    assert named == (["a", "b"] if higher else ["centre", "a"])
    assert [list(dot.customdata[0]) for dot in dots] == [[2, 1, 9]] * 4


def test_names_on_the_line_alternate_their_side() -> None:
    assert [_side(one, ["a", "b", "c"]) for one in "abcd"] == ["bottom right", "top left", "bottom right", ""]
