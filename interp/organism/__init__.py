"""The bundled model organism: a small LLaVA for which the cause of every answer is known. See docs/organism.md.

What builds models is imported when it is first used, because the organisms' names and folders need no torch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from interp.organism.places import folder

if TYPE_CHECKING:
    from interp.organism.parts import build_model, build_processor

__all__ = ["build_model", "build_processor", "folder"]


def __getattr__(name: str) -> Any:
    if name not in ("build_model", "build_processor"):
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from interp.organism import parts

    return getattr(parts, name)
