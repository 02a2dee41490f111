"""Head rankings side by side: over data sets, models, prompts, metrics."""

from __future__ import annotations

import os
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import pandas as pd

from interp.study.frames import below
from interp.study.grid_result import GridResult
from interp.study.head_result import HeadResult

__all__ = ["HeadGrid"]


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
