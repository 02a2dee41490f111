"""A hash of what a job was asked, so that its result is not taken for that of another."""

from __future__ import annotations

import hashlib
import inspect
from collections.abc import Iterator
from dataclasses import fields, is_dataclass
from types import FunctionType
from typing import Any

import numpy as np
from torch import Tensor

__all__ = ["digest_of"]


def digest_of(value: Any) -> str:
    """Hex SHA-256 of a value of tensors, arrays, mappings, sequences and dataclasses; the same in every process."""
    found = hashlib.sha256()
    for word in _words(value):
        found.update(word)
    return found.hexdigest()


def _words(value: Any) -> Iterator[bytes]:
    """The value as bytes, one part after the other; functions by their source, other objects by their attributes."""
    yield type(value).__name__.encode() + b"\0"
    if isinstance(value, Tensor):
        value = value.detach().cpu()
        yield f"{value.dtype}{tuple(value.shape)}".encode()
        yield (value.float() if value.is_floating_point() else value).contiguous().numpy().tobytes()
    elif isinstance(value, np.ndarray):
        yield f"{value.dtype}{value.shape}".encode()
        yield np.ascontiguousarray(value).tobytes()
    elif isinstance(value, dict):
        for key, one in value.items():
            yield from (*_words(key), *_words(one))
    elif isinstance(value, list | tuple):
        for one in value:
            yield from _words(one)
    elif isinstance(value, FunctionType):
        yield _source(value).encode()
    elif is_dataclass(value):
        for one in fields(value):
            yield from _words(getattr(value, one.name))
    elif isinstance(value, str | bytes | int | float | frozenset | type(None)):
        yield repr(sorted(value) if isinstance(value, frozenset) else value).encode()
    else:
        yield from _words(getattr(value, "__dict__", {}))


def _source(function: FunctionType) -> str:
    try:
        return inspect.getsource(function)
    except (OSError, TypeError):
        return function.__qualname__
