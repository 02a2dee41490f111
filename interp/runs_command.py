"""`interp runs`: the runs in a folder in a table, the newest first."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import tyro

from interp.run.listing import FINISHED, listed_runs
from interp.terminal import console, table

if TYPE_CHECKING:
    from rich.table import Table

__all__ = ["runs"]

ROOMY = 110
"""Columns of a terminal from which on the study has a column of its own; its folder's name begins with it."""


def runs(
    folder: Annotated[Path, tyro.conf.Positional] = Path("runs"),
    *,
    unfinished: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False,
) -> int:
    """List the runs in a folder: study, model, data, samples, whether finished, when, and where. No model is loaded.

    `interp report FOLDER` makes the page of one of them again, and `interp report` that of the newest.

    Args:
        folder: the folder that holds runs.
        unfinished: only those that are not finished.
    """
    found = [row for row in listed_runs(folder) if not unfinished or not row["state"].startswith(FINISHED)]
    shown = console()
    if not found:
        shown.print(f"no {'unfinished ' if unfinished else ''}runs in {folder}", markup=False)
        return 0
    shown.print(_table(found, roomy=shown.width >= ROOMY))
    return 0


def _table(found: list[dict[str, Any]], *, roomy: bool) -> Table:
    made = table(show_lines=False, box=None, pad_edge=False)
    names = (["study"] if roomy else []) + ["model", "data", "n", "state", "when"]
    for name in names:
        made.add_column(
            name, overflow="fold", justify="right" if name == "n" else "left", no_wrap=name in ("n", "when")
        )
    made.add_column("folder", overflow="fold", min_width=min(max(len(row["folder"]) for row in found), 36))
    for row in found:
        made.add_row(*_cells(row, roomy))
    return made


def _cells(row: Mapping[str, Any], roomy: bool) -> list[Any]:
    from rich.text import Text

    started = row["started"]
    when = "" if started is None else started.astimezone().strftime("%m-%d %H:%M")
    size = "" if row["n"] is None else str(row["n"])
    study = [row["study"]] if roomy else []
    return [Text(one) for one in (*study, row["model"], row["data"], size, row["state"], when, row["folder"])]
