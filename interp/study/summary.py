"""From scores to means with intervals: bootstrap over groups, pairs for the nulls."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pandas as pd

from interp.stats import bootstrap, population_note

__all__ = ["differences", "summarise"]

NULLS = ("shuffled_boxes", "centre_prior")
OWN = ("sample", "group", "value")


def summarise(scores: pd.DataFrame, *, level: float = 0.95, seed: int = 0) -> pd.DataFrame:
    """One row per (axes…, layer, metric, control), in the order they were measured.

    The keys are whatever columns there are besides `sample`, `group` and `value`. `n` counts defined values,
    `n_undefined` the NaN ones, `n_groups` the groups resampled.
    """
    keys = [str(name) for name in scores.columns if name not in OWN]
    rows = [
        _key(keys, key) | _estimate(part.value, part.group, level, seed)
        for key, part in scores.groupby(keys, sort=False, dropna=False)
    ]
    return pd.DataFrame(rows)


def differences(
    scores: pd.DataFrame, axes: Sequence[str], *, level: float = 0.95, seed: int = 0
) -> pd.DataFrame:
    """The mean of "own boxes minus a null" over the same samples, per cell, layer, metric and null."""
    keys = [*axes, "layer", "metric"]
    wide = scores.pivot_table(index=[*keys, "sample", "group"], columns="control", values="value", sort=False)
    rows = []
    for null in (name for name in NULLS if name in wide):
        gaps = (wide["boxes"] - wide[null]).to_frame("value").reset_index()
        for key, part in gaps.groupby(keys, sort=False):
            estimate = _estimate(part.value, part.group, level, seed)
            rows.append(_key(keys, key) | {"control": f"boxes − {null}"} | estimate)
    return pd.DataFrame(rows)


def _key(names: list[str], values: Any) -> dict[str, Any]:
    return dict(zip(names, values, strict=True))


def _estimate(values: Any, groups: Any, level: float, seed: int) -> dict[str, Any]:
    interval = bootstrap(values.to_numpy(), groups.to_numpy(), seed=seed, level=level)
    return {
        "mean": interval.mean,
        "low": interval.low,
        "high": interval.high,
        "n": interval.n,
        "n_groups": interval.n_groups,
        "n_undefined": interval.n_nan,
        "note": population_note(interval.n_groups),
    }
