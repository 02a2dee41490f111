"""Lesion-wise hit rates: a lesion seen in several slices of a volume counts once."""

from __future__ import annotations

from typing import Any, cast

import numpy as np
import pandas as pd

from interp.errors import StudyError
from interp.stats import bootstrap, population_note
from interp.study.dataframes import records, where
from interp.study.fields import is_level
from interp.study.layer_sweep.result import Cell, Result
from interp.study.result import is_result
from interp.study.truth import MASKS

__all__ = ["has_lesions", "lesion_hits"]

LESION = "lesion"
METRIC = "pointing"


def has_lesions(result: Result) -> bool:
    """Whether `lesion_hits` can be computed: some sample names its lesion and the pointing game was measured."""
    named = (LESION in sample.meta for cell in result.cells for sample in cell.sweep.data)
    return METRIC in result.metrics and any(named)


def lesion_hits(result: Result, *, level: float = 0.95) -> pd.DataFrame:
    """How many lesions the map's largest token hits in at least one of the slices that show them.

    Samples of one lesion have the same group (the volume or patient) and the same `meta["lesion"]`. With hᵢ the
    pointing game of slice i, a lesion's hit is 1 − Π(1 − hᵢ): 1 where any slice is hit, and the chance of a hit where
    maxima are tied. Lesions weigh the same, however many slices show them. A hit in any of many slices is easier than
    in one: compare with `chance`, the same formula with each slice's |B| / N in place of hᵢ, and with the baselines.

    Args:
        result: The result of a layer sweep whose metrics include "pointing".
        level: Coverage of the intervals, which resample groups.

    Returns:
        One row per (axes…, layer, control): `hits` in [0, 1], higher is better, its `low` and `high`, `chance` of a
        uniform map on the samples' own boxes, `slices` a lesion on average, `n` lesions, `n_groups`, and a `note` where
        groups are few. Slices with an undefined score are left out.

    Raises:
        StudyError: No sample names its lesion, or the pointing game was not measured.
    """
    is_level("level", level)
    if not isinstance(result, Result):
        is_result(result)
        raise StudyError(f"lesion_hits takes the result of a LayerSweep; got that of {result.study.title!r}.")
    if METRIC not in result.metrics:
        raise StudyError(
            f"lesion-wise hit rates need the pointing game, and the sweep measured {', '.join(result.metrics)}. Run it "
            'with metrics=["pointing", …].'
        )
    if not has_lesions(result):
        raise StudyError(
            'no sample names its lesion. Give the samples of each lesion of a volume the same meta["lesion"] and the '
            "same group."
        )
    return pd.DataFrame([row for cell in result.cells for row in _rows(cell, result.seed, level)])


def _rows(cell: Cell, seed: int, level: float) -> list[dict[str, Any]]:
    """The rows of one run."""
    found = []
    for key, part in _slices(cell).groupby(["layer", "control"], sort=False):
        layer, control = cast(tuple[Any, Any], key)
        each = part.groupby(["group", "lesion"], sort=False).agg(
            hits=("value", _any), chance=("chance", _any), slices=("value", "size")
        )
        interval = bootstrap(
            each.hits, each.index.get_level_values("group").to_numpy(), seed=seed, level=level
        )
        found.append(
            {
                **cell.labels,
                "layer": layer,
                "control": control,
                "hits": interval.mean,
                "low": interval.low,
                "high": interval.high,
                "chance": float(each.chance.mean()),
                "slices": float(each.slices.mean()),
                "n": interval.n,
                "n_groups": interval.n_groups,
                "note": population_note(interval.n_groups),
            }
        )
    return found


def _slices(cell: Cell) -> Any:
    """The scores of the pointing game on samples that name their lesion, with lesion, group and chance."""
    samples, scores = cell.named_frame("samples"), cell.frame("scores")
    data = cell.sweep.data
    own = [
        {
            "index": row["index"],
            "lesion": str(data[row["index"]].meta[LESION]),
            "group": row["group"],
            "chance": _chance(cell, row),
        }
        for row in records(samples)
        if LESION in data[row["index"]].meta
    ]
    scores = where(scores, (scores.metric == METRIC) & scores.value.notna())
    return scores.merge(pd.DataFrame(own), on="index")


def _chance(cell: Cell, row: dict[str, Any]) -> float:
    """The score of a uniform map: the share of the tokens that see something which lies inside."""
    n_seen = int((~np.isnan(np.asarray(row["footprints"], float).reshape(-1, 4)).any(axis=1)).sum())
    if cell.sweep.rule != MASKS:
        return row["n_box_tokens"] / n_seen
    masks = cell.sweep.data[row["index"]].masks
    return float(cell.tokens(row["index"]).coverage(masks).sum()) / n_seen


def _any(chances: pd.Series) -> float:
    """The chance that any of several independent events happens."""
    return 1.0 - float(np.prod(1.0 - chances.to_numpy(float)))
