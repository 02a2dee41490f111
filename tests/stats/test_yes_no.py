"""Marks of yes-or-no answers against scikit-learn, and the rules by which answers are read."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import accuracy_score, f1_score, precision_score, recall_score

from interp.errors import StudyError
from interp.stats import bootstrap_statistic, population_note, yes_no_change, yes_no_marks
from interp.stats.yes_no import _draws


def marks(answers, truth, **options):
    return yes_no_marks(answers, truth, n=200, **options).set_index("measure")


def test_marks_are_scikit_learns():
    rng = np.random.default_rng(0)
    truth = ["yes" if one else "no" for one in rng.random(60) < 0.5]
    said = ["Yes." if one else "NO" for one in rng.random(60) < 0.7]
    groups = [f"g{i % 25}" for i in range(60)]
    found = marks(said, truth, groups=groups)
    a, b = (np.array([one.lower().startswith("y") for one in each]) for each in (truth, said))
    expected = [
        accuracy_score(a, b),
        precision_score(a, b),
        recall_score(a, b),
        f1_score(a, b),
        b.mean(),
        0.0,
    ]
    np.testing.assert_allclose(found["mean"], expected)
    assert list(found.index) == ["accuracy", "precision", "recall", "f1", "yes_ratio", "neither"]
    assert (found.n_groups == 25).all()
    inside = (found.low <= found["mean"]) & (found["mean"] <= found.high)
    assert inside.all()


def test_answers_that_are_neither_count_against_the_model():
    found = marks(["yes", "perhaps", None, "no"], ["yes", "yes", "no", "no"])["mean"]
    assert found.to_dict() == {
        "accuracy": 0.5, "precision": 1.0, "recall": 0.5, "f1": 2 / 3, "yes_ratio": 0.25, "neither": 0.5
    }  # fmt: skip
    silent = marks(["no", "no"], ["yes", "no"])["mean"]
    assert np.isnan(silent["precision"])
    assert silent["f1"] == 0


def test_long_answers_are_read_as_pope_reads_them():
    said = ["Yes, there is a dog.", "There is not a dog", "No, there is none.", "A dog. No cat."]
    found = marks(said, ["yes", "no", "no", "yes"], rule="pope")["mean"]
    assert found["accuracy"] == 1
    lower = marks(["there is no dog", "no, none", "nothing here"], ["no", "no", "yes"], rule="pope")["mean"]
    assert lower["accuracy"] == 1
    assert marks(said, ["yes", "no", "no", "yes"])["mean"]["neither"] == 1


def test_changes_are_paired_differences_of_the_marks():
    """Against scikit-learn's F1, and a bootstrap that computes F1 anew in each resampling."""
    rng = np.random.default_rng(1)
    truth = rng.random(200) < 0.5
    first, last = (np.where(rng.random(200) < share, truth, ~truth) for share in (0.6, 0.8))
    groups = [f"g{i % 40}" for i in range(200)]
    texts = [["yes" if one else "no" for one in each] for each in (first, last, truth)]
    found = yes_no_change(*texts, groups, n=4000).set_index("measure").loc["f1"]
    assert [found.before, found.after] == pytest.approx([f1_score(truth, one) for one in (first, last)])

    def gap(a, b, t):
        return f1_score(t, b) - f1_score(t, a)

    wanted = bootstrap_statistic(gap, [one.astype(float) for one in (first, last, truth)], groups, n=500)
    assert found.difference == pytest.approx(wanted.mean)
    assert [found.low, found.high] == pytest.approx([wanted.low, wanted.high], abs=0.03)
    alone = marks(texts[1], texts[2], groups=groups).loc["f1"]
    assert found.high - found.low < 2 * (alone.high - alone.low)
    same = yes_no_change(texts[0], texts[0], texts[2], groups)
    assert (same[["difference", "low", "high"]] == 0).all(axis=None)
    silent = yes_no_change(["yes"], ["no"], ["yes"]).set_index("measure")
    assert np.isnan(silent.loc["precision", "difference"])
    assert np.isnan(silent.loc["accuracy", ["low", "high"]].astype(float)).all()


@pytest.mark.parametrize(("n_groups", "noted"), [(19, True), (20, False)])
def test_few_groups_carry_a_note(n_groups, noted):
    said, truth = ["yes", "no"] * 30, ["yes"] * 60
    groups = [f"g{i % n_groups}" for i in range(60)]
    for found in (marks(said, truth, groups=groups), yes_no_change(said, said, truth, groups, n=50)):
        assert set(found.note) == {population_note(n_groups)}
        assert (set(found.n), set(found.n_groups)) == ({60}, {n_groups})
        assert bool(found.note.iloc[0]) == noted


@pytest.mark.parametrize("chunk", [1, 12, 1000])
def test_as_many_draws_as_asked_for_however_few_are_held(monkeypatch, chunk):
    monkeypatch.setattr("interp.stats.yes_no.CHUNK", chunk)
    drawn = _draws(np.ones((1, 2, 2, 4)), 7, seed=0)
    assert drawn.shape == (1, 2, 2, 7)
    assert (drawn == 4).all()  # each draw takes four groups


def test_wrong_arguments_are_explained(unchecked):
    for make, said in (
        (lambda: yes_no_marks(["yes"], []), r"an answer to each question; got 1 answers and 0 truths"),
        (
            lambda: yes_no_change(["yes"], ["yes", "no"], ["yes"]),
            r"an answer to each question; got 2 answers and 1 truths",
        ),
        (lambda: yes_no_marks(["yes"], ["red"]), r'the truth of a question is "yes" or "no"; got \'red\''),
        (lambda: yes_no_marks(["yes"], ["yes"], rule="loose"), r'rule is "whole" or "pope"; got \'loose\''),
    ):
        with pytest.raises(StudyError, match=said):
            make()
