"""Libraries of the extra `data`, imported where a file needs them."""

from __future__ import annotations

import importlib
from typing import Any

from interp.errors import DataError

__all__ = ["needs"]


def needs(module: str) -> Any:
    """Returns a module of the extra `data`.

    Raises:
        DataError: It is not installed; the message says how to install it.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise DataError(
            f"reading this file needs {module}; install it with: pip install 'interp[data]'"
        ) from error
