"""What a study of a circuit found: the edges by effect, and what graphs of the strongest of them keep."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import pandas as pd

from interp.errors import StudyError
from interp.study.result import GridResult
from interp.study.study import whole_number

__all__ = ["CircuitResult"]


@dataclass(frozen=True, repr=False)
class CircuitResult(GridResult):
    """The result of a `Circuit`, or of a grid over it.

    `scores` has one row per (axes…, sample, n_edges, measure); measure is "share" or "value", as `Circuit` defines
    them. `summary()` has their means over samples with intervals over groups. `edges` has the effect of each edge.
    """

    @cached_property
    def edges(self) -> pd.DataFrame:
        """One row per (axes…, source, receiver), the edge of largest |effect| first in each cell.

        Columns: `effect` (mean over samples, nats), `exact` (nats, mean over the samples in which the edge was patched
        exactly; NaN where there is none), `n_exact` and `n` (numbers of samples), `positive` (the share of samples with
        an effect above 0, in [0, 1]).
        """
        keys = [*self.axes, "source", "receiver"]
        parts = self._frames("edges").groupby(keys, sort=False, observed=True)
        found = pd.DataFrame(
            {
                "effect": parts.effect.mean(),
                "exact": parts.exact.mean(),
                "n_exact": parts.exact.count(),
                "n": parts.effect.count(),
                "positive": parts.effect.agg(lambda values: float((values > 0).mean())),
            }
        ).reset_index()
        order = found.effect.abs().sort_values(ascending=False, kind="stable").index
        return found.loc[order].sort_values(list(self.axes), kind="stable").reset_index(drop=True)

    def graph(self, n: int) -> tuple[tuple[str, str], ...]:
        """The n edges of largest |mean effect|, the strongest first: `Circuit(graph=…)` takes them to other samples.

        Raises:
            StudyError: The result has several cells, or n is no whole number ≥ 1.
        """
        if len(self.cells) > 1:
            raise StudyError(
                f"a graph is of one run; this result has {len(self.cells)}. Take the result of one study."
            )
        whole_number(1)("n", n)
        own = self.edges.head(n)
        return tuple(zip(own.source.astype(str), own.receiver.astype(str), strict=True))

    def heads(self, n: int) -> tuple[tuple[int, int], ...]:
        """The heads, (layer, head), that edges of `graph(n)` touch, in the order of the layers.

        Raises:
            StudyError: As in `graph`.
        """
        names = {name for edge in self.graph(n) for name in edge if "H" in name}
        return tuple(
            sorted((int(name[1 : name.index("H")]), int(name[name.index("H") + 1 :])) for name in names)
        )
