"""What the package as a whole gives to its rooms: functions of rooms above, handed down by `interp/__init__.py`.

A method such as `Mllm.look` stands in a room below the one that does the work. It asks here for that work, so that no
room imports one above it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

__all__ = ["provide", "provided"]

_PROVIDED: dict[str, Callable[..., Any]] = {}


def provide(name: str, function: Callable[..., Any]) -> None:
    """Makes a function known by its name to the rooms below it; called once, when the package is imported."""
    _PROVIDED[name] = function


def provided(name: str) -> Callable[..., Any]:
    """The function that was provided under a name."""
    return _PROVIDED[name]
