"""How a comparison scores one sample's maps: tokens that are not seen, removals that fail, checks, undefined values."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from interp.errors import MapError, StudyError
from interp.metrics import auroc, spearman
from interp.study.indicator_comparison import task as module
from interp.study.indicator_comparison.indicator_maps import Found
from interp.study.indicator_comparison.removal_curves import Curves
from interp.study.indicator_comparison.task import IndicatorTask
from interp.tracing import Cost
from tests.study.planted import sample, token_map
from tests.study.planted_indicators import Take, comparison

pytestmark = pytest.mark.usefixtures("unchecked")

TOKENS = token_map(sample(0))
INSIDE = TOKENS.mask(sample(0).boxes)  # the first two of 20


def task(**changes: Any) -> Any:
    made: Any = object.__new__(IndicatorTask)
    made.study = comparison(**changes)
    made._mllm = made.study.model
    return made


def test_tokens_without_a_footprint_are_not_scored() -> None:
    """Half of the tokens have no place; the map is highest there, and perfect on the rest."""
    unseen = np.arange(20) >= 10
    holed = replace(TOKENS, footprints=np.where(unseen[:, None], np.nan, TOKENS.footprints))
    values = np.where(unseen, 9.0, INSIDE * 1.0)
    own = task(metrics=("auroc", "ar"))
    assert own._scored(values, INSIDE, holed) == {"auroc": 1.0, "ar": pytest.approx(5.0)}
    whole = own._scored(values, INSIDE, TOKENS)
    assert whole["auroc"] == pytest.approx(float(auroc(values, INSIDE))) != 1.0


def test_each_map_is_scored_against_each_truth() -> None:
    found = Found(TOKENS, "left", 0, maps={"a": INSIDE * 1.0, "b": 1.0 - INSIDE})
    masks = {"boxes": INSIDE, "marker": ~INSIDE}
    rows = list(task(metrics=("auroc",))._localised(found, masks))
    assert rows == [
        ("a", "auroc", "boxes", 1.0), ("a", "auroc", "marker", 0.0), ("b", "auroc", "boxes", 0.0),
        ("b", "auroc", "marker", 1.0),
    ]  # fmt: skip


def test_pairs_of_maps_agree_by_each_measure() -> None:
    rising = np.arange(20.0)
    maps = {"a": rising, "b": rising**2, "c": -rising}
    rows = list(task(agreement=("kendall", "spearman"))._agreed(maps))
    assert rows == [
        ("a", "kendall", "b", pytest.approx(1)), ("a", "spearman", "b", pytest.approx(1)),
        ("a", "kendall", "c", pytest.approx(-1)), ("a", "spearman", "c", pytest.approx(-1)),
        ("b", "kendall", "c", pytest.approx(-1)), ("b", "spearman", "c", pytest.approx(-1)),
    ]  # fmt: skip


def test_checks_compare_with_the_unchanged_map() -> None:
    values = np.linspace(0, 1, 20) + INSIDE
    found = Found(TOKENS, "left", 0, maps={"a": values, "b": values})
    found.shuffled = {("a", "all weights"): -values, ("b", "top 50 % of layers"): values}
    found.asked = {"a": 1 - INSIDE + np.linspace(0, 0.1, 20)}
    rows = list(task(metrics=("pointing", "auroc"))._sane(found, INSIDE))
    assert rows == [
        ("a", "weights", "all weights", pytest.approx(-1)), ("b", "weights", "top 50 % of layers", pytest.approx(1)),
        ("a", "question", "spearman", pytest.approx(spearman(values, found.asked["a"]))),
        ("a", "question", "pointing", 0.0),
    ]  # fmt: skip


def test_a_removal_that_cannot_run_leaves_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    def run(removal: Any, mllm: Any, one: Any, maps: Any, steps: Any, *, seed: int, options: Any) -> Any:
        if removal.name == "broken":
            raise MapError("no such token.")
        return {"a": removal.name}, Cost(forwards=seed)

    monkeypatch.setattr(module, "run_removal", run)
    own = task(removals=(Take("broken"), Take("fine")), seed=7)
    own.__dict__["_faithful_on"] = frozenset({0})
    costs: list[Any] = []
    curves, failures = own._curves(0, sample(0), {"a": INSIDE * 1.0}, costs)
    assert curves == {"fine": {"a": "fine"}}
    assert [(row["error"], row["reason"], row["metric"]) for row in failures] == [
        ("MapError", "no such token.", "broken")
    ]
    assert [cost["forwards"] for cost in costs] == [7]
    assert own._curves(1, sample(1), {"a": INSIDE * 1.0}, costs) == ({}, [])  # not among the samples drawn
    assert own._curves(0, sample(0), {}, costs) == ({}, [])


def test_curves_are_stored_point_by_point() -> None:
    pair = Curves(np.array([4.0, 3, 2, 1]), np.array([1.0, 2, 3, 4]))
    points = list(task(steps=(0.1, 0.5), erased=(0.1,))._points({"take": {"a": pair}}))
    assert points[:4] == [
        ("a", "take", "deletion", share, 4.0 - i) for i, share in enumerate((0.0, 0.1, 0.5, 1.0))
    ]
    assert points[4:] == [
        ("a", "take", "insertion", share, 1.0 + i) for i, share in enumerate((0.0, 0.1, 0.5, 1.0))
    ]


def test_undefined_values_are_told_once_for_each_removal() -> None:
    nan = float("nan")
    scores = [("a", "auroc", "boxes", nan), ("a", "deletion", "take", nan), ("b", "insertion", "take", nan)]
    rows = task(least=0.25)._silent(0, scores)
    assert [(row["metric"], row["control"]) for row in rows] == [("take", None), ("auroc · boxes", "a")]
    assert "lowers the target by less than 0.25: there are no areas" in rows[0]["reason"]
    assert "the same everywhere, or the truth covers no token or all" in rows[1]["reason"]


def test_masks_are_the_truth_of_boxes_alone() -> None:
    inside = np.zeros((80, 100), bool)
    inside[:20, :10] = True  # half of the first token
    one = sample(0, masks=[inside], meta={"marker": [80, 60, 100, 80]})
    own = task(data=[one], rule="masks")
    assert own._inside(TOKENS, one, "boxes")[:2].tolist() == [0.5, 0.0]
    marker = task(data=[one], truth=("marker",))
    assert np.flatnonzero(marker._inside(TOKENS, one, "marker")).tolist() == [19]
    with pytest.raises(
        StudyError, match=r"the truths marker, boxes name boxes of the meta\. Use rule=\"touch\""
    ):
        comparison(data=[one], rule="masks", truth=("marker", "boxes"))
