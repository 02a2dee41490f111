"""The folders of the bundled organisms."""

from __future__ import annotations

from pathlib import Path

from interp.errors import ModelError
from interp.inputs.text import meant

__all__ = ["ORGANISMS", "folder"]

ORGANISMS = {
    "organism": "natural",
    "organism-1": "natural_1",
    "shortcut-organism": "shortcut",
    "shortcut-organism-1": "shortcut_1",
}
"""Name for `interp.load` → folder of the weights beside this file. "-1" is a second training seed."""


def folder(name: str = "organism") -> Path:
    """Returns the folder of a bundled organism, for `from_pretrained`.

    Raises:
        ModelError: There is no organism of that name, or its weights are not installed.
    """
    if name not in ORGANISMS:
        raise ModelError(
            f"no bundled organism is called {name!r}; there are {', '.join(sorted(ORGANISMS))}.{meant(name, ORGANISMS)}"
        )
    path = Path(__file__).parent / ORGANISMS[name]
    if not (path / "model.safetensors").is_file():
        raise ModelError(
            f"the weights of {name!r} are not at {path}. Reinstall interp, or train them in a clone of the repository: "
            "python -m studies.organism.train (shortcut organisms: python -m studies.organism.shortcut)."
        )
    return path
