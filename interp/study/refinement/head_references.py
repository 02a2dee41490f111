"""Heads that a method names by reference, such as the top of a ranking: ranked and filled in."""

from __future__ import annotations

import dataclasses
import os
from typing import Any

__all__ = ["references", "resolved"]


def references(method: Any) -> dict[str, Any]:
    """The method's fields that hold a reference: anything with a `resolve(out, …)`, such as a `HeadSet`."""
    if not dataclasses.is_dataclass(method):
        return {}
    held = {own.name: getattr(method, own.name) for own in dataclasses.fields(method)}
    return {name: value for name, value in held.items() if callable(getattr(value, "resolve", None))}


def resolved(method: Any, out: str | os.PathLike[str], **options: Any) -> Any:
    """The method with what its references stand for; `options` are those of `resolve`."""
    found = {name: value.resolve(out, **options) for name, value in references(method).items()}
    return dataclasses.replace(method, **found)
