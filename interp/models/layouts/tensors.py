"""Tensors of a checkpoint by name, read one at a time: nothing is in memory until it is asked for."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import torch
from safetensors import safe_open
from torch import Tensor

from interp.errors import ModelError

__all__ = ["Files", "Tensors", "read_file", "read_folder"]

_INDEXES = ("model.safetensors.index.json", "pytorch_model.bin.index.json")
_RESIDENT = 128 * 2**20
"""Bytes that are read of a file before it is opened anew."""
_SINGLE = ("model.safetensors", "pytorch_model.bin")


@runtime_checkable
class Tensors(Protocol):
    """Named tensors that can be looked at without being read."""

    def names(self) -> Sequence[str]:
        """Every name, file by file: reading in this order opens each file once."""
        ...

    def meta(self, name: str) -> Tensor:
        """The tensor's shape and dtype, on the meta device."""
        ...

    def read(self, name: str) -> Tensor:
        """The tensor, on the CPU; it may share memory with the file, so do not write to it."""
        ...


@dataclass(eq=False)
class Files:
    """Tensors in files: safetensors, or torch's `.bin`, of which only tensors are read (`weights_only`).

    One file is open at a time, and opened anew now and then: what was read of a mapped file stays resident as long
    as it is open.

    Attributes:
        where: name → file. Names of one file follow each other.
    """

    where: Mapping[str, Path]
    _open: tuple[Path, Any] | None = field(default=None, repr=False)
    _passed: int = field(default=0, repr=False)

    def names(self) -> Sequence[str]:
        """Every name, file by file."""
        return list(self.where)

    def meta(self, name: str) -> Tensor:
        """Shape and dtype of a tensor."""
        found = self._take(name, shape_only=True)
        return torch.empty(found.shape, dtype=found.dtype, device="meta")

    def read(self, name: str) -> Tensor:
        """A tensor."""
        if self._passed > _RESIDENT:
            self._open, self._passed = None, 0
        found = self._take(name)
        self._passed += found.nbytes
        return found

    def _take(self, name: str, shape_only: bool = False) -> Tensor:
        path = self.where[name]
        if self._open is None or self._open[0] != path:
            self._open = None  # the other file is closed before this one is opened
            self._open = (path, _opened(path))
        source = self._open[1]
        if name not in source:
            raise ModelError(
                f"the index of {path.parent} says that {name} is in {path.name}, which does not hold it. Are its "
                "files of one download? Copy the folder again."
            )
        return source.meta(name) if shape_only else source[name]


@dataclass(frozen=True, eq=False)
class _Safe:
    """An open safetensors file."""

    file: Any
    keys: frozenset[str]

    def __contains__(self, name: str) -> bool:
        return name in self.keys

    def __iter__(self) -> Any:
        return iter(sorted(self.keys))

    def __getitem__(self, name: str) -> Tensor:
        return self.file.get_tensor(name)

    def meta(self, name: str) -> Tensor:
        part = self.file.get_slice(name)
        return torch.empty(part.get_shape(), dtype=_DTYPES[part.get_dtype()], device="meta")


class _Pickled(dict[str, Tensor]):
    """The tensors of a `.bin` file, mapped from disk."""

    def meta(self, name: str) -> Tensor:
        return self[name]


_DTYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}


def read_folder(folder: Path) -> Files:
    """The tensors of a folder: sharded with an index, or in one file; safetensors before `.bin`.

    Raises:
        ModelError: No weights, an index that cannot be read, or shards that are not there.
    """
    for name in _INDEXES[:1] + _SINGLE[:1] + _INDEXES[1:] + _SINGLE[1:]:
        path = folder / name
        if path.is_file():
            return _indexed(path) if name in _INDEXES else read_file(path)
    raise ModelError(
        f"{folder} holds no weights: expected one of {', '.join((*_INDEXES, *_SINGLE))}. Is the download complete?"
    )


def read_file(path: Path) -> Files:
    """The tensors of one file.

    Raises:
        ModelError: It cannot be read, or holds anything but tensors.
    """
    return Files(dict.fromkeys(_opened(path), path))


def _indexed(index: Path) -> Files:
    try:
        listed = json.loads(index.read_text("utf-8"))["weight_map"]
        files = {str(name): index.parent / str(file) for name, file in listed.items()}
    except (UnicodeDecodeError, json.JSONDecodeError, KeyError, TypeError, AttributeError) as error:
        raise ModelError(
            f'{index} should be JSON with a "weight_map" from names to files; it is not ({error}). Copy it again.'
        ) from error
    absent = sorted({path.name for path in files.values() if not path.is_file()})
    if absent:
        raise ModelError(
            f"{len(absent)} of the {len(set(files.values()))} weight files that {index.name} names are not in "
            f"{index.parent}: {_few(absent)}. Is the download complete?"
        )
    return Files(dict(sorted(files.items(), key=lambda entry: (str(entry[1]), entry[0]))))


def _opened(path: Path) -> Any:
    if path.suffix == ".safetensors":
        try:
            file = safe_open(path, framework="pt")
            return _Safe(file, frozenset(file.keys()))
        except Exception as error:  # the reader's own errors derive from Exception alone
            raise ModelError(f"{path} is not a whole safetensors file ({error}). Copy it again.") from error
    return _unpickled(path)


def _unpickled(path: Path) -> _Pickled:
    """The tensors of a `.bin`; whatever else its pickle asks for is refused, not run."""
    options: dict[str, Any] = {"map_location": "cpu", "weights_only": True}
    try:
        try:
            found = torch.load(path, mmap=True, **options)
        except RuntimeError as error:
            if "mmap" not in str(error):  # files from before torch 1.6 cannot be mapped
                raise
            found = torch.load(path, **options)
    except Exception as error:  # pickle's, zip's and torch's errors
        line = (str(error).strip().splitlines() or ["no message"])[0]
        raise ModelError(
            f"{path} cannot be read as tensors alone ({type(error).__name__}: {line}). Code inside a pickle is not "
            "run. Is the file whole? If you trust it, write its tensors as safetensors."
        ) from error
    if isinstance(found, Mapping) and isinstance(found.get("state_dict"), Mapping):  # a training checkpoint
        found = {str(name).removeprefix("module."): value for name, value in found["state_dict"].items()}
    if not isinstance(found, Mapping) or not all(isinstance(value, Tensor) for value in found.values()):
        raise ModelError(
            f"{path} should hold named tensors; it holds a {type(found).__name__} of other things."
        )
    return _Pickled(found)


def _few(names: Iterable[str], n: int = 8) -> str:
    names = list(names)
    return ", ".join(names[:n]) + (" …" if len(names) > n else "")
