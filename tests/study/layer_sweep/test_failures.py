from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy.stats import beta
from sklearn.metrics import roc_auc_score

from interp.errors import StudyError
from interp.stats import Interval
from interp.study.layer_sweep.failures import _together, counts, figures, relations, thresholds, verdicts

CHOICE: Any = SimpleNamespace(layers={"m": 2})


def result(
    ars: list[float], correct: list[Any], *, data: str = "scans", null: list[float] | None = None
) -> Any:
    """A result with these ARs at layer 2 and others elsewhere; two samples a group."""
    n = len(ars)
    samples = pd.DataFrame(
        {"model": "m", "data": data, "index": range(n), "sample": [f"s{i}" for i in range(n)],
         "group": [f"g{i // 2}" for i in range(n)], "answer": "yes", "predicted": "yes", "correct": correct}
    )  # fmt: skip
    rows = []
    for control, values in (("boxes", ars), ("shuffled_boxes", null or ars)):
        for layer, scale in ((1, -7.0), (2, 1.0)):
            part = samples[["model", "data", "index", "sample", "group"]].assign(
                layer=layer, metric="ar", control=control
            )
            rows.append(part.assign(value=scale * np.array(values, float)))
    scores = pd.concat([*rows, rows[1].assign(metric="js", value=-1.0)], ignore_index=True)
    cells = [SimpleNamespace(labels={"model": "m", "data": data})]
    return SimpleNamespace(values=scores, samples=samples, cells=cells)


def test_the_threshold_is_a_quantile_of_other_boxes() -> None:
    null = [float(i) for i in range(101)]
    found = thresholds(result([50.0] * 101, [True] * 101, null=null), CHOICE)
    assert found == {("m", "scans"): pytest.approx(95)}
    with_gaps = result([50.0] * 101, [True] * 101, null=[np.nan, *null[1:]])
    assert thresholds(with_gaps, CHOICE, share=0.5)["m", "scans"] == pytest.approx(50.5)
    with pytest.raises(StudyError, match=r"no threshold for m · scans: .*Give more validation samples"):
        thresholds(result([1.0], [True], null=[np.nan]), CHOICE)


def test_looking_and_being_right_make_four_outcomes() -> None:
    made = result([3.0, 3.0, 1.0, 1.0, 2.0], [True, False, True, False, True])
    found = verdicts(made, CHOICE, {("m", "scans"): 2.0})
    assert found.outcome.tolist() == [
        "looked, right", "looked, wrong", "looked elsewhere, right", "looked elsewhere, wrong",
        "looked elsewhere, right",  # at the threshold is not above it
    ]  # fmt: skip
    assert found["index"].tolist() == [0, 1, 2, 3, 4]
    assert found.ar.tolist() == [3, 3, 1, 1, 2]


def test_each_model_and_data_set_has_its_own_limit() -> None:
    one, other = result([3.0, 1.0], [True, False]), result([3.0, 1.0], [True, False], data="slides")
    both = SimpleNamespace(
        values=pd.concat([one.values, other.values.assign(model="n", layer=3 - other.values.layer)]),
        samples=pd.concat([one.samples, other.samples.assign(model="n")]),
        cells=[*one.cells, SimpleNamespace(labels={"model": "n", "data": "slides"})],
    )
    choice: Any = SimpleNamespace(layers={"m": 2, "n": 1})  # n's scores are at layer 1
    made: Any = both
    assert thresholds(made, choice, share=1.0) == {("m", "scans"): 3.0, ("n", "slides"): 3.0}
    found = verdicts(made, choice, {("m", "scans"): 0.5, ("n", "slides"): 2.0})
    assert found.ar.tolist() == [3, 1, 3, 1]
    assert found.looked.tolist() == [True, True, True, False]
    shares = counts(found).set_index(["data", "outcome"]).share
    assert shares["scans", "looked, wrong"] == shares["slides", "looked elsewhere, wrong"] == 0.5


def test_samples_without_an_answer_or_ar_are_left_out() -> None:
    made = result([3.0, np.nan, 1.0, 1.0], [True, True, None, False])
    found = verdicts(made, CHOICE, {("m", "scans"): 2.0})
    assert found["sample"].tolist() == ["s0", "s3"]
    assert found.correct.dtype == bool


def test_shares_and_what_independence_would_give() -> None:
    ars, right = [3.0] * 6 + [1.0] * 2, [True] * 4 + [False] * 2 + [True, False]
    shares = counts(verdicts(result(ars, right), CHOICE, {("m", "scans"): 2.0})).set_index("outcome")
    assert shares.n.to_dict() == {
        "looked, right": 4, "looked, wrong": 2, "looked elsewhere, right": 1, "looked elsewhere, wrong": 1
    }  # fmt: skip
    assert shares.share.sum() == pytest.approx(1)
    assert shares.expected["looked, right"] == pytest.approx(6 / 8 * 5 / 8)
    assert shares.expected["looked elsewhere, wrong"] == pytest.approx(2 / 8 * 3 / 8)
    assert set(shares.n_groups) == {4}
    assert "no claim about a population" in shares.note["looked, right"]


def test_none_of_many_is_not_an_interval_without_width() -> None:
    found = verdicts(result([3.0] * 60, [True] * 60), CHOICE, {("m", "scans"): 2.0})
    shares = counts(found).set_index("outcome")
    none, every = shares.loc["looked, wrong"], shares.loc["looked, right"]
    upper = beta.ppf(0.975, 1, 30)  # Clopper and Pearson: none of 30 groups
    assert (none.share, none.low, none.high) == (0, 0, pytest.approx(upper))
    assert (every.share, every.low, every.high) == (1, pytest.approx(1 - upper), 1)


def test_how_looking_and_being_right_go_together() -> None:
    rng = np.random.default_rng(0)
    ars = rng.integers(0, 6, 80).astype(float)  # with ties
    right = (ars + rng.normal(0, 2, 80) > 3).tolist()
    found = verdicts(result(ars.tolist(), right), CHOICE, {("m", "scans"): 2.5})
    related = relations(found)["m", "scans"]
    assert related["auroc"].mean == pytest.approx(roc_auc_score(right, ars))
    looked = ars > 2.5
    by_hand = np.mean(np.array(right)[looked]) - np.mean(np.array(right)[~looked])
    assert related["difference"].mean == pytest.approx(by_hand)
    assert related["difference"].low < by_hand < related["difference"].high
    assert related["auroc"].n_groups == 40


def test_no_relation_is_claimed_where_every_answer_is_right() -> None:
    found = verdicts(result([3.0, 1.0] * 4, [True] * 8), CHOICE, {("m", "scans"): 2.0})
    related = relations(found)["m", "scans"]
    assert np.isnan(related["difference"].mean)
    assert np.isnan(related["auroc"].mean)


def test_each_data_set_has_a_panel_with_its_own_threshold() -> None:
    one, other = result([3.0, 1.0], [True, False]), result([5.0, 4.0], [True, True], data="slides")
    limits = {("m", "scans"): 2.0, ("m", "slides"): 4.5}
    found = pd.concat([verdicts(each, CHOICE, limits) for each in (one, other)], ignore_index=True)
    figure: Any = figures(found, limits)["outcomes"]
    dots = [trace for trace in figure.data if trace.mode == "markers"]
    drawn = {
        axis: sorted(x for t in dots if t.xaxis == axis for x in t.x if x is not None) for axis in ("x", "x2")
    }
    assert drawn == {"x": [1, 3], "x2": [4, 5]}
    assert [trace.showlegend for trace in dots] == [True] * 4 + [False] * 4
    assert {(line.xref, line.x0) for line in figure.layout.shapes} == {("x", 2.0), ("x2", 4.5)}
    said = {note.text: note.xref for note in figure.layout.annotations if "threshold" in note.text}
    assert said == {"threshold 2.00": "x", "threshold 4.50": "x2"}


def test_a_relation_is_told_in_percentage_points() -> None:
    difference, auroc = Interval(0.25, 0.1, 0.4, 60, 30), Interval(0.625, 0.5, 0.75, 60, 30)
    said = _together({"difference": difference, "auroc": auroc})
    assert "minus the share among the others: 25 [10, 40] percentage points." in said
    assert "AUROC of AR for a right answer: 0.62 [0.50, 0.75] (0.5: no relation)." in said
    nothing = Interval(np.nan, np.nan, np.nan, 60, 30)
    assert "cannot be said" in _together({"difference": nothing, "auroc": nothing})
    assert "cannot be said" not in _together({"difference": nothing, "auroc": auroc})


def test_the_seed_decides_the_resamplings() -> None:
    rng = np.random.default_rng(0)
    ars, right = rng.normal(3, 1, 30).tolist(), (rng.random(30) > 0.4).tolist()
    found = verdicts(result(ars, right), CHOICE, {("m", "scans"): 3.0})
    one, same, other = (relations(found, seed=seed)["m", "scans"] for seed in (1, 1, 2))
    assert one == same
    assert one["difference"] != other["difference"]
    assert one["auroc"] != other["auroc"]
    assert counts(found, seed=1).equals(counts(found, seed=1))
    assert not counts(found, seed=1).low.equals(counts(found, seed=2).low)


def test_each_model_has_its_own_limit_on_the_same_data() -> None:
    one, other = result([3.0, 1.0], [True, False]), result([9.0, 7.0], [True, False])
    both: Any = SimpleNamespace(
        values=pd.concat([one.values, other.values.assign(model="n")]),
        cells=[*one.cells, SimpleNamespace(labels={"model": "n", "data": "scans"})],
    )
    choice: Any = SimpleNamespace(layers={"m": 2, "n": 2})
    assert thresholds(both, choice, share=1.0) == {("m", "scans"): 3.0, ("n", "scans"): 9.0}
