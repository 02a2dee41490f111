"""The bundled model organism: a small LLaVA for which the cause of every answer is known. See docs/organism.md."""

from interp.organism.parts import build_model, build_processor
from interp.organism.places import folder

__all__ = ["build_model", "build_processor", "folder"]
