"""Hides a torchvision that cannot be imported, so that transformers works without it.

The torchvision that comes from PyPI is built for the CUDA build of torch. Beside a CPU build of torch its import ends
with "operator torchvision::nms does not exist", and so does that of every model of transformers, which looks only
whether torchvision is installed. `interp` needs no torchvision: without it, processors work on PIL images. lmms-eval
requires it.
"""

from __future__ import annotations

import sys
from importlib import import_module
from importlib.util import find_spec

__all__ = ["hide"]


def hide() -> bool:
    """Makes this process treat torchvision as not installed, where it belongs to another build of torch.

    It is tried only where the versions look so: torch is a CPU build ("+cpu") and torchvision names no build. One that
    can be imported stays.

    Returns:
        Whether it is hidden now.
    """
    if "torchvision" in sys.modules:
        return sys.modules["torchvision"] is None
    if find_spec("torchvision") is None or not _of_another_build():
        return False
    try:
        import_module("torchvision")
    except Exception:  # whatever torch raises for operators that are not there
        for name in [name for name in sys.modules if name.partition(".")[0] == "torchvision"]:
            del sys.modules[name]
        sys.modules["torchvision"] = None  # pyright: ignore[reportArgumentType] - how Python marks what is not there
        _forget()
        return True
    return False


def _of_another_build() -> bool:
    try:
        return _version("torch").endswith("+cpu") and "+" not in _version("torchvision")
    except ImportError:  # no such distribution
        return False


def _version(name: str) -> str:
    from importlib.metadata import (
        version,  # which takes longer to import than all else that `import interp` does
    )

    return version(name)


def _forget() -> None:
    """Makes transformers check again whether torchvision is installed."""
    known = sys.modules.get("transformers.utils.import_utils")
    for name in ("is_torchvision_available", "is_torchvision_v2_available"):
        clear = getattr(getattr(known, name, None), "cache_clear", None)
        if clear is not None:
            clear()
