"""What a comparison of indicators found: scores, curves, agreement, sanity checks and costs, with intervals."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from jaxtyping import Float
from rich.table import Table
from rich.text import Text

from interp.errors import StudyError
from interp.inputs.text import count
from interp.metrics import METRICS, normalised
from interp.run import manifest_of
from interp.stats import MIN_GROUPS
from interp.study.dataframes import records, rows_of, where
from interp.study.indicator_comparison.indicator_maps import costs
from interp.study.indicator_comparison.paired_tests import compare_indicators, found, no_baseline
from interp.study.indicator_comparison.removal_curves import scaled
from interp.study.indicator_comparison.task import AGREEMENT
from interp.study.result import GridResult, counted, printed, stored_tokens
from interp.study.runs import GridCell

if TYPE_CHECKING:
    from interp.inputs.tokens import TokenMap

__all__ = ["IndicatorCell", "IndicatorResult", "calibration_table", "mark"]

WIDTH = 190


def calibration_table(result: GridResult, found: pd.DataFrame, measure: str) -> str:
    """One line per indicator, one column per cell and truth: the metric's mean, and ✓ where it finds the truth.

    Args:
        result: The result of an `IndicatorComparison`.
        found: The verdicts by that metric, from `IndicatorResult.found`.
        measure: The metric.
    """
    cells = [cell for cell in result.cells if cell.measured]
    verdicts = {
        (tuple(row[axis] for axis in result.axes), row["indicator"]): row["finds"] for row in records(found)
    }
    summary = result.summary()
    table = Table(title=Text(f"{METRICS[measure].label}, mean [95 %]"), title_justify="left")
    table.add_column("indicator", no_wrap=True)
    for cell in cells:
        for truth in cell.study.truth:
            table.add_column(Text(f"{' · '.join(cell.key)}\n{truth}"), justify="right")
    labels = dict.fromkeys(label for cell in result.cells for label in cell.study.indicators)
    for label in labels:
        entries = []
        for cell in cells:
            own = rows_of(summary, cell.labels)
            own = where(own, (own.indicator == label) & (own.measure == measure))
            rows = {row["against"]: row for row in records(own)}
            for place, truth in enumerate(cell.study.truth):
                sign = mark(verdicts.get((cell.key, label))) if place == 0 else ""
                entries.append(_entry(rows.get(truth), sign))
        table.add_row(Text(label), *map(Text, entries))
    notes = [
        no_baseline(result)
        or "✓: better than every baseline on the same samples (paired, by group, Holm p ≤ 0.05)."
    ]
    for cell in cells:
        if (n := rows_of(result.samples, cell.labels).group.nunique()) < MIN_GROUPS:
            few = f"{count(n, 'group')} {'is' if n == 1 else 'are'} too few"
            claim = "for intervals and verdicts; no claim about a population."
            notes.append(f"{' · '.join(cell.key)}: {few} {claim}")
    return "\n".join([printed(table, WIDTH), *counted(result), *notes])


def mark(finds: Any) -> str:
    """✓, ✗, or nothing where there is no verdict."""
    return "" if finds is None or finds != finds else " ✓" if finds else " ✗"


def _entry(row: dict[str, Any] | None, sign: str) -> str:
    if row is None:
        return "–"
    ends = "" if row["n_groups"] < MIN_GROUPS else f" [{row['low']:.2f}, {row['high']:.2f}]"
    return f"{row['mean']:.2f}{ends}{sign}"


@dataclass(frozen=True)
class IndicatorCell(GridCell):
    """One finished comparison, on one model and one set of data."""

    @property
    def layers(self) -> dict[str, int | str]:
        """The layer, or "sum", of each indicator that gives several, as it ran."""
        return self.folder.study().get("layers", {})

    def maps(self, indices: Sequence[int]) -> dict[int, dict[str, Float[np.ndarray, " token"]]]:
        """Each sample's maps over its image tokens, by indicator."""
        found: dict[int, dict[str, np.ndarray]] = {index: {} for index in indices}
        for row in self.folder.find("maps", index=indices).to_pylist():
            found[row["index"]][row["indicator"]] = np.array(row["values"], np.float32)
        return found

    def tokens(self, index: int) -> TokenMap:
        """Where the image tokens of one sample lie."""
        return stored_tokens(self, index)


@dataclass(frozen=True, repr=False)
class IndicatorResult(GridResult):
    """The result of an `IndicatorComparison`, or of a grid over one.

    `scores` has one row per (axes…, sample, group, indicator, measure, against): its value, NaN where undefined.
    Measures are: the metrics, against a truth; "spearman" and "kendall", against another indicator; "deletion",
    "insertion", "comprehensiveness" and "sufficiency", under a removal; "weights", the rank correlation with the map of
    a model with shuffled weights, by stage; and "question", for another question, where `against` is "spearman" (the
    rank correlation with that map) or the first metric (the score of that map).
    """

    cells: tuple[IndicatorCell, ...]
    cell_type = IndicatorCell

    @property
    def metrics(self) -> tuple[str, ...]:
        """Short names of the metrics of all cells."""
        return tuple(dict.fromkeys(name for cell in self.cells for name in cell.study.metrics))

    @property
    def indicators(self) -> tuple[str, ...]:
        """Labels of the indicators of all cells."""
        return tuple(dict.fromkeys(label for cell in self.cells for label in cell.study.indicators))

    @cached_property
    def curves(self) -> pd.DataFrame:
        """One row per (axes…, sample, group, indicator, removal, curve, fraction).

        `curve` is "deletion" (`fraction` of the tokens removed, the most important first) or "insertion" (`fraction` of
        the tokens kept, the most important first). `value` is the target in nats. `height` is the target's probability
        (or nats of a difference of answers) scaled so that 0 is everything removed and 1 nothing removed; NaN where
        removing everything does not lower the target.
        """
        keys = [*self.axes, "index"]
        frame = self._frames("curves").merge(self.samples[[*keys, "sample", "group"]], on=keys)
        parts = [self._heights(cell, frame) for cell in self.cells]
        return pd.concat(parts, ignore_index=True)

    def _heights(self, cell: GridCell, frame: pd.DataFrame) -> pd.DataFrame:
        own = where(frame, (frame[list(self.axes)] == pd.Series(cell.labels)).all(axis=1))
        n = len(cell.study.steps) + 2
        values = scaled(own.value.to_numpy(float).reshape(-1, n), cell.study.target)
        deletion = (
            (own.curve.to_numpy().reshape(-1, n)[:, 0] == "deletion") if len(own) else np.zeros(0, bool)
        )
        untouched = np.where(deletion, values[:, 0], values[:, -1])
        removed = np.where(deletion, values[:, -1], values[:, 0])
        heights = normalised(values, untouched, removed, least=cell.study.least) if len(own) else values
        return own.assign(height=heights.reshape(-1))

    def agreement(self, measure: str = "spearman", level: float = 0.95) -> pd.DataFrame:
        """Rows of `summary`: the mean rank correlation of every pair of indicators, `indicator` with `against`."""
        if not isinstance(measure, str) or measure not in AGREEMENT:
            raise StudyError(f"measure is {' or '.join(map(repr, AGREEMENT))}; got {measure!r}.")
        summary = self.summary(level)
        return where(summary, summary.measure == measure)

    def faithfulness(self, level: float = 0.95) -> pd.DataFrame:
        """Rows of `summary` of deletion, insertion, comprehensiveness and sufficiency, with `own`.

        `own` says whether the indicator is built on that kind of removal, which favours it.
        """
        summary = self.summary(level)
        measures = ("deletion", "insertion", "comprehensiveness", "sufficiency")
        rows = where(summary, summary.measure.isin(measures))
        kinds = {(cell.key, *pair) for cell in self.cells for pair in own_removals(cell.study)}
        keys = zip(*(rows[axis] for axis in self.axes), strict=True)
        pairs = zip(keys, rows.indicator, rows.against, strict=True)
        return rows.assign(own=[tuple(pair) in kinds for pair in pairs])

    def costs(self) -> pd.DataFrame:
        """One row per (axes…, indicator), the plain forward first: the cost of a map of one sample, run alone.

        See `interp.study.indicator_comparison.indicator_maps.costs` for the columns.
        """
        return costs(self.cells)

    def compare(
        self, measure: str = "auroc", against: str | None = None, level: float = 0.95
    ) -> pd.DataFrame:
        """Every pair of indicators on the same samples, tested by group, with Holm's p over the pairs of a cell.

        See `interp.study.indicator_comparison.paired_tests.compare_indicators` for the columns.

        Raises:
            StudyError: The measure was not measured.
        """
        return compare_indicators(self, measure, against, level=level)

    def found(self, measure: str | None = None, level: float = 0.95) -> pd.DataFrame:
        """Which indicators find the truth, by beating every baseline.

        See `interp.study.indicator_comparison.paired_tests.found` for the rule and the columns.
        """
        return found(self, measure, level)

    def tables(self) -> dict[str, pd.DataFrame]:
        """The tables that `export` writes: "summary", "found", "faithfulness" and "costs"."""
        named = {"found": self.found(), "faithfulness": self.faithfulness(), "costs": self.costs()}
        return super().tables() | {name: frame for name, frame in named.items() if len(frame)}

    def sentences(self) -> list[str]:
        """The layer of each indicator that gives several, and how it was chosen; one line per cell."""
        lines = []
        for cell in (one for one in self.cells if one.layers):
            said = manifest_of(cell.folder).get("layers", {})
            groups: dict[str, list[str]] = {}
            for label, layer in cell.layers.items():
                groups.setdefault(said.get(label, "as given"), []).append(
                    label if layer == "sum" else f"{label} {layer}"
                )
            parts = [f"{', '.join(named)} ({how})" for how, named in groups.items()]
            lines.append(f"{' · '.join(cell.key)}: layer of {'; '.join(parts)}.")
        return lines

    def table(self, measure: str | None = None) -> str:
        """The result as text: one line per indicator, one column per cell and truth: mean [low, high], verdict."""
        chosen = self.metrics[0] if measure is None else measure
        return calibration_table(self, self.found(chosen), chosen)


def own_removals(study: Any) -> list[tuple[str, str]]:
    """The (indicator, removal) labels in which the indicator's own `removal` is of the same kind."""
    return [
        (label, removal.name)
        for label, indicator in study.indicators.items()
        for removal in study.removals
        if type(getattr(indicator, "removal", None)) is type(removal)
    ]
