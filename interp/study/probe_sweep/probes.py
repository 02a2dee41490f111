"""Logistic probes with grouped cross-validation, and the labels of their control task: pure functions of arrays."""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Float, Int

from interp.errors import StudyError
from interp.inputs.text import brief

__all__ = ["control_labels", "fold_of", "held_out", "majority", "unseen"]

MOST_STEPS = 2000
"""The maximum number of steps of the optimiser."""


def fold_of(
    labels: Sequence[str], groups: Sequence[str], folds: int, seed: int
) -> Int[np.ndarray, " sample"]:
    """The fold in which each sample is held out; groups stay together, classes are spread as evenly as possible.

    A class of fewer samples than folds is held out in some of them only; see `unseen` for one that has a single fold.

    Raises:
        StudyError: There is one class alone, there are fewer groups than folds, or no class has a sample for each fold.
    """
    from sklearn.model_selection import StratifiedGroupKFold

    if len(set(labels)) < 2 or len(set(groups)) < folds:
        raise StudyError(
            f"a probe in {folds} folds needs at least two classes and {folds} groups; got {len(set(labels))} classes "
            f"({', '.join(sorted(set(labels))[:5])}) and {len(set(groups))} groups. Give more samples, or fewer folds."
        )
    name, most = Counter(labels).most_common(1)[0]
    if most < folds:
        raise StudyError(
            f"a probe in {folds} folds needs a class of at least {folds} samples; the largest of {len(set(labels))} "
            f"classes, {brief(name)}, has {most}. Give more samples of a class, fewer folds, or a target that recurs."
        )
    found = np.full(len(labels), -1)
    splitter = StratifiedGroupKFold(n_splits=folds, shuffle=True, random_state=seed)
    zeros = np.zeros((len(labels), 1))
    with np.errstate(all="ignore"), warnings.catch_warnings():
        # of classes with fewer members than folds: what that means for a probe is what `unseen` says
        warnings.filterwarnings("ignore", "The least populated class", UserWarning)
        for number, (_, held) in enumerate(splitter.split(zeros, list(labels), list(groups))):
            found[held] = number
    return found


def held_out(
    features: Float[np.ndarray, "sample hidden"],
    labels: Sequence[str],
    folds: Int[np.ndarray, " sample"],
    penalty: float,
) -> list[str]:
    """The class that a probe predicts for each sample, fitted on the other folds alone.

    The probe is a multinomial logistic regression with an L2 penalty on features standardised by the mean and deviation
    of the training samples. With more dimensions than training samples the features are first rotated into the space
    that the samples span: the penalty is invariant under rotation, so the probe is the same and smaller.

    Args:
        features: One vector per sample.
        labels: The class of each.
        folds: The fold in which each sample is held out.
        penalty: λ in ½ λ ‖w‖² + the sum of the samples' log losses; scikit-learn's C is 1 / λ.
    """
    from threadpoolctl import threadpool_limits

    with threadpool_limits(1):  # several threads make matrices this small 60 times slower
        return _held_out(features.astype(np.float64), np.array(labels), folds, penalty)


def _held_out(
    given: Float[np.ndarray, "sample hidden"],
    classes: np.ndarray,
    folds: Int[np.ndarray, " sample"],
    penalty: float,
) -> list[str]:
    from sklearn.linear_model import LogisticRegression
    from sklearn.preprocessing import StandardScaler

    said = np.empty(len(classes), dtype=classes.dtype)
    for fold in np.unique(folds):
        held = folds == fold
        known = classes[~held]
        if len(set(known)) == 1:
            said[held] = known[0]
            continue
        scaler = StandardScaler().fit(given[~held])
        train, test = (np.asarray(scaler.transform(given[one])) for one in (~held, held))
        if train.shape[1] > train.shape[0]:
            axes = np.linalg.svd(train, full_matrices=False)[2]
            train, test = train @ axes.T, test @ axes.T
        probe = LogisticRegression(C=1 / penalty, max_iter=MOST_STEPS).fit(train, known)
        said[held] = probe.predict(test)
    return [str(one) for one in said]


def majority(labels: Sequence[str], folds: Int[np.ndarray, " sample"]) -> list[str]:
    """The most frequent class of each sample's training folds; of equally frequent ones the first in the alphabet."""
    classes = np.array(labels)
    said = np.empty(len(classes), dtype=classes.dtype)
    for fold in np.unique(folds):
        names, counts = np.unique(classes[folds != fold], return_counts=True)
        said[folds == fold] = names[counts.argmax()]
    return [str(one) for one in said]


def unseen(labels: Sequence[str], folds: Int[np.ndarray, " sample"]) -> Bool[np.ndarray, " sample"]:
    """Whether no other fold holds a sample's class: the probe that scores it has not seen the class, so it is wrong."""
    classes = np.array(labels)
    return np.array(
        [not np.any(classes[folds != fold] == own) for own, fold in zip(classes, folds, strict=True)]
    )


def control_labels(types: Sequence[str], labels: Sequence[str], seed: int) -> list[str]:
    """A random class for each sample, the same within a type, drawn with the classes' own frequencies."""
    rng = np.random.default_rng(seed)
    names, counts = np.unique(np.array(labels), return_counts=True)
    drawn = {one: str(rng.choice(names, p=counts / counts.sum())) for one in sorted(set(types))}
    return [drawn[one] for one in types]
