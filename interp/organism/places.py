"""Where the bundled organisms lie on disk."""

from __future__ import annotations

from pathlib import Path

from interp.errors import ModelError

__all__ = ["ORGANISMS", "folder"]

ORGANISMS = {
    "organism": "natural",
    "organism-1": "natural_1",
    "shortcut-organism": "shortcut",
    "shortcut-organism-1": "shortcut_1",
}
"""The name given to `interp.load` → the folder of weights beside this file. "-1" is a second training seed."""


def folder(name: str = "organism") -> Path:
    """Returns the folder of a bundled organism, as `from_pretrained` takes it.

    Raises:
        ModelError: No organism of that name, or its weights are not installed.
    """
    if name not in ORGANISMS:
        raise ModelError(f"no bundled organism is called {name!r}; there is {sorted(ORGANISMS)}.")
    path = Path(__file__).parent / ORGANISMS[name]
    if not (path / "model.safetensors").is_file():
        raise ModelError(
            f"the weights of {name!r} are not at {path}. Reinstall interp, or train them: "
            "python studies/organism/train.py (or train_shortcut.py)."
        )
    return path
