"""How commands print: a console as wide as the terminal, and tables that fit it."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

__all__ = ["console", "table"]

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
