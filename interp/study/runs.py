"""The runs behind a result: one per study, or one per cell of a grid."""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import pandas as pd

from interp.errors import StudyError
from interp.inputs.argument_checks import check_bool
from interp.run import FAILURES, RunFolder, Task, Workers, check_options, run_tasks
from interp.study.model_spec import open_model
from interp.study.stored_study import store_study

__all__ = ["Cells", "GridCell", "by_model", "run_cells"]

Cells = tuple[tuple[dict[str, str], Any], ...]
"""Labels along the axes, and a study each."""


@dataclass(frozen=True)
class GridCell:
    """One finished run inside a result, with its labels along the axes."""

    labels: Mapping[str, str]
    study: Any
    folder: RunFolder

    @property
    def key(self) -> tuple[str, ...]:
        """The labels alone, in the order of the axes."""
        return tuple(self.labels.values())

    @property
    def measured(self) -> bool:
        """Whether at least one sample could be measured."""
        return len(self._samples) > 0

    def check(self) -> None:
        """Raise `StudyError` when not one sample could be measured."""
        if not self.measured:
            first = self.folder.read_table(FAILURES).to_pylist()[0]
            raise StudyError(
                f"expected at least one of the {len(self.study.data)} samples of {' · '.join(self.key)} to "
                f"be measured, but all failed. The first, {first['sample']}: {first['error']}: "
                f"{first['reason']}"
            )

    def named_frame(self, table: str) -> pd.DataFrame:
        """The table as `frame` gives it, with groups named for people; see `Samples.group_names`."""
        frame = self.frame(table)
        if "group" in frame and frame.group.astype(str).str.startswith("image ").any():
            names = self.study.data.group_names
            frame["group"] = [names.get(group, group) for group in frame.group]
        return frame

    def frame(self, table: str) -> pd.DataFrame:
        """One of the run's joined tables as stored, with a leading column per axis; groups of images by content."""
        frame = self._samples.copy() if table == "samples" else self.folder.read_table(table).to_pandas()
        for place, (axis, label) in enumerate(self.labels.items()):
            frame.insert(place, axis, label)
        return frame

    @cached_property
    def _samples(self) -> pd.DataFrame:
        """The table of samples, which every part of a page reads."""
        return self.folder.read_table("samples").to_pandas()


def run_cells(
    cells: Cells,
    out: str | os.PathLike[str],
    *,
    workers: int | Workers,
    progress: bool,
    part: tuple[int, int] | None = None,
    loaders: int = 0,
    mllm: Any = None,
) -> tuple[GridCell, ...]:
    """Run the cells, or part i of n of each, over one pool of workers.

    Cells of one model and the same samples are computed side by side, so that they share image prefixes, and maps
    where they differ only in what is computed from those. The bytes are those of each cell run alone.

    Raises:
        StudyError: Nothing could be measured in any cell, an axis has the name of a table's column, or `mllm` is no
            model.
        RunError: `out`, `workers`, `loaders` or `part` make no sense, or a folder cannot be used.
    """
    found = check_options(out, workers, part, loaders)
    check_bool("progress", progress, StudyError)
    if mllm is not None and (isinstance(mllm, str) or not hasattr(mllm, "encode")):
        raise StudyError(
            f"mllm is the study's model, opened by interp.load or interp.wrap, or None; got {mllm!r:.200}."
        )
    ready, opened = _ready(cells, mllm, out, workers=found, progress=progress)
    options: dict[str, Any] = {"workers": found, "progress": progress, "part": part, "loaders": loaders}
    folders = run_tasks(_groups(ready, opened), out, **options)
    del opened
    done = tuple(
        GridCell(labels, study, folder) for (labels, study), folder in zip(cells, folders, strict=True)
    )
    for cell in done:
        store_study(cell.study, cell.folder.path)
    if part is None and not any(cell.measured for cell in done):
        done[0].check()
    return done


def _ready(
    cells: Cells, mllm: Any, out: str | os.PathLike[str], *, workers: Workers, progress: bool
) -> tuple[Cells, Any]:
    """The cells with the results of other studies that they need, and the first cell's model, if it is open."""
    if not any(study.unresolved for _, study in cells):
        return cells, mllm
    ready: list[tuple[dict[str, str], Any]] = []
    kept = None
    for model, same in by_model(cells, mllm):
        options: dict[str, Any] = {"workers": workers, "progress": progress, "mllm": model}
        ready += [(labels, study.resolved(out, **options)) for labels, study in same]
        kept = model if len(same) == len(cells) else None  # of several models one is open at a time
        del model, options
    return tuple(ready), kept


def _groups(cells: Cells, mllm: Any) -> Iterator[list[tuple[str, Task]]]:
    """The tasks of each model's cells with their labels."""
    for model, same in by_model(cells, mllm):
        group = [(" · ".join(labels.values()), _checked(labels, study.task(model))) for labels, study in same]
        del model
        yield group
        del group  # before the next model is loaded


def by_model(cells: Cells, mllm: Any = None) -> Iterator[tuple[Any, Cells]]:
    """Each model, opened, with the consecutive cells that use it; it is released before the next one is loaded.

    `mllm`: the first cell's model, if it is open.
    """
    for model, same in itertools.groupby(cells, key=lambda cell: cell[1].model):
        opened, mllm = (open_model(model) if mllm is None else mllm), None
        yield opened, tuple(same)
        del opened


def _checked(labels: Mapping[str, str], task: Task) -> Task:
    """The task; an axis is a column of every table, so it cannot have the name of another."""
    for table, schema in task.schemas().items():
        taken = [axis for axis in labels if axis in schema.names]
        if taken:
            raise StudyError(
                f"the axes {', '.join(labels)} become columns, but the table {table} of {task.name} has a column "
                f"{taken[0]} already. Vary another field, or run its values as studies of their own."
            )
    return task
