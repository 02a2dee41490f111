"""What a study of head roles found: one row per head, and sets of heads chosen by a measure."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd

from interp.errors import StudyError
from interp.inputs.argument_checks import check_bool
from interp.stats import population_note
from interp.study.dataframes import below, where
from interp.study.head_ranking.head_set import HeadSet
from interp.study.head_ranking.result import HeadMeans, head_estimates
from interp.study.head_roles.task import MEASURES
from interp.study.result import GridResult
from interp.study.study import is_level, whole_number

__all__ = ["HeadTable", "head_name"]


def head_name(layer: int, head: int) -> str:
    """A head's name in tables: layer and head, 0-based, with at least two digits, so that names sort.

    >>> head_name(14, 3)
    'L14H03'
    """
    return f"L{layer:02d}H{head:02d}"


@dataclass(frozen=True, repr=False)
class HeadTable(GridResult):
    """The result of a `HeadRoles`, or of a grid over it.

    `scores` has one row per (axes…, sample, layer, head, measure); `summary()` has the means over samples with
    intervals over groups, and `heads` has one row per head. Notebooks and `.table()` show the summary.
    """

    def summary(self, level: float = 0.95) -> pd.DataFrame:
        """Mean and bootstrap interval over groups of each (axes…, measure, layer, head).

        Columns `mean`, `low`, `high`, `n`, `n_groups`, `n_undefined` and `note`, as in `GridResult.summary`. All heads
        share their resamplings.
        """
        is_level("level", level)
        if level not in self._summaries:
            keys = [*self.axes, "measure"]
            parts: Any = self.scores.groupby(keys, sort=False, observed=True)
            self._summaries[level] = below(
                self._of_measure(dict(zip(keys, key, strict=True)), own, level) for key, own in parts
            )
        return self._summaries[level].copy()

    def _of_measure(self, key: dict[str, str], scores: pd.DataFrame, level: float) -> pd.DataFrame:
        means = HeadMeans.of(scores)
        found = head_estimates(means, level, self.seed)
        return pd.DataFrame(
            {
                **key,
                "layer": [layer for layer, _ in means.heads],
                "head": [head for _, head in means.heads],
                **found,
                "note": [population_note(int(n)) for n in found["n_groups"]],
            }
        )

    @cached_property
    def heads(self) -> pd.DataFrame:
        """One row per (axes…, layer, head): `name`, each measure's mean with `_low` and `_high`, and `copying`."""
        keys = [*self.axes, "layer", "head"]
        wide = self.summary().pivot(index=keys, columns="measure", values=["mean", "low", "high"])
        columns = {}
        for measure in (one for one in MEASURES if one in wide["mean"]):
            columns[measure] = wide["mean"][measure]
            columns |= {f"{measure}_{end}": wide[end][measure] for end in ("low", "high")}
        found = pd.DataFrame(columns).reset_index().merge(self.copying, on=keys, how="left")
        names = [head_name(layer, head) for layer, head in zip(found.layer, found["head"], strict=True)]
        found.insert(len(keys), "name", names)
        return found

    @cached_property
    def copying(self) -> pd.DataFrame:
        """The copying score of each head, in [−1, 1]; it depends on the weights alone, so it has no interval."""
        keys = [*self.axes, "layer", "head"]
        frame = self._frames("copying").drop_duplicates(keys)
        return frame.reindex(columns=[*keys, "value"]).rename(columns={"value": "copying"})

    @property
    def measures(self) -> tuple[str, ...]:
        """The columns of `heads` that heads can be chosen by."""
        return tuple(name for name in (*MEASURES, "copying") if name in self.heads)

    def top(self, measure: str, k: int, *, lowest: bool = False) -> HeadSet:
        """The k heads with the highest mean of a measure, highest first; they are chosen on these samples.

        Args:
            measure: One of `measures`.
            k: The number of heads; heads without a mean are never among them.
            lowest: Whether to take the heads with the lowest mean instead, lowest first.

        Raises:
            StudyError: The measure is unknown, the result has several cells, `lowest` is no bool, or fewer than k heads
                have a mean.
        """
        if len(self.cells) > 1:
            raise StudyError(
                f"heads are chosen in one run; this result has {len(self.cells)}. Choose in the result of one study."
            )
        if not isinstance(measure, str) or measure not in self.measures:
            raise StudyError(f"measure is one of {', '.join(self.measures)}; got {measure!r}.")
        whole_number(1)("k", k)
        check_bool("lowest", lowest, StudyError)
        known = where(self.heads, self.heads[measure].notna())
        if len(known) < k:
            raise StudyError(
                f"{len(known)} heads have a mean of {measure}; got k={k}. Take at most {len(known)}."
            )
        order = np.argsort(known[measure] if lowest else -known[measure], kind="stable")[:k]
        pairs = [(int(known.layer.iloc[i]), int(known["head"].iloc[i])) for i in order]
        which = "lowest" if lowest else "highest"
        cell = next(iter(self.cells))
        said = f"{k} heads of {which} {measure}"
        return HeadSet.of(pairs, name=said, source=f"head roles of {cell.study.label}")

    def tables(self) -> dict[str, pd.DataFrame]:
        """The tables that `export` writes: "heads" and "summary"."""
        return {"heads": self.heads, "summary": self.summary()}
