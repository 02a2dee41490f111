"""Settings of original configs that decide what is computed: known, or refused by name."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from interp.errors import ModelError

__all__ = ["Setting", "check_settings", "refuse_tower"]

Setting = tuple[str, Any, tuple[Any, ...]]
"""Name, value found, values that are computed here; the first of these is the usual one."""


def check_settings(folder: Path, found: Iterable[Setting], *, known: str) -> None:
    """Raise `ModelError` for settings under which the original code computes something else than here.

    Args:
        folder: the checkpoint's.
        found: the settings.
        known: the models whose settings are known, for the message.
    """
    wrong = [f"{name}={value!r} (known: {good[0]!r})" for name, value, good in found if value not in good]
    if wrong:
        raise ModelError(
            f"{folder} has settings that are not computed here: {', '.join(wrong)}. Known are those of {known}. For "
            "others take a copy in transformers' layout, or build the model yourself and use interp.wrap(hf_model, "
            "processor, adapter=…)."
        )


def refuse_tower(folder: Path, vision_tower: str | Path | None) -> None:
    """Raise `ModelError` where a tower is given to a layout that holds its own."""
    if vision_tower is not None:
        raise ModelError(
            f"vision_tower={str(vision_tower)!r} has no place in {folder}, which holds a vision tower that was tuned "
            "with the rest. Leave it out."
        )
