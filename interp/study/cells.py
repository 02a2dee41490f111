"""The runs behind a result: one per study, or one per cell of a grid."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pandas as pd

from interp.errors import StudyError
from interp.run import FAILURES, RunFolder, Task, run_task
from interp.study.model import open_model
from interp.study.passes import Passes, shared_passes
from interp.study.study import Study

__all__ = ["Cells", "GridCell", "opened", "run_cells", "run_study"]

Cells = tuple[tuple[dict[str, str], Study], ...]


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
        return self.folder.read_table("samples").num_rows > 0

    def check(self) -> None:
        """Raise `StudyError` when not one sample could be measured."""
        if not self.measured:
            first = self.folder.read_table(FAILURES).to_pylist()[0]
            raise StudyError(
                f"expected at least one of the {len(self.study.data)} samples of {' · '.join(self.key)} to "
                f"be measured, but all failed. The first, {first['sample']}: {first['error']}: "
                f"{first['reason']}"
            )

    def frame(self, table: str) -> pd.DataFrame:
        """One of the run's joined tables, with a leading column per axis."""
        frame = self.folder.read_table(table).to_pandas()
        for place, (axis, label) in enumerate(self.labels.items()):
            frame.insert(place, axis, label)
        return frame


def run_study(
    study: Study,
    out: str | os.PathLike[str],
    *,
    workers: int = 1,
    progress: bool = True,
    part: tuple[int, int] | None = None,
    mllm: Any = None,
) -> Any:
    """One study's result; what is already under `out` is not computed again.

    Args:
        study: The study.
        out: The folder that holds runs.
        workers: Processes, each with its own copy of the model; the bytes are the same for any number.
        progress: Show progress on stderr.
        part: (i, n) computes only part i of n, 1 ≤ i ≤ n.
        mllm: The study's model, when it is open already.

    Raises:
        StudyError: Nothing could be measured.
    """
    listed = ((study.labels, study),)
    cells = tuple(run_cells(listed, out, workers=workers, progress=progress, part=part, mllm=mllm))
    return study.collect(study, cells, cells[0].folder.path)


def run_cells(
    cells: Cells,
    out: str | os.PathLike[str],
    *,
    workers: int,
    progress: bool,
    part: tuple[int, int] | None = None,
    mllm: Any = None,
) -> Iterator[GridCell]:
    """Run each cell in turn, or part i of n of it; cells that differ only after the pass share their passes.

    Raises:
        StudyError: Nothing could be measured in any cell, or an axis has the name of a table's column.
    """
    done: list[GridCell] = []
    options: dict[str, Any] = {"workers": workers, "progress": progress, "part": part}
    with TemporaryDirectory(prefix="interp-passes-") as room:
        shared = shared_passes([study for _, study in cells], Path(room))
        for place, (labels, study, model) in enumerate(opened(cells, mllm)):
            task: Any = study.task(model)
            _check_columns(labels, task)
            if hasattr(task, "passes"):
                task.passes = shared[place]
            folder = run_task(task, out, **options, label=" · ".join(labels.values()))
            done.append(GridCell(labels, study, folder))
            _clear_unless_needed(shared[place], shared[place + 1 :])
            yield done[-1]
    if part is None and not any(cell.measured for cell in done):
        done[0].check()


def opened(cells: Cells, mllm: Any = None) -> Iterator[tuple[dict[str, str], Study, Any]]:
    """Each cell with its opened model; one model is open at a time. `mllm`: the first cell's, if it is open."""
    current = cells[0][1].model if mllm is not None else None
    for labels, study in cells:
        if current is None or study.model != current:
            mllm = None  # let go of the last model before the next is loaded
            mllm, current = open_model(study.model), study.model
        yield labels, study, mllm


def _check_columns(labels: Mapping[str, str], task: Task) -> None:
    """An axis is a column of every table, so it cannot have the name of another."""
    for table, schema in task.schemas().items():
        taken = [axis for axis in labels if axis in schema.names]
        if taken:
            raise StudyError(
                f"the axes {', '.join(labels)} become columns, but the table {table} of {task.name} has a column "
                f"{taken[0]} already. Vary another field, or run its values as studies of their own."
            )


def _clear_unless_needed(passes: Passes | None, later: Sequence[Passes | None]) -> None:
    if passes is not None and passes not in later:
        passes.clear()
