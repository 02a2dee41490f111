"""What a head ranking found: scores per head, their means in order, figures and a report."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from io import StringIO
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float, Int
from rich.console import Console
from rich.table import Table
from rich.text import Text

from interp.errors import StudyError
from interp.metrics import METRICS
from interp.run import FAILURES, RunFolder
from interp.stats import population_note
from interp.study.dataframes import below, records, where
from interp.study.result import GridResult

if TYPE_CHECKING:
    import plotly.graph_objects as go

    from interp.study.head_ranking.head_set import Pairs
    from interp.study.head_ranking.study import HeadRanking

__all__ = ["HeadGrid", "HeadMeans", "HeadResult", "draws", "goodness", "head_order"]


@dataclass(frozen=True, eq=False)
class HeadMeans:
    """Sums and counts of the defined scores of each group and head.

    Attributes:
        heads: (layer, head) pairs in that order.
        groups: The groups' names, sorted, so that the order of samples does not matter.
        sums: Of the defined scores.
        counts: How many are defined.
        undefined: How many are not, per head.
    """

    heads: tuple[tuple[int, int], ...]
    groups: tuple[str, ...]
    sums: Float[np.ndarray, "group pair"]
    counts: Float[np.ndarray, "group pair"]
    undefined: Int[np.ndarray, " pair"]

    @classmethod
    def of(cls, scores: pd.DataFrame) -> HeadMeans:
        """From a frame with the columns group, layer, head, value."""
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
        """Each head's mean, groups counting as often as `weights` say; NaN where nothing is defined.

        Without weights every group counts once, and there is one draw; heads with equal scores then have equal
        means to the last bit, which a product of matrices does not promise.
        """
        if weights is None:
            sums, counts = (part.sum(axis=0, keepdims=True) for part in (self.sums, self.counts))
        else:
            sums, counts = weights @ self.sums, weights @ self.counts
        return np.divide(sums, counts, out=np.full(sums.shape, np.nan), where=counts > 0)

    def only(self, kept: Bool[np.ndarray, " pair"]) -> HeadMeans:
        """The same with some of the heads."""
        heads = tuple(head for head, keep in zip(self.heads, kept, strict=True) if keep)
        return HeadMeans(heads, self.groups, self.sums[:, kept], self.counts[:, kept], self.undefined[kept])


def draws(n_groups: int, n: int, rng: np.random.Generator) -> Float[np.ndarray, "draw group"]:
    """How often each group is drawn when as many groups as there are are drawn with replacement, n times."""
    return rng.multinomial(n_groups, np.full(n_groups, 1 / n_groups), size=n).astype(np.float64)


def goodness(means: Float[np.ndarray, "*lead pair"], metric: str) -> Float[np.ndarray, "*lead pair"]:
    """Larger is better whatever the metric's direction; heads without a mean are at −∞."""
    signed = means if METRICS[metric].better == "higher" else -means
    return np.where(np.isnan(means), -np.inf, signed)


def head_order(means: Float[np.ndarray, " pair"], metric: str) -> Int[np.ndarray, " pair"]:
    """Places of the heads from best to worst; ties keep their order, heads without a mean come last."""
    return np.argsort(-goodness(means, metric), kind="stable")


N_DRAWS = 2000
WIDTH = 110
EVEN_FRIENDLY = ("kl", "kl_gain")


@dataclass(frozen=True)
class HeadResult:
    """The result of a `HeadRanking`.

    Attributes:
        study: The study that was run.
        folder: Its run.
        name: What tells it from the others it is shown with; its data's name when left out.

    Raises:
        StudyError: Not one sample could be measured.
    """

    study: HeadRanking
    folder: RunFolder
    name: str = field(default="", compare=False)

    def __post_init__(self) -> None:
        if self.folder.has_table("samples") and len(self.samples) == 0:
            first = self.folder.read_table(FAILURES).to_pylist()[0]
            raise StudyError(
                f"expected at least one of the {len(self.study.data)} samples of {self.study.label} to be "
                f"measured, but all failed. The first, {first['sample']}: {first['error']}: {first['reason']}"
            )

    @cached_property
    def samples(self) -> pd.DataFrame:
        """One row per measured sample: its group, how many tokens its boxes cover, an even map's score (`even`)."""
        return self.folder.read_table("samples").to_pandas()

    @cached_property
    def scores(self) -> pd.DataFrame:
        """One row per (sample, group, layer, head, metric): its value, NaN where undefined."""
        stored = self.folder.read_table("scores").to_pandas()
        frame = stored.merge(self.samples[["index", "sample", "group"]], on="index")
        frame["metric"] = self.study.metric
        return frame.reindex(columns=["sample", "group", "layer", "head", "metric", "value"])

    @cached_property
    def failures(self) -> pd.DataFrame:
        """One row per thing that could not be measured, with the reason; empty when all went well."""
        return self.folder.read_table(FAILURES).to_pandas()

    @property
    def cost(self) -> dict[str, float]:
        """Seconds, bytes and forward passes over all sessions."""
        return self.folder.read_json("cost.json", {}).get("total", {})

    @cached_property
    def groups(self) -> frozenset[str]:
        """The names of all groups measured."""
        return frozenset(self.samples.group)

    @cached_property
    def means(self) -> HeadMeans:
        """Sums and counts per group and head."""
        return HeadMeans.of(self.scores)

    def summary(self, level: float = 0.95) -> pd.DataFrame:
        """Mean and bootstrap interval over groups of each (layer, head, metric).

        Columns `mean`, `low`, `high`, `n`, `n_groups`, `n_undefined`, `note`, a sentence where there are too
        few groups to speak of a population, and `gain`: how much better the mean is than an even map's on the
        same samples, positive = better whatever the metric's direction. All heads share their resamplings.
        """
        if not 0 < level < 1:
            raise StudyError(f"level is between 0 and 1, such as 0.95; got {level}.")
        means = self.means
        groups = (means.counts > 0).sum(axis=0)
        low, high = _interval(means, level, self.study.seed)
        frame = {
            "layer": [layer for layer, _ in means.heads],
            "head": [head for _, head in means.heads],
            "metric": self.study.metric,
            "mean": means.mean()[0],
            "low": low,
            "high": high,
            "n": means.counts.sum(axis=0).astype(int),
            "n_groups": groups,
            "n_undefined": means.undefined,
            "gain": self._gains,
            "note": [population_note(int(n)) for n in groups],
        }
        return pd.DataFrame(frame)

    @cached_property
    def _gains(self) -> Float[np.ndarray, " pair"]:
        scores = self.scores.merge(self.samples[["sample", "even"]], on="sample")
        sign = 1 if METRICS[self.study.metric].better == "higher" else -1
        return HeadMeans.of(scores.assign(value=sign * (scores.value - scores.even))).mean()[0]

    @property
    def even(self) -> float:
        """What a map that is the same everywhere scores on these samples, on average."""
        return float(self.samples.even.mean())

    def best(self, k: int) -> pd.DataFrame:
        """The first k rows of `ranked`, or all that have a mean."""
        return where(self.ranked, self.ranked["rank"] > 0).head(k)

    def n_beating_even(self, k: int) -> int:
        """How many of the best k heads have a better mean than an even map."""
        return sum(row["gain"] > 0 for row in records(self.best(k)))

    def verdict(self, k: int = 20) -> str:
        """How many of the best k heads, and of all, beat an even map, in a sentence.

        KL punishes a map that leaves any part of a box dark, so heads that look everywhere can rank first.
        """
        ranked = self.n_heads - self.n_unranked
        n_best, n_all = self.n_beating_even(k), self.n_beating_even(ranked)
        said = (
            f"An even map scores {self.even:.3f}: {n_best} of the top {min(k, ranked)} heads and {n_all} of "
            f"all {ranked} are better."
        )
        if self.study.metric in EVEN_FRIENDLY and n_best <= min(k, ranked) / 2:
            said += (
                " This metric favours maps that are even over maps that are sharp: rank by ar or auroc too."
            )
        return said

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

    @property
    def n_heads(self) -> int:
        """The number of heads measured, those without a mean included."""
        return len(self.means.heads)

    @property
    def n_unranked(self) -> int:
        """The number of heads without one defined score."""
        return int(np.count_nonzero(self.ranked["rank"] == 0))

    def top(self, k: int) -> Pairs:
        """The k best heads of these samples, (layer, head), best first: of test samples a description only.

        Raises:
            StudyError: Fewer than k heads have a mean, or k is below 1.
        """
        ranked = self.n_heads - self.n_unranked
        if not 1 <= k <= ranked:
            unranked = f" ({self.n_unranked} more have no defined score)" if self.n_unranked else ""
            raise StudyError(
                f"{self.study.label} has {ranked} ranked heads{unranked}; got k={k}. Ask for fewer."
            )
        return tuple((int(row["layer"]), int(row["head"])) for row in records(self.best(k)))

    def table(self, k: int = 20) -> str:
        """Text: one line per head, the best k first, mean [low, high], and what could not be ranked."""
        metric = METRICS[self.study.metric]
        title = f"{self.study.label}: heads by {metric.label} ({metric.better} is better)"
        table = Table(title=Text(title), title_justify="left")
        for name in ("rank", "layer", "head", "mean", "95 %", "gain", "samples", "groups"):
            table.add_column(name, justify="right")
        for row in records(self.best(k)):
            few = "too few groups" if row["note"] else f"[{row['low']:.3f}, {row['high']:.3f}]"
            numbers = (f"{row['mean']:.3f}", few, f"{row['gain']:+.3f}", row["n"], row["n_groups"])
            table.add_row(*map(str, (row["rank"], row["layer"], row["head"], *numbers)))
        console = Console(file=StringIO(), width=WIDTH)
        console.print(table)
        text = console.file.getvalue().rstrip()  # pyright: ignore[reportAttributeAccessIssue]
        return "\n".join([text, self.verdict(k), *([self._unranked_line()] if self.n_unranked else [])])

    def _unranked_line(self) -> str:
        return f"{self.n_unranked} of {self.n_heads} heads have no defined score and are not ranked."

    def figures(
        self, k: int = 20, *, against: HeadResult | Sequence[HeadResult] = ()
    ) -> dict[str, go.Figure]:
        """Plotly figures: "heads", a heat map layers × heads per result with the top k marked.

        With `against`, other results of as many heads: all on one colour scale, and "ranks", each head's rank
        here against its rank there.
        """
        from interp.study.head_ranking.page import figures

        return figures(self, k, against=_several(against))

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
            k: How many heads are the top.
            against: Other results whose rankings are compared with this one.
        """
        from interp.study.head_ranking.page import write_page

        target = self.folder.path / "report.html" if path is None else Path(path)
        return write_page(self, target, k=k, against=_several(against))


def _several(against: HeadResult | Sequence[HeadResult]) -> tuple[HeadResult, ...]:
    return (against,) if isinstance(against, HeadResult) else tuple(against)


def _interval(
    means: HeadMeans, level: float, seed: int
) -> tuple[Float[np.ndarray, " pair"], Float[np.ndarray, " pair"]]:
    """Percentiles of the mean over resampled groups; NaN for heads defined in fewer than two groups."""
    found = means.mean(draws(len(means.groups), N_DRAWS, np.random.default_rng(seed)))
    enough = (means.counts > 0).sum(axis=0) > 1
    ends = np.full((2, len(means.heads)), np.nan)
    if enough.any():
        ends[:, enough] = np.nanquantile(found[:, enough], [(1 - level) / 2, (1 + level) / 2], axis=0)
    return ends[0], ends[1]


@dataclass(frozen=True)
class HeadGrid(GridResult):
    """The result of a grid over a `HeadRanking`: one frame of all its cells, and each cell's own result."""

    @cached_property
    def results(self) -> tuple[HeadResult, ...]:
        """The result of each cell in which something could be measured."""
        varied = [axis for axis in self.axes if len({cell.labels[axis] for cell in self.cells}) > 1]
        return tuple(
            HeadResult(cell.study, cell.folder, " · ".join(cell.labels[axis] for axis in varied))
            for cell in self.cells
            if cell.measured
        )

    @cached_property
    def scores(self) -> pd.DataFrame:
        """One row per (axes…, sample, group, layer, head, metric): its value, NaN where undefined."""
        return self._of_cells([found.scores for found in self.results])

    def summary(self, level: float = 0.95) -> pd.DataFrame:
        """`HeadResult.summary` of each cell: mean, interval and gain of each (axes…, layer, head, metric)."""
        return self._of_cells([found.summary(level) for found in self.results])

    def report(self, path: str | os.PathLike[str] | None = None, *, k: int = 20) -> Path:
        """Write one page of all cells, and return its path: heat maps, and how far each agrees with the first.

        Args:
            path: Where to write it; `report.html` in the grid's folder when left out.
            k: How many heads are the top.

        Raises:
            StudyError: Cells of different metrics, or of models with different numbers of heads.
        """
        first, *others = self.results
        return first.report(self.folder / "report.html" if path is None else path, k=k, against=others)

    def _of_cells(self, frames: list[pd.DataFrame]) -> pd.DataFrame:
        """The frames below one another; an axis that is a column of theirs already, as "metric", leads it."""
        labels = [cell.labels for cell in self.cells if cell.measured]
        parts = []
        for frame, own in zip(frames, labels, strict=True):
            rest = frame.drop(columns=[axis for axis in own if axis in frame.columns])
            for place, (axis, label) in enumerate(own.items()):
                rest.insert(place, axis, label)
            parts.append(rest)
        return below(parts)
