"""Functions of higher folders for methods of lower ones, provided by `interp/__init__.py`.

A method such as `Mllm.look` is in a lower folder than the code that does its work. It takes that code from here, so
that no folder imports one above it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

__all__ = ["provide", "provided"]

_PROVIDED: dict[str, Callable[..., Any]] = {}


def provide(name: str, function: Callable[..., Any]) -> None:
    """Makes a function available by its name to lower folders; called once, when the package is imported."""
    _PROVIDED[name] = function


def provided(name: str) -> Callable[..., Any]:
    """The function that was provided under a name."""
    return _PROVIDED[name]
