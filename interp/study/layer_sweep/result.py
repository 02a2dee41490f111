"""What a layer sweep found: tidy frames, a summary with intervals, lesion hits, figures and a report."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import pandas as pd
from jaxtyping import Float
from rich.table import Table
from rich.text import Text

from interp.errors import StudyError
from interp.inputs.files import write_atomically
from interp.metrics import METRICS
from interp.report.figures import series_colours
from interp.report.html import page_path
from interp.report.tables import cell_names, count, write_csv
from interp.stats import bootstrap, population_note
from interp.study.compare import compare, compare_groups
from interp.study.dataframes import records, where
from interp.study.layer_choice import (
    LayerChoice,
    check_metric,
    choose_layer,
    is_choice,
    layers_of,
    metrics_of,
)
from interp.study.result import GridResult, counted, differences, is_result, printed, stored_tokens, summarise
from interp.study.runs import GridCell
from interp.study.study import is_level
from interp.study.truth import MASKS

if TYPE_CHECKING:
    import plotly.graph_objects as go

    from interp.inputs.tokens import TokenMap

__all__ = ["Cell", "Result", "has_lesions", "layer_table", "lesion_hits"]


WIDTH = 110
BASELINES = {"shuffled_boxes": "shuffled", "centre_prior": "centre"}


def layer_table(result: GridResult, metric: str, choice: LayerChoice | None = None) -> str:
    """One line per layer: mean [low, high] of each cell, and its baselines; a star at the chosen layer.

    Raises:
        StudyError: The metric was not measured.
    """
    check_metric(result, metric)
    is_choice(choice)
    summary = result.summary()
    summary = summary[summary.metric == metric].set_index([*result.axes, "layer", "control"])
    table = Table(
        title=Text(f"{METRICS[metric].label} ({METRICS[metric].better} is better)"), title_justify="left"
    )
    table.add_column("layer", justify="right")
    shown = result.varied or ("data",)
    for cell in result.cells:
        table.add_column(Text(" · ".join(cell.labels[axis] for axis in shown) + " [95 %]"), justify="right")
        for baseline in BASELINES.values():
            table.add_column(Text(baseline), justify="right", style="dim")
    for layer in sorted(summary.index.unique("layer")):
        row = [f"{layer}{_star(layer, choice)}"]
        for cell in result.cells:
            row += _columns(summary, (*cell.key, layer))
        table.add_row(*map(Text, row))
    shown_table = printed(table, WIDTH + 30 * max(len(result.cells) - 2, 0))
    return "\n".join([shown_table, *counted(result)])


def _star(layer: int, choice: LayerChoice | None) -> str:
    return " *" if choice is not None and layer in choice.layers.values() else ""


def _number(value: float) -> str:
    return f"{round(value, 2) + 0.0:.2f}"  # no negative zero


def _interval(row: Mapping[Any, Any]) -> str:
    """The interval, or why there is none."""
    return (
        f"({count(row['n_groups'], 'group')})"
        if row["note"]
        else f"[{_number(row['low'])}, {_number(row['high'])}]"
    )


def _columns(summary: pd.DataFrame, key: tuple[str | int, ...]) -> list[str]:
    if (*key, "boxes") not in summary.index:
        return ["–"] * (1 + len(BASELINES))
    own = summary.loc[(*key, "boxes")].to_dict()
    keys = ((*key, baseline) for baseline in BASELINES)
    means = [_number(summary.loc[one, "mean"]) if one in summary.index else "–" for one in keys]
    return [f"{_number(own['mean'])} {_interval(own)}", *means]


@dataclass(frozen=True)
class Cell(GridCell):
    """One finished layer sweep inside a result, with its labels along the axes."""

    @property
    def sweep(self) -> Any:
        """Its `LayerSweep`."""
        return self.study

    def maps(self, indices: Sequence[int], layer: int) -> dict[int, Float[np.ndarray, " token"]]:
        """The maps of some samples at one layer, as they were stored (float32).

        Raises:
            StudyError: One of the samples failed, or the layer was not measured.
        """
        rows = self.folder.find("maps", index=indices, layer=[layer]).to_pylist()
        found = {row["index"]: np.array(row["map"], dtype=np.float32) for row in rows}
        absent = [index for index in indices if index not in found]
        if absent:
            raise StudyError(
                f"samples {absent} of {' · '.join(self.key)} have no map at layer {layer}; see "
                "result.failures."
            )
        return found

    def tokens(self, index: int) -> TokenMap:
        """Where the image tokens of one sample lie (its text positions are not stored)."""
        return stored_tokens(self, index)


@dataclass(frozen=True, repr=False)
class Result(GridResult):
    """The result of a layer sweep, or of a grid over one.

    `scores` has one row per (axes…, sample, group, layer, metric, control): its value, NaN where undefined;
    `samples` the questions, answers, tokens and the lender of each sample's shuffled boxes.
    """

    cells: tuple[Cell, ...]
    cell_type = Cell

    @cached_property
    def metrics(self) -> tuple[str, ...]:
        """Short names of the metrics, of all cells together."""
        return metrics_of(self)

    @cached_property
    def series(self) -> tuple[tuple[str, str], ...]:
        """The name of each cell in figures, without its model, and its colour: equal names have one colour."""
        names = cell_names(self.cells, without=("model",))
        colours = series_colours(dict.fromkeys(names))
        return tuple((name, colours[name]) for name in names)

    def best_layer(self, metric: str = "ar", *, descriptive: bool = False) -> LayerChoice:
        """The layer of the best mean on these very samples, per model.

        A maximum over layers flatters. To report a layer, choose it with `choose_layer` on validation samples
        and show it on test samples.

        Args:
            metric: The metric to choose by.
            descriptive: Whether samples of a test split are allowed; the layer then describes them and is no estimate.

        Raises:
            StudyError: Samples of the test split without `descriptive`, or a metric that was not measured or
                is undefined everywhere.
        """
        return choose_layer(self, metric, descriptive=descriptive)

    def at_layer(self, layer: int | LayerChoice, level: float = 0.95) -> pd.DataFrame:
        """Every metric at one layer, and its paired difference from each baseline.

        Args:
            layer: A layer, or a choice made on other samples (one layer per model).
            level: Coverage of the intervals.

        Returns:
            Columns of `summary`, with `control` "boxes", "shuffled_boxes", "centre_prior",
            "boxes − shuffled_boxes" or "boxes − centre_prior".
        """
        chosen = self.values.model.map(self.layers(layer))
        here = where(self.values, self.values.layer == chosen)
        means = summarise(here, level=level, seed=self.seed)
        return pd.concat(
            [means, differences(here, self.axes, level=level, seed=self.seed)], ignore_index=True
        )

    def layers(self, layer: int | LayerChoice) -> dict[str, int]:
        """The layer per model label; models of which nothing could be measured are left out.

        Raises:
            StudyError: A layer that was not measured, or a choice that lacks a model of this result.
        """
        return layers_of(self, layer)

    def compare(
        self, metric: str, *, layer: int | LayerChoice, over: str | None = None, level: float = 0.95
    ) -> pd.DataFrame:
        """Every pair of cells in one table: difference, interval, permutation test by group, Holm's p.

        Cells that share samples are compared sample by sample; others as sets of groups, and then also on
        pairs of like box size. See `interp.study.compare.compare` for the columns.

        Args:
            metric: The metric.
            layer: A layer, or a choice made on other samples.
            over: The axis along which to compare, all else equal ("model", "data", …); None for all pairs.
            level: Coverage of the intervals.

        Raises:
            StudyError: A metric or layer that was not measured, an unknown axis, or nothing to compare.
        """
        return compare(self, metric, layer=layer, over=over, level=level)

    def compare_groups(
        self, metric: str, *, layer: int | LayerChoice, over: str | None = None
    ) -> pd.DataFrame:
        """The differences of `compare` group by group, to be read where `compare` notes that groups are few.

        Raises:
            StudyError: As `compare`.
        """
        return compare_groups(self, metric, layer=layer, over=over)

    def table(self, metric: str = "ar", *, choice: LayerChoice | None = None) -> str:
        """Text: one line per layer, one column per cell, mean [low, high] and the two baselines."""
        return layer_table(self, metric, choice)

    def figures(self, choice: LayerChoice | None = None) -> dict[str, go.Figure]:
        """One Plotly figure per metric: its mean per layer with the interval, and both baselines.

        Args:
            choice: The layer to mark.
        """
        is_choice(choice)
        return self._page.figures(self, choice=choice)

    def report(
        self, path: str | os.PathLike[str] | None = None, *, choice: LayerChoice | None = None
    ) -> Path:
        """Write the report, one HTML file that loads nothing from elsewhere, and return its path.

        `summary.csv` and a copy of the report stay in the study's folder.

        Args:
            path: Where to write it; `report.html` in the study's folder when left out.
            choice: The layer to feature; without one, the best on these samples, labelled as descriptive.
        """
        is_choice(choice)
        target = None if path is None else page_path(path)
        write_csv(self.summary(), self.folder / "summary.csv")
        own = self._write(None, choice=choice)
        if target is None or target.resolve() == own.resolve():
            return own
        write_atomically(target, own.read_bytes())
        return target


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
