"""What a probe sweep found: how well each probe predicts held-out samples, beside its control task."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd

from interp.study.dataframes import below, where
from interp.study.probe_sweep.probes import control_labels, fold_of, held_out, majority, unseen
from interp.study.result import GridResult
from interp.study.runs import GridCell

__all__ = ["MEASURES", "ProbeResult"]

MEASURES = ("accuracy", "control", "selectivity", "majority")


@dataclass(frozen=True, repr=False)
class ProbeResult(GridResult):
    """The result of a `ProbeSweep`, or of a grid over it. The probes are fitted when `scores` is first read.

    `scores` has one row per (axes…, sample, group, position, layer, measure); `said` has the class that each probe
    predicted.
    """

    @cached_property
    def values(self) -> pd.DataFrame:
        """`scores` with each sample's `index`, which is unique even where ids repeat."""
        columns = ["index", "sample", "group", "position", "layer"]
        return self._of_each(
            lambda own: pd.melt(own, id_vars=columns, value_vars=list(MEASURES), var_name="measure")
        )

    @cached_property
    def scores(self) -> pd.DataFrame:
        """One row per (axes…, sample, group, position, layer, measure): its value."""
        return self.values.drop(columns="index")

    @property
    def said(self) -> pd.DataFrame:
        """One row per (axes…, sample, group, position, layer): the true class, `target`, and the predicted, `said`."""
        kept = ["index", "sample", "group", "position", "layer", "target", "said"]
        return self._of_each(lambda own: own.reindex(columns=kept))

    @property
    def unseen(self) -> pd.DataFrame:
        """Classes that lie in one fold alone: one row per (axes…, target), `n` samples and their `share` of the run.

        The probe that scores these samples has not seen their class, so they count as wrong at every layer and
        position: accuracy is at most 1 − the sum of the shares.
        """

        def classes(fitted: pd.DataFrame) -> pd.DataFrame:
            own = fitted.drop_duplicates("index")
            n = where(own, own.unseen).groupby("target").size()
            return pd.DataFrame(
                {"target": n.index.astype(str), "n": n.to_numpy(), "share": n.to_numpy() / len(own)}
            )

        return self._of_each(classes)

    def _of_each(self, make: Callable[[pd.DataFrame], pd.DataFrame]) -> pd.DataFrame:
        """What is made of the probes of each run, with a leading column per axis."""
        frames = []
        for cell in (cell for cell in self.cells if cell.measured):
            frame = make(self._fitted[cell.key])
            for place, (axis, label) in enumerate(cell.labels.items()):
                frame.insert(place, axis, label)
            frames.append(frame)
        return below(frames)

    @cached_property
    def _fitted(self) -> dict[tuple[str, ...], pd.DataFrame]:
        return {cell.key: _fitted(cell) for cell in self.cells if cell.measured}


def _fitted(cell: GridCell) -> pd.DataFrame:
    """The probes of one run: one row per sample, position and layer.

    Raises:
        StudyError: The measured samples have one class alone, fewer groups than folds, or no class with as many
            samples as folds.
    """
    study: Any = cell.study
    samples = cell.folder.read_table("samples").to_pandas().sort_values("index").reset_index(drop=True)
    features = cell.folder.read_table("features").to_pandas().sort_values("index", kind="stable")
    labels, groups = samples.target.tolist(), samples.group.tolist()
    folds = fold_of(labels, groups, study.folds, study.seed)
    drawn = control_labels(samples.type.tolist(), labels, study.seed)
    same = np.array([a == b for a, b in zip(majority(labels, folds), labels, strict=True)], float)
    alone = unseen(labels, folds)
    frames = []
    for (position, layer), own in features.groupby(["position", "layer"], sort=False, observed=True):
        vectors = np.stack(own["values"].to_list())
        said = held_out(vectors, labels, folds, study.penalty)
        right, chance = (
            np.array([a == b for a, b in zip(found, wanted, strict=True)], float)
            for found, wanted in ((said, labels), (held_out(vectors, drawn, folds, study.penalty), drawn))
        )
        one = samples[["index", "sample", "group", "target"]].assign(
            position=position, layer=layer, said=said, unseen=alone
        )
        frames.append(one.assign(accuracy=right, control=chance, selectivity=right - chance, majority=same))
    return pd.concat(frames, ignore_index=True)
