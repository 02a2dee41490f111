"""The progress bar of work on samples: how many are done, and how long the rest will take."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from typing import Protocol

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

__all__ = ["Advance", "bars", "progress_bar"]


class Advance(Protocol):
    """Counts samples that are done."""

    def __call__(self, n: int) -> None:
        """Counts `n` more."""
        ...


def bars(console: Console, *, transient: bool = False) -> Progress:
    """Bars of samples with the time that remains; `transient` ones vanish when they stop."""
    return Progress(
        TextColumn("[bold]{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("samples"),
        TimeRemainingColumn(),
        console=console,
        transient=transient,
    )


@contextmanager
def progress_bar(label: str, total: int, *, show: bool) -> Iterator[Advance]:
    """A bar on stderr for the block, where that is a terminal or a notebook; elsewhere nothing is shown.

    It vanishes at the end: what the work gives is what stays on the page.

    Args:
        label: What is being done.
        total: How many samples there are.
        show: Whether to show it at all.
    """
    console = Console(file=sys.stderr) if show else None
    if console is None or not _shows(console):
        yield lambda n: None
        return
    with bars(console, transient=True) as shown:
        task = shown.add_task(label, total=total)
        yield lambda n: shown.advance(task, n)


def _shows(console: Console) -> bool:
    """Whether a bar can move there; in a notebook it needs ipywidgets."""
    return console.is_terminal or (console.is_jupyter and find_spec("ipywidgets") is not None)
