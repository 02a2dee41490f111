"""What the cells of a study found, in one tidy frame with a column per axis."""

from __future__ import annotations

import os
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import pandas as pd

from interp.errors import StudyError
from interp.run import FAILURES
from interp.study.cells import GridCell
from interp.study.frames import below
from interp.study.summary import summarise

__all__ = ["GridResult"]

BULKY = ("footprints", "image_index")
"""Columns of a samples table that only figures need."""


@dataclass(frozen=True)
class GridResult:
    """The result of a study, or of a grid over it.

    Attributes:
        study: The study that was run.
        cells: Its runs.
        folder: Where its own files lie.
    """

    study: Any
    cells: tuple[GridCell, ...]
    folder: Path

    @property
    def axes(self) -> tuple[str, ...]:
        """The names of the axes: "model", "data" and whatever else a grid varied."""
        return tuple(self.cells[0].labels)

    @cached_property
    def samples(self) -> pd.DataFrame:
        """One row per measured sample of each cell."""
        return self._frames("samples").drop(columns=list(BULKY), errors="ignore")

    @cached_property
    def scores(self) -> pd.DataFrame:
        """One row per (axes…, sample, group, what the study measures by): its value, NaN where undefined."""
        keys = [*self.axes, "index"]
        found = self._frames("scores").merge(self.samples[[*keys, "sample", "group"]], on=keys)
        rest = [name for name in found.columns if name not in (*keys, "sample", "group", "value")]
        return found.reindex(columns=[*self.axes, "sample", "group", *rest, "value"])

    @cached_property
    def failures(self) -> pd.DataFrame:
        """One row per thing that could not be measured, with the reason; empty when all went well."""
        return self._frames(FAILURES)

    @property
    def cost(self) -> pd.DataFrame:
        """Seconds, bytes and forward passes of each cell, over all sessions.

        A cell counts what it ran itself, so what it took over from another cell is counted there.
        """
        rows = [
            {**cell.labels, **cell.folder.read_json("cost.json", {}).get("total", {})} for cell in self.cells
        ]
        return pd.DataFrame(rows)

    def summary(self, level: float = 0.95) -> pd.DataFrame:
        """Mean and bootstrap interval over groups of each (axes…, what the study measures by).

        Columns `mean`, `low`, `high`, `n`, `n_groups`, `n_undefined` and `note`, a sentence where there are
        too few groups to speak of a population.
        """
        if level not in self._summaries:
            self._summaries[level] = summarise(self.scores, level=level, seed=self.seed)
        return self._summaries[level].copy()

    @cached_property
    def _summaries(self) -> dict[float, pd.DataFrame]:
        return {}

    @property
    def seed(self) -> int:
        """The seed of the study, used for the bootstrap too."""
        return int(getattr(self.cells[0].study, "seed", 0))

    @cached_property
    def groups(self) -> frozenset[str]:
        """The names of all groups measured."""
        return frozenset(self.samples.group)

    def report(self, path: str | os.PathLike[str] | None = None) -> Path:
        """Write the study's report, where it has one.

        Raises:
            StudyError: This kind of study has no page.
        """
        raise StudyError(
            f"expected a study with a page of its own, got {self.study.title!r}: there is nothing to write to "
            f"{path or self.folder}. Read result.scores, result.summary() and result.failures instead."
        )

    def _frames(self, table: str) -> pd.DataFrame:
        return below(cell.frame(table) for cell in self.cells)
