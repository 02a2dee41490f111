"""How kinds of text tokens compare: each at its own layer, against other samples' boxes and the last token."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import pandas as pd

from interp.stats import Interval, holm, paired, paired_test
from interp.study.frames import records, where
from interp.study.summary import summarise

if TYPE_CHECKING:
    from interp.study.choice import LayerChoice
    from interp.study.result import Result

__all__ = ["against_last", "own_layer_scores"]

Values: TypeAlias = dict[Any, pd.DataFrame]


def own_layer_scores(result: Result, choices: Mapping[str, LayerChoice], metric: str = "ar") -> pd.DataFrame:
    """The samples' scores on their own and on other samples' boxes, each indicator at its own chosen layer.

    Args:
        result: Over the axis "indicator".
        choices: Indicator's label → the layer chosen for it.
        metric: Which score.
    """
    scores = where(result.scores, result.scores.metric == metric)
    layers = [choices[kind].layers[model] for kind, model in zip(scores.indicator, scores.model, strict=True)]
    return where(scores, scores.layer == pd.Series(layers, index=scores.index))


def against_last(scores: pd.DataFrame, last: str, *, seed: int = 0) -> pd.DataFrame:
    """One row per (model, data, indicator): mean, minus shuffled boxes, minus the last token, Holm-adjusted p.

    Args:
        scores: From `own_layer_scores`.
        last: The label of the indicator that the others are compared with.
        seed: Of the bootstrap and the permutations.

    Returns:
        Columns model, data, indicator, layer, mean, low, high, n, n_groups, n_undefined, note; `shuffled`, the
        paired difference (`Interval`) from other samples' boxes; `last`, that from the last token (None for
        itself), and `p`, NaN for itself.
    """
    own = where(scores, scores.control == "boxes")
    rows = records(summarise(own, seed=seed))
    places = list(dict.fromkeys(zip(own.model, own.data, strict=True)))
    rows.sort(key=lambda row: places.index((row["model"], row["data"])))
    keys = ["model", "data", "indicator", "control"]
    values: Values = {key: part.set_index("sample") for key, part in scores.groupby(keys)}
    for row in rows:
        here = (row["model"], row["data"])
        mine = values[*here, row["indicator"], "boxes"]
        null = values.get((*here, row["indicator"], "shuffled_boxes"))
        row["shuffled"] = None if null is None else _gap(mine, null, seed)
        other = None if row["indicator"] == last else values.get((*here, last, "boxes"))
        row["last"] = None if other is None else _gap(mine, other, seed)
        row["p"] = np.nan if other is None else _test(mine, other, seed)
    frame = pd.DataFrame(rows).drop(columns=["metric", "control"])
    return frame.assign(p=holm(frame.p.to_numpy()))


def _gap(a: pd.DataFrame, b: pd.DataFrame, seed: int) -> Interval:
    return paired(*_both(a, b), seed=seed)


def _test(a: pd.DataFrame, b: pd.DataFrame, seed: int) -> float:
    return paired_test(*_both(a, b), seed=seed).p


def _both(a: pd.DataFrame, b: pd.DataFrame) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Values and groups of the samples measured both ways, in one order."""
    common = [sample for sample in a.index if sample in b.index]
    return a.value[common].to_numpy(), b.value[common].to_numpy(), a.group[common].to_numpy()
