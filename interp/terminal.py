"""How commands print: a console as wide as the terminal, and tables that fit it."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from interp.errors import InterpError

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

__all__ = ["console", "in_options", "naming_options", "table"]

WIDTH = 180
"""Of what is not printed to a terminal, where COLUMNS says nothing."""


def console(*, stderr: bool = False) -> Console:
    """A console as wide as the terminal; elsewhere as wide as the variable COLUMNS says, else 180 columns."""
    from rich.console import Console

    stream = sys.stderr if stderr else sys.stdout
    fixed = stream.isatty() or os.environ.get("COLUMNS", "").isdecimal()
    return Console(stderr=stderr, width=None if fixed else WIDTH)


def table(*columns: str, **options: Any) -> Table:
    """A table with a line between its rows; long cells are folded.

    Args:
        columns: The headers.
        **options: As for `rich.table.Table`.
    """
    from rich.table import Table

    made = Table(**{"show_lines": True, **options})
    for name in columns:
        made.add_column(name, overflow="fold")
    return made


def in_options(text: str) -> str:
    """Returns a message with the command line's options in the place of the arguments in Python.

    >>> in_options('pass box_format="xywh", or columns={"boxes": "roi"}.')
    'pass --box-format xywh, or --columns boxes=roi.'
    """
    text = re.sub(r'columns=\{"(\w+)": "([^"]+)"\}', r"--columns \1=\2", text)
    text = re.sub(r'box_format="(\w+)"', r"--box-format \1", text)
    return text.replace("box_format=", "--box-format").replace("columns=", "--columns")


@contextmanager
def naming_options() -> Iterator[None]:
    """Makes the errors of a block name the command line's options, as `in_options` does."""
    try:
        yield
    except InterpError as error:
        raise type(error)(in_options(str(error))) from error
