"""Did it look, was it right: each sample's attention ratio against a threshold, and its answer."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from interp.errors import StudyError
from interp.stats import bootstrap, bootstrap_statistic, population_note
from interp.study.frames import rows_of, where

if TYPE_CHECKING:
    from interp.stats import Interval
    from interp.study.choice import LayerChoice
    from interp.study.result import Result

__all__ = ["OUTCOMES", "counts", "relations", "thresholds", "verdicts"]

OUTCOMES = {
    (True, True): "looked, right",
    (True, False): "looked, wrong",
    (False, True): "looked elsewhere, right",
    (False, False): "looked elsewhere, wrong",
}
"""(looked, correct) → name."""

Key = tuple[str, str]
KEY: tuple[str, ...] = ("model", "data")


def thresholds(validation: Result, choice: LayerChoice, share: float = 0.95) -> dict[Key, float]:
    """(model, data) → the AR above which a sample counts as “looked”.

    It is the `share` quantile of the AR that the same maps have on *other samples'* boxes, at the chosen layer:
    what looking somewhere gives by luck, for these images and boxes of this size. No answer takes part in it.

    Args:
        validation: Samples to choose on, which are not reported.
        choice: The layer.
        share: Of luck that the threshold leaves below it.

    Raises:
        StudyError: A data set without a pair of samples to swap boxes.
    """
    scores = _at(validation, choice)
    scores = where(scores, scores.control == "shuffled_boxes")
    found = {}
    for cell in validation.cells:
        key = (cell.labels["model"], cell.labels["data"])
        values = rows_of(scores, dict(zip(KEY, key, strict=True))).value.dropna()
        if values.empty:
            raise StudyError(
                f"no threshold for {' · '.join(key)}: expected validation samples that can borrow each other's "
                "boxes, got none. Give it more validation samples."
            )
        found[key] = float(np.quantile(values, share))
    return found


def verdicts(result: Result, choice: LayerChoice, limits: Mapping[Key, float]) -> pd.DataFrame:
    """One row per sample: model, data, index, sample, group, predicted, answer, ar, looked, correct, outcome.

    Left out are samples whose AR is undefined or whose answer is not known: `len(result.samples)` less these
    rows. `looked`: AR above the limit of its (model, data).
    """
    scores = _at(result, choice)
    own = where(scores, scores.control == "boxes").assign(ar=lambda rows: rows.value)
    columns = ["model", "data", "index", "sample", "group", "answer", "predicted", "correct"]
    frame = result.samples[columns].merge(own[[*KEY, "sample", "ar"]], on=[*KEY, "sample"])
    frame = frame.dropna(subset=["ar", "correct"]).reset_index(drop=True)
    limit = pd.Series([limits[key] for key in zip(frame.model, frame.data, strict=True)], dtype=float)
    frame = frame.assign(looked=frame.ar > limit, correct=frame.correct.astype(bool))
    names = [OUTCOMES[bool(a), bool(b)] for a, b in zip(frame.looked, frame.correct, strict=True)]
    return frame.assign(outcome=names)


def counts(found: pd.DataFrame, *, seed: int = 0) -> pd.DataFrame:
    """One row per (model, data, outcome): n, share with its interval over groups, and the share to expect.

    Returns:
        Columns model, data, outcome, n, share, low, high, n_groups, note; where no or every sample has the
        outcome, the ends are Clopper and Pearson's 95 % for none or all of the groups, since a bootstrap then sees
        no variation. `expected`, the share if looking and
        being right had nothing to do with each other: the product of the two margins.
    """
    rows = []
    for labels, part in _parts(found):
        for (looked, correct), name in OUTCOMES.items():
            here = (part.outcome == name).astype(float)
            interval = _bounded(bootstrap(here.to_numpy(), part.group, seed=seed))
            expected = float((part.looked == looked).mean() * (part.correct == correct).mean())
            rows.append(
                {
                    **labels,
                    "outcome": name,
                    "n": int(here.sum()),
                    "share": interval.mean,
                    "low": interval.low,
                    "high": interval.high,
                    "expected": expected,
                    "n_groups": interval.n_groups,
                    "note": population_note(interval.n_groups),
                }
            )
    return pd.DataFrame(rows)


def _bounded(interval: Interval) -> Interval:
    """The interval; one without width at 0 or 1 gets an end from the number of groups."""
    if interval.mean not in (0.0, 1.0) or not interval.n_groups:
        return interval
    room = 1 - 0.025 ** (1 / interval.n_groups)
    return replace(interval, low=max(0.0, interval.mean - room), high=min(1.0, interval.mean + room))


def relations(found: pd.DataFrame, *, seed: int = 0) -> dict[Key, dict[str, Interval]]:
    """(model, data) → how looking and being right go together, with intervals over groups.

    "difference": the share of right answers among those that looked less that among those that looked elsewhere.
    "auroc": the chance that AR is higher for a right answer than for a wrong one (ties count half); 0.5 is none.
    Both are NaN where one side is empty or every answer is right, or wrong.
    """
    found_by: dict[Key, dict[str, Interval]] = {}
    for labels, part in _parts(found):
        looked, right = part.looked.to_numpy(float), part.correct.to_numpy(float)
        found_by[labels["model"], labels["data"]] = {
            "difference": bootstrap_statistic(_difference, [looked, right], part.group, seed=seed),
            "auroc": bootstrap_statistic(_auroc, [part.ar.to_numpy(float), right], part.group, seed=seed),
        }
    return found_by


def _parts(found: pd.DataFrame) -> list[tuple[dict[str, str], pd.DataFrame]]:
    """Labels and rows of each (model, data)."""
    names = dict.fromkeys(zip(found.model, found.data, strict=True))
    return [
        (labels, rows_of(found, labels)) for labels in (dict(zip(KEY, key, strict=True)) for key in names)
    ]


def _difference(looked: np.ndarray, right: np.ndarray) -> float:
    sides = right[looked == 1], right[looked == 0]
    varies = all(map(len, sides)) and right.min() < right.max()
    return float(sides[0].mean() - sides[1].mean()) if varies else np.nan


def _auroc(ar: np.ndarray, right: np.ndarray) -> float:
    n_right = int(right.sum())
    if n_right in (0, len(right)):
        return np.nan
    ranks = pd.Series(ar).rank().to_numpy()  # mid-ranks, so that ties count half
    return float((ranks[right == 1].sum() - n_right * (n_right + 1) / 2) / (n_right * (len(right) - n_right)))


def _at(result: Result, choice: LayerChoice) -> pd.DataFrame:
    """The AR of every sample at its model's chosen layer."""
    scores = where(result.scores, result.scores.metric == "ar")
    return where(scores, scores.layer == scores.model.map(dict(choice.layers)))
