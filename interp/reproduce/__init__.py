"""The paper's figures and tables by their scripts: what is at hand is run, and one page says what is and what is not.

The command `interp reproduce`.
"""

from interp.reproduce.arguments import Request
from interp.reproduce.registry import DATA, FIGURES, Figure, figures_named, scripts_folder
from interp.reproduce.session import Session, State

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
