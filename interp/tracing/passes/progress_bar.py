"""The progress bar of work on samples: how many are done, and how long the rest will take."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from importlib.util import find_spec
from typing import Protocol

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

__all__ = ["Advance", "bars", "progress_bar", "without_bars"]

_HIDDEN: ContextVar[bool] = ContextVar("bars are hidden", default=False)
"""Whether a bar is shown already, or none is wanted: those of the work inside are then not shown."""


class Advance(Protocol):
    """Counts samples that are done."""

    def __call__(self, n: int) -> None:
        """Counts `n` more."""
        ...


def bars(console: Console, *, transient: bool = False, noun: str = "samples") -> Progress:
    """Bars of samples, or of what `noun` says, with the time that remains; `transient` ones vanish when they stop."""
    return Progress(
        TextColumn("[bold]{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn(noun),
        TimeRemainingColumn(),
        console=console,
        transient=transient,
    )


@contextmanager
def without_bars(hidden: bool = True) -> Iterator[None]:
    """Shows no bar of the work in the block, as where it has a bar already; with `hidden` False changes nothing."""
    token = _HIDDEN.set(_HIDDEN.get() or hidden)
    try:
        yield
    finally:
        _HIDDEN.reset(token)


@contextmanager
def progress_bar(label: str, total: int, *, show: bool = True, noun: str = "samples") -> Iterator[Advance]:
    """A bar on stderr for the block, where that is a terminal or a notebook; elsewhere nothing is shown.

    It vanishes at the end: what the work gives is what stays on the page. Work inside it shows no bar of its own, and
    it shows none inside another or `without_bars`.

    Args:
        label: What is being done.
        total: How many samples there are.
        show: Whether to show it at all.
        noun: What is counted.
    """
    console = Console(file=sys.stderr) if show and not _HIDDEN.get() else None
    if console is None or not _shows(console):
        yield lambda n: None
        return
    with without_bars(), bars(console, transient=True, noun=noun) as shown:
        task = shown.add_task(label, total=total)
        yield lambda n: shown.advance(task, n)


def _shows(console: Console) -> bool:
    """Whether a bar can move there; in a notebook it needs ipywidgets."""
    return console.is_terminal or (console.is_jupyter and find_spec("ipywidgets") is not None)
