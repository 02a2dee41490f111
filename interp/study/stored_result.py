"""The result of a finished run from its folder alone: no model is opened, and nothing is computed."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from interp.errors import RunError
from interp.run import RunFolder, manifest_of
from interp.run.listing import state_of
from interp.study.grid import Grid
from interp.study.runs import GridCell, read_study
from interp.study.task import data_identity

__all__ = ["stored_result"]


def stored_result(folder: Path) -> Any:
    """The result of the run, or of the grid of runs, in a folder.

    Args:
        folder: A run's folder, or a grid's, beside which its runs lie.

    Raises:
        RunError: It is no folder of a run, the run is not finished, or what it was made of was not kept or has changed;
            the message says what, and how the run was made.
    """
    if not os.path.isfile(folder / "study.json"):
        raise RunError(f"expected the folder of a run or a grid, such as runs/layer-sweep-…; got {folder}.")
    try:
        if (state := state_of(folder)) != "finished":
            raise RunError(f"the run at {folder} is not finished: {state}.")
        whole = read_study(folder)
        cells = _cells(whole, folder)
        for cell in cells:
            _check(cell)
    except RunError as error:
        raise RunError(f"{error} {_again(folder)}") from error
    return (whole.base if isinstance(whole, Grid) else whole).collect(whole, tuple(cells), folder)


def _cells(whole: Any, folder: Path) -> list[GridCell]:
    """The finished runs of a study or a grid.

    Raises:
        RunError: A run is missing.
    """
    own = RunFolder.open(folder)
    if not isinstance(whole, Grid):
        return [GridCell(whole.labels, whole, own)]
    stored = own.study().get("cells", [])
    pairs = zip(whole.studies, stored, strict=True)
    return [
        GridCell(one["labels"], study, RunFolder.open(folder.resolve().parent / one["run"]))
        for (_, study), one in pairs
    ]


def _check(cell: GridCell) -> None:
    """Refuse a run whose data have changed.

    Raises:
        RunError: The data have changed since the run.
    """
    path = cell.folder.path
    stored, found = cell.folder.study().get("data"), data_identity(cell.study.data)
    differing = [name for name in found if isinstance(stored, dict) and stored.get(name) != found[name]]
    if differing:
        raise RunError(
            f"the data of {path}, {cell.study.data.name}, are no longer what they were: their "
            f"{' and '.join(differing)} differ, so that images or questions were changed or moved."
        )


def _again(folder: Path) -> str:
    """How the run was made, so that it can be made again."""
    sessions: Sequence[Any] = manifest_of(RunFolder(folder, "")).get("sessions", [])
    commands = [one["command"] for one in sessions if one.get("command")]
    if commands:
        return f"Run what made it again, which computes only what is missing: {commands[-1]}"
    return "Run the study again where it was made; only what is missing is computed: study.run().report()."
