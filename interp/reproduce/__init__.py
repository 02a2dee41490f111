"""The command `interp reproduce`: runs the scripts of the paper's figures and tables, and writes an index of the pages.

Scripts run where their models and data were given; the index says what was made and what is missing.
"""

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
]
