"""The command `interp reproduce`: runs the scripts of the paper's figures and tables, and writes an index of the pages.

Scripts run where their models and data were given; the index says what was made and what is missing.
"""

from typing import TYPE_CHECKING, Any

from interp.reproduce.registry import DATA, FIGURES, Figure, figures_named, scripts_folder
from interp.reproduce.session import Request, Session, State

__all__ = [
    "DATA",
    "FIGURES",
    "Figure",
    "Request",
    "Session",
    "State",
    "figures_named",
    "scripts_folder",
    "write_index",
]

if TYPE_CHECKING:
    from interp.reproduce.index_page import write_index


def __getattr__(name: str) -> Any:
    """Imports `write_index` when it is asked for, so that listing the scripts needs no studies."""
    if name != "write_index":
        raise AttributeError(name)
    from interp.reproduce.index_page import write_index

    return write_index
