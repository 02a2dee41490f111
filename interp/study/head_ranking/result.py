"""What a head ranking found: scores per head, their means in order, figures and a report."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float, Int, Shaped
from rich.table import Table
from rich.text import Text

from interp.errors import StudyError
from interp.metrics import METRICS
from interp.stats import population_note
from interp.study.dataframes import below, records, where
from interp.study.result import GridResult, printed
from interp.study.study import as_tuple, is_level, whole_number

if TYPE_CHECKING:
    import plotly.graph_objects as go

__all__ = ["HeadGrid", "HeadMeans", "HeadResult", "draws", "goodness", "head_estimates", "head_order"]


@dataclass(frozen=True, eq=False)
class HeadMeans:
    """Sums and counts of the defined scores of each group and head.

    Attributes:
        heads: (layer, head) pairs, 0-based, in the order of the columns of `sums` and `counts`.
        groups: The groups' names, sorted, so that the order of samples does not matter.
        sums: The sum of the defined scores of each group and head, in the metric's unit.
        counts: The number of defined scores of each group and head.
        undefined: The number of undefined scores of each head.
    """

    heads: tuple[tuple[int, int], ...]
    groups: tuple[str, ...]
    sums: Float[np.ndarray, "group pair"]
    counts: Float[np.ndarray, "group pair"]
    undefined: Int[np.ndarray, " pair"]

    @classmethod
    def of(cls, scores: pd.DataFrame) -> HeadMeans:
        """The sums and counts of a frame with the columns group, layer, head, value."""
        by = scores.groupby(["group", "layer", "head"]).value
        sums, counts = (part.unstack(["layer", "head"]).sort_index() for part in (by.sum(), by.count()))
        order = sorted(sums.columns)
        undefined = scores.value.isna().groupby([scores.layer, scores["head"]]).sum()
        return cls(
            tuple((int(layer), int(head)) for layer, head in order),
            tuple(str(group) for group in sums.index),
            sums[order].fillna(0.0).to_numpy(np.float64),
            counts[order].fillna(0).to_numpy(np.float64),
            undefined.reindex(order).to_numpy(np.int64),
        )

    def mean(self, weights: Float[np.ndarray, "draw group"] | None = None) -> Float[np.ndarray, "draw pair"]:
        """Each head's mean, with each group counted as often as `weights` say; NaN where nothing is defined.

        Without weights every group counts once, and there is one draw. Heads with equal scores then have bit-equal
        means, which a matrix product does not guarantee.
        """
        if weights is None:
            sums, counts = (part.sum(axis=0, keepdims=True) for part in (self.sums, self.counts))
        else:
            sums, counts = weights @ self.sums, weights @ self.counts
        return np.divide(sums, counts, out=np.full(sums.shape, np.nan), where=counts > 0)

    def only(self, kept: Bool[np.ndarray, " pair"]) -> HeadMeans:
        """The sums and counts of some of the heads."""
        heads = tuple(head for head, keep in zip(self.heads, kept, strict=True) if keep)
        return HeadMeans(heads, self.groups, self.sums[:, kept], self.counts[:, kept], self.undefined[kept])


def draws(n_groups: int, n: int, rng: np.random.Generator) -> Float[np.ndarray, "draw group"]:
    """How often each group is drawn in each of n draws of `n_groups` groups with replacement."""
    return rng.multinomial(n_groups, np.full(n_groups, 1 / n_groups), size=n).astype(np.float64)


def goodness(means: Float[np.ndarray, "*lead pair"], metric: str) -> Float[np.ndarray, "*lead pair"]:
    """The means with the sign by which larger is better; −∞ for heads without a mean."""
    signed = means if METRICS[metric].better == "higher" else -means
    return np.where(np.isnan(means), -np.inf, signed)


def head_order(means: Float[np.ndarray, " pair"], metric: str) -> Int[np.ndarray, " pair"]:
    """Indices of the heads from best to worst; ties keep their order, heads without a mean come last."""
    return np.argsort(-goodness(means, metric), kind="stable")


N_DRAWS = 2000
WIDTH = 110
UNIFORM_FRIENDLY = ("kl", "kl_gain")
Pairs = tuple[tuple[int, int], ...]


@dataclass(frozen=True, repr=False)
class HeadResult(GridResult):
    """The result of a `HeadRanking`: one run.

    `scores` has one row per (axes…, sample, group, layer, head, metric): its value, NaN where undefined; `samples` has
    the number of tokens that each sample's boxes cover, and a uniform map's score (`even`).

    Attributes:
        name: A name that distinguishes it from results shown beside it; by default its data's name.

    Raises:
        StudyError: No sample could be measured.
    """

    study: Any  # the HeadRanking
    name: str = field(default="", compare=False)

    def __post_init__(self) -> None:
        if self.cells[0].folder.has_table("samples"):
            self.cells[0].check()

    @cached_property
    def scores(self) -> pd.DataFrame:
        """One row per (axes…, sample, group, layer, head, metric): its value, NaN where undefined."""
        found, own = super().scores, self._metric
        columns = [*self.axes, "sample", "group", "layer", "head", *own, "value"]
        return found.assign(**own).reindex(columns=columns)

    @property
    def _metric(self) -> dict[str, str]:
        """The column that names the metric; empty where an axis names it."""
        return {} if "metric" in self.axes else {"metric": self.study.metric}

    @cached_property
    def means(self) -> HeadMeans:
        """Sums and counts per group and head."""
        return HeadMeans.of(self.scores)

    def summary(self, level: float = 0.95) -> pd.DataFrame:
        """Mean and bootstrap interval over groups of each (axes…, layer, head, metric).

        Columns `mean`, `low`, `high`, `n`, `n_groups`, `n_undefined`, `gain` and `note`. `gain` says how much better
        the mean is than a uniform map's on the same samples; above 0 is better in either direction of the metric.
        `note` is a sentence where there are too few groups for a claim about a population. All heads share their
        resamplings.
        """
        is_level("level", level)
        means = self.means
        found = head_estimates(means, level, self.study.seed)
        frame = {
            **self.cells[0].labels,
            "layer": [layer for layer, _ in means.heads],
            "head": [head for _, head in means.heads],
            **self._metric,
            **found,
            "gain": self._gains,
            "note": [population_note(int(n)) for n in found["n_groups"]],
        }
        return pd.DataFrame(frame)

    @cached_property
    def _gains(self) -> Float[np.ndarray, " pair"]:
        scores = self.values.merge(self.samples[["index", "even"]], on="index")  # one run: ids may repeat
        sign = 1 if METRICS[self.study.metric].better == "higher" else -1
        return HeadMeans.of(scores.assign(value=sign * (scores.value - scores.even))).mean()[0]

    @property
    def even(self) -> float:
        """The mean score of a uniform map on these samples."""
        return float(self.samples.even.mean())

    def best(self, k: int) -> pd.DataFrame:
        """The first k rows of `ranked`, or all that have a mean.

        Raises:
            StudyError: `k` is no whole number ≥ 0.
        """
        whole_number(0)("k", k)
        return where(self.ranked, self.ranked["rank"] > 0).head(k)

    def n_beating_even(self, k: int) -> int:
        """The number of the best k heads that have a better mean than a uniform map."""
        return sum(row["gain"] > 0 for row in records(self.best(k)))

    def verdict(self, k: int = 20) -> str:
        """A sentence on how many of the best k heads, and of all heads, are better than a uniform map.

        KL penalises a map that leaves any part of a box dark, so heads that attend everywhere can rank first.
        """
        ranked = self.n_heads - self.n_unranked
        n_best, n_all = self.n_beating_even(k), self.n_beating_even(ranked)
        said = (
            f"A uniform map scores {self.even:.3f}: {n_best} of the top {min(k, ranked)} heads and {n_all} of "
            f"all {ranked} are better."
        )
        if self.study.metric in UNIFORM_FRIENDLY and n_best <= min(k, ranked) / 2:
            said += " This metric favours uniform maps over sharp ones: rank by ar or auroc too."
        return said

    def none_beats_even(self) -> str:
        """A sentence where no head is better than a uniform map; empty otherwise."""
        ranked = self.n_heads - self.n_unranked
        if not ranked or self.n_beating_even(ranked):
            return ""
        return (
            f"{self.study.label}: no head is better than a uniform map, so this order shows which heads are the least "
            f"bad, not which look at the boxes."
        )

    @cached_property
    def ranked(self) -> pd.DataFrame:
        """The summary from best to worst, with `rank` from 1; heads without a mean come last, `rank` 0."""
        summary = self.summary()
        ordered = summary.iloc[head_order(summary["mean"].to_numpy(), self.study.metric)].reset_index(
            drop=True
        )
        ranks = np.where(ordered["mean"].isna(), 0, np.arange(1, len(ordered) + 1))
        ordered.insert(0, "rank", ranks)
        return ordered

    def tables(self) -> dict[str, pd.DataFrame]:
        """The table that `export` writes: "heads", from best to worst."""
        return {"heads": self.ranked}

    @property
    def n_heads(self) -> int:
        """The number of heads measured, those without a mean included."""
        return len(self.means.heads)

    @property
    def n_unranked(self) -> int:
        """The number of heads without one defined score."""
        return int(np.count_nonzero(self.ranked["rank"] == 0))

    def top(self, k: int) -> Pairs:
        """The k best heads on these samples as (layer, head), best first; on test samples this is only a description.

        Raises:
            StudyError: Fewer than k heads have a mean, or `k` is no whole number ≥ 1.
        """
        ranked = self.n_heads - self.n_unranked
        whole_number(1)("k", k)
        if k > ranked:
            unranked = f" ({self.n_unranked} more have no defined score)" if self.n_unranked else ""
            raise StudyError(
                f"{self.study.label} has {ranked} ranked heads{unranked}; got k={k}. Ask for fewer."
            )
        return tuple((int(row["layer"]), int(row["head"])) for row in records(self.best(k)))

    def table(self, k: int = 20) -> str:
        """The best k heads as text, one line per head with mean [low, high], and the number of unranked heads."""
        metric = METRICS[self.study.metric]
        title = f"{self.study.label}: heads by {metric.label} ({metric.better} is better)"
        table = Table(title=Text(title), title_justify="left")
        for name in ("rank", "layer", "head", "mean", "95 %", "gain", "samples", "groups"):
            table.add_column(name, justify="right")
        for row in records(self.best(k)):
            few = "too few groups" if row["note"] else f"[{row['low']:.3f}, {row['high']:.3f}]"
            numbers = (f"{row['mean']:.3f}", few, f"{row['gain']:+.3f}", row["n"], row["n_groups"])
            table.add_row(*map(str, (row["rank"], row["layer"], row["head"], *numbers)))
        lines = [self.none_beats_even(), printed(table, WIDTH), self.verdict(k)]
        lines += [self._unranked_line()] if self.n_unranked else []
        return "\n".join(line for line in lines if line)

    def _unranked_line(self) -> str:
        return f"Heads that are not ranked, because they have no defined score: {self.n_unranked} of {self.n_heads}."

    def figures(
        self, k: int = 20, *, against: HeadResult | Sequence[HeadResult] = ()
    ) -> dict[str, go.Figure]:
        """Plotly figures: "heads", a heat map layers × heads per result with the top k marked.

        With `against`, other results with the same number of heads, all share one colour scale, and "ranks" has each
        head's rank here against its rank there.
        """
        return self._page.figures(self, k=k, against=_several(against))

    def report(
        self,
        path: str | os.PathLike[str] | None = None,
        *,
        k: int = 20,
        against: HeadResult | Sequence[HeadResult] = (),
    ) -> Path:
        """Write the report, one HTML file that loads nothing from elsewhere, and return its path.

        Args:
            path: Where to write it; `report.html` in the run's folder when left out.
            k: The number of top heads.
            against: Other results, whose rankings are compared with this one.
        """
        return self._write(path, k=k, against=_several(against))


def _several(against: HeadResult | Sequence[HeadResult]) -> tuple[HeadResult, ...]:
    found = (against,) if isinstance(against, HeadResult) else as_tuple(against)
    if not isinstance(found, tuple) or not all(isinstance(one, HeadResult) for one in found):
        raise StudyError(f"against takes results of other head rankings, as [other]; got {against!r}.")
    return found


def head_estimates(means: HeadMeans, level: float, seed: int) -> dict[str, Shaped[np.ndarray, " pair"]]:
    """The columns of a summary of heads: mean, low, high, n, n_groups and n_undefined.

    The interval's ends are percentiles over resampled groups; NaN for fewer than two groups.
    """
    found = means.mean(draws(len(means.groups), N_DRAWS, np.random.default_rng(seed)))
    groups = (means.counts > 0).sum(axis=0)
    enough = groups > 1
    ends = np.full((2, len(means.heads)), np.nan)
    if enough.any():
        ends[:, enough] = np.nanquantile(found[:, enough], [(1 - level) / 2, (1 + level) / 2], axis=0)
    return {
        "mean": means.mean()[0],
        "low": ends[0],
        "high": ends[1],
        "n": means.counts.sum(axis=0).astype(int),
        "n_groups": groups,
        "n_undefined": means.undefined,
    }


@dataclass(frozen=True, repr=False)
class HeadGrid(GridResult):
    """The result of a grid over a `HeadRanking`: one frame of all cells, and each cell's own result."""

    @cached_property
    def results(self) -> tuple[HeadResult, ...]:
        """The result of each cell in which a sample could be measured."""
        return tuple(
            HeadResult(
                cell.study, (cell,), cell.folder.path, " · ".join(cell.labels[axis] for axis in self.varied)
            )
            for cell in self.cells
            if cell.measured
        )

    @cached_property
    def scores(self) -> pd.DataFrame:
        """One row per (axes…, sample, group, layer, head, metric): its value, NaN where undefined."""
        return below(found.scores for found in self.results)

    def summary(self, level: float = 0.95) -> pd.DataFrame:
        """`HeadResult.summary` of each cell: mean, interval and gain of each (axes…, layer, head, metric)."""
        return below(found.summary(level) for found in self.results)

    def table(self, k: int = 20) -> str:
        """The best k heads of each cell as text."""
        return "\n\n".join(found.table(k) for found in self.results)

    def tables(self) -> dict[str, pd.DataFrame]:
        """The table that `export` writes: "heads", those of each cell from best to worst."""
        return {"heads": below(found.ranked for found in self.results)}

    def figures(self, k: int = 20) -> dict[str, go.Figure]:
        """The figures of `HeadResult.figures`: the first cell against the others."""
        first, *others = self.results
        return first.figures(k, against=others)

    def report(self, path: str | os.PathLike[str] | None = None, *, k: int = 20) -> Path:
        """Write one page of all cells and return its path: heat maps, and how well each agrees with the first.

        Args:
            path: Where to write it; `report.html` in the grid's folder when left out.
            k: The number of top heads.

        Raises:
            StudyError: The cells differ in metric, or in their models' number of heads.
        """
        first, *others = self.results
        return first.report(self.folder / "report.html" if path is None else path, k=k, against=others)
