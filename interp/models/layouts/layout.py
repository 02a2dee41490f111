"""Original layouts, and which one a folder is in."""

from __future__ import annotations

import json
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from interp.models.layouts.checkpoint import Checkpoint

__all__ = ["LAYOUTS", "Layout", "config_of", "layouts", "recognise"]

LAYOUTS: tuple[str, ...] = (
    "interp.models.layouts.llava_kinds:LlavaLora",
    "interp.models.layouts.llava_kinds:LlavaMed",
    "interp.models.layouts.llava_kinds:HuatuoBio",
    "interp.models.layouts.llava_kinds:HuatuoVision7",
    "interp.models.layouts.llava_kinds:HuatuoVision34",
    "interp.models.layouts.llava_kinds:LlavaTri",
    "interp.models.layouts.llava_kinds:LlavaV15",
    "interp.models.layouts.vila:Vila",
    "interp.models.layouts.internvl:InternVl",
)
"""The layouts, module:class, in the order they are asked; imported when they are first asked for."""


@runtime_checkable
class Layout(Protocol):
    """A way in which some original code saved its models."""

    name: str

    def matches(self, folder: Path) -> bool:
        """Whether a folder is in this layout, from the names of its files and its config.json alone."""
        ...

    def open(
        self, folder: Path, vision_tower: str | Path | None = None, *, download: bool = False
    ) -> Checkpoint:
        """The folder's checkpoint; weights are not read.

        Args:
            folder: a folder that `matches`.
            vision_tower: folder or hub id of a tower that replaces the one the config names. A hub id may be
                downloaded.
            download: whether parts that the config names by hub id may be downloaded; else they must be on hand.

        Raises:
            ModelError: A part is not on hand, or the config is not understood.
        """
        ...


def layouts() -> Iterator[Layout]:
    """The known layouts, one by one."""
    for path in LAYOUTS:
        module, name = path.split(":")
        yield getattr(import_module(module), name)()


def recognise(folder: Path) -> Layout | None:
    """The layout of a folder; None for transformers' own, and for what none of the layouts knows."""
    return next((layout for layout in layouts() if layout.matches(folder)), None)


def config_of(folder: Path) -> dict[str, Any]:
    """What a folder's config.json holds; empty where there is none, or no JSON object."""
    try:
        found = json.loads((folder / "config.json").read_text("utf-8"))
    except (OSError, UnicodeDecodeError, json.JSONDecodeError):
        return {}
    return found if isinstance(found, dict) else {}
