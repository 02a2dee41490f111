"""Where the scripts of the paper's figures are: in the repository, not in the installed package."""

from __future__ import annotations

from pathlib import Path

import interp
from interp.errors import RunError

__all__ = ["scripts_folder"]

MARK = "fig3_layer_sweep.py"


def scripts_folder(given: Path | None = None) -> Path:
    """The folder of the scripts: the given one, else that of the checkout of this package, else ./studies.

    Raises:
        RunError: There is none.
    """
    if given is not None:
        if not any(given.glob("*.py")):
            raise RunError(
                f"expected the folder studies/ of interp's repository; {given} holds no script. Pass --studies FOLDER."
            )
        return given.resolve()
    package = Path(interp.__file__).resolve().parent
    for folder in (package.parent / "studies", Path.cwd() / "studies"):
        if (folder / MARK).is_file():
            return folder.resolve()
    raise RunError(
        f"the scripts of the figures are in the folder studies/ of interp's repository, which is not part of the "
        f"installed package at {package}. Run this in a checkout of the repository, or name its folder: "
        "interp reproduce --studies FOLDER."
    )
