"""Tiny random models of every built-in family, each with its true processor: seconds to build, nothing to download."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import Any

from interp.conformance.tiny.kit import build
from interp.errors import ModelError

__all__ = ["families", "tiny"]


def families() -> list[str]:
    """Names of the families that have a tiny model here."""
    return sorted(
        path.stem for path in Path(__file__).parent.glob("*.py") if path.stem not in ("__init__", "kit")
    )


def tiny(family: str, attention: str = "sdpa", seed: int = 0) -> tuple[Any, Any]:
    """A new model of the family with random weights, and its processor.

    Args:
        family: one of `families()`.
        attention: the model's attention implementation.
        seed: of the weights; the same seed gives the same weights.

    Raises:
        ModelError: A family without a tiny model.
    """
    if family not in families():
        raise ModelError(f"no tiny model of the family {family!r}; there are: {', '.join(families())}.")
    module = import_module(f"{__name__}.{family}")
    return build(module.MODEL, module.config(), attention, seed), module.processor()
