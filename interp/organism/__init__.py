"""The bundled model organism: a small LLaVA for which the cause of every answer is known. See docs/organism.md."""

from interp import broken_torchvision

broken_torchvision.hide()  # before transformers is imported

from interp.organism.parts import build_model, build_processor  # noqa: E402
from interp.organism.places import folder  # noqa: E402

__all__ = ["build_model", "build_processor", "folder"]
