"""Probes against scikit-learn's own pipeline, and control tasks with types that recur and that do not."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import PredefinedSplit, cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from interp.errors import StudyError
from interp.study.probe_sweep.probes import control_labels, fold_of, held_out, majority, unseen

RNG = np.random.default_rng(0)
GROUPS = [f"g{i // 2}" for i in range(60)]
LABELS = [("red", "green", "blue")[i % 3] for i in range(60)]


@pytest.mark.parametrize("hidden", [5, 200])
def test_probes_are_scikit_learns_in_many_dimensions_too(hidden):
    features = RNG.normal(0, 1, (60, hidden)).astype(np.float32) * 3 + 1
    features[:, 0] += [("red", "green", "blue").index(one) for one in LABELS]
    folds = fold_of(LABELS, GROUPS, 5, seed=0)
    pipeline = make_pipeline(StandardScaler(), LogisticRegression(C=0.5, max_iter=2000))
    wanted = cross_val_predict(pipeline, features.astype(float), LABELS, cv=PredefinedSplit(folds))
    assert np.mean(np.array(held_out(features, LABELS, folds, penalty=2.0)) == wanted) >= 59 / 60


def test_groups_are_held_out_whole():
    folds = fold_of(LABELS, GROUPS, 4, seed=1)
    assert set(folds) == {0, 1, 2, 3}
    assert all(len({folds[i] for i in range(60) if GROUPS[i] == group}) == 1 for group in set(GROUPS))
    assert not np.array_equal(folds, fold_of(LABELS, GROUPS, 4, seed=2))


def test_what_is_of_the_group_alone_cannot_be_learned_by_heart():
    """A stream that says which group it is names no class of a group that was held out."""
    features = np.repeat(RNG.normal(0, 1, (30, 40)), 2, axis=0)
    random = control_labels(GROUPS, LABELS, seed=3)
    assert all(random[i] == random[i + 1] for i in range(0, 60, 2))
    said = held_out(features, random, fold_of(random, GROUPS, 5, seed=0), 1.0)
    assert np.mean(np.array(said) == random) < 0.6


def test_a_type_that_recurs_is_learned_by_heart():
    types = [("where", "what", "which", "who")[i % 4] for i in range(60)]
    features = np.eye(4)[[("where", "what", "which", "who").index(one) for one in types]]
    random = control_labels(types, LABELS, seed=2)
    assert len(set(random)) > 1
    assert {(a, b) for a, b in zip(types, random, strict=True)} == set(
        zip(types[:4], random[:4], strict=True)
    )
    said = held_out(features, random, fold_of(random, GROUPS, 5, seed=0), 1.0)
    assert said == random


def test_the_majority_is_of_the_other_folds():
    folds = np.array([0, 0, 1, 1, 1])
    assert majority(["a", "a", "b", "b", "c"], folds) == ["b", "b", "a", "a", "a"]
    assert majority(["b", "a", "c"], np.array([0, 0, 1]))[2] == "a"  # of equal ones the first in the alphabet


def test_random_classes_have_the_frequencies_of_the_true_ones():
    types, labels = [f"t{i}" for i in range(300)], ["rare"] * 30 + ["often"] * 270
    drawn = control_labels(types, labels, seed=0)
    assert 0.84 < np.mean(np.array(drawn) == "often") < 0.96
    assert control_labels(types[::-1], labels, seed=0) == drawn[::-1]  # the order of the samples is no matter
    assert control_labels(types, labels, seed=1) != drawn


def test_a_fold_without_a_second_class_names_the_only_one():
    said = held_out(np.arange(4.0)[:, None], ["a", "a", "b", "b"], np.array([0, 0, 1, 1]), 1.0)
    assert said == ["b", "b", "a", "a"]


@pytest.mark.filterwarnings("error")
def test_a_class_in_one_fold_alone_is_never_predicted():
    labels = ["red"] * 20 + ["green"] * 20 + ["blue", "grey", "grey"]
    groups = [f"g{i}" for i in range(41)] + ["g41", "g41"]
    folds = fold_of(labels, groups, 5, seed=0)
    rare = unseen(labels, folds)
    assert np.flatnonzero(rare).tolist() == [40, 41, 42]
    features = np.eye(4)[[("red", "green", "blue", "grey").index(one) for one in labels]]
    said = held_out(features, labels, folds, 1.0)  # the class itself, as a feature
    assert [a == b for a, b in zip(said, labels, strict=True)] == (~rare).tolist()


def test_a_rare_class_is_seen_where_it_has_two_folds():
    assert unseen(["a", "a", "b", "b", "c"], np.array([0, 1, 0, 1, 1])).tolist() == [False] * 4 + [True]
    assert unseen(["a", "a", "b", "b", "b"], np.array([0, 0, 1, 1, 0])).tolist() == [True, True] + [False] * 3


def test_classes_that_do_not_recur_are_refused():
    labels = [f"answer {i}" for i in range(10)]
    with pytest.raises(
        StudyError, match=r"a class of at least 5 samples; the largest of 10 classes, .* has 1\. Give"
    ):
        fold_of(labels, labels, 5, seed=0)


def test_too_little_to_learn_from_is_explained():
    with pytest.raises(StudyError, match=r"two classes and 5 groups; got 1 classes \(a\) and 2 groups"):
        fold_of(["a", "a"], ["x", "y"], 5, seed=0)
