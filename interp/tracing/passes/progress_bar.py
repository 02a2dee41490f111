"""Progress bars: how many samples are done, and how long the rest will take."""

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
"""Whether further bars are hidden, because a bar is already shown or no bar is wanted."""


class Advance(Protocol):
    """Counts samples that are done."""

    def __call__(self, n: int) -> None:
        """Counts `n` more."""
        ...


def bars(console: Console, *, transient: bool = False, noun: str = "samples") -> Progress:
    """Progress bars with the remaining time.

    Args:
        console: Where they are shown.
        transient: Whether they disappear when they stop.
        noun: What is counted, in the plural.
    """
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
    """Hides the progress bars of the work in the block; with `hidden` False it changes nothing."""
    token = _HIDDEN.set(_HIDDEN.get() or hidden)
    try:
        yield
    finally:
        _HIDDEN.reset(token)


@contextmanager
def progress_bar(label: str, total: int, *, show: bool = True, noun: str = "samples") -> Iterator[Advance]:
    """Shows a progress bar on stderr, for the block, if stderr is a terminal or a notebook.

    The bar disappears at the end. Inside the block, or inside `without_bars`, no further bar is shown.

    Args:
        label: What is being done.
        total: The number of samples.
        show: Whether to show the bar.
        noun: What is counted, in the plural.
    """
    console = Console(file=sys.stderr) if show and not _HIDDEN.get() else None
    if console is None or not _shows(console):
        yield lambda n: None
        return
    with without_bars(), bars(console, transient=True, noun=noun) as shown:
        task = shown.add_task(label, total=total)
        yield lambda n: shown.advance(task, n)


def _shows(console: Console) -> bool:
    """Whether the console can show a moving bar; in a notebook this needs ipywidgets."""
    return console.is_terminal or (console.is_jupyter and find_spec("ipywidgets") is not None)
