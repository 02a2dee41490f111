"""Tensors of a checkpoint, read and written one at a time, and the rules from original names to transformers' names."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from math import prod
from pathlib import Path
from typing import Any, BinaryIO, Protocol, runtime_checkable

import torch
from safetensors import safe_open
from torch import Tensor

from interp.errors import ModelError

__all__ = [
    "IGNORED",
    "Entry",
    "Files",
    "Part",
    "Rule",
    "Step",
    "Tensors",
    "cut",
    "read_file",
    "read_folder",
    "write_shards",
]


_INDEXES = ("model.safetensors.index.json", "pytorch_model.bin.index.json")
_RESIDENT = 128 * 2**20
"""The number of bytes that are read of a file before it is reopened."""
_SINGLE = ("model.safetensors", "pytorch_model.bin")


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
Change = Callable[[Tensor], Sequence[Tensor]]
"""A function that makes the tensors of the new names from one tensor; it is pure and works on the meta device."""
_NAMES = {
    torch.float64: "F64",
    torch.float32: "F32",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.int64: "I64",
    torch.int32: "I32",
    torch.int16: "I16",
    torch.int8: "I8",
    torch.uint8: "U8",
    torch.bool: "BOOL",
}


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

    One file is open at a time. It is reopened from time to time, because what was read of a mapped file stays in memory
    as long as the file is open.

    Attributes:
        where: Name of a tensor → its file. Names of one file follow each other.
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
        """A tensor of the same shape and dtype on the device meta; nothing is read."""
        part = self.file.get_slice(name)
        return torch.empty(part.get_shape(), dtype=_DTYPES[part.get_dtype()], device="meta")


class _Pickled(dict[str, Tensor]):
    """The tensors of a `.bin` file, mapped from disk."""

    def meta(self, name: str) -> Tensor:
        """The tensor itself, which is mapped from disk and not read."""
        return self[name]


def read_folder(folder: Path) -> Files:
    """Returns the tensors of a folder: sharded with an index, or in one file; safetensors before `.bin`.

    Raises:
        ModelError: The folder holds no weights, its index cannot be read, or shards are missing.
    """
    for name in _INDEXES[:1] + _SINGLE[:1] + _INDEXES[1:] + _SINGLE[1:]:
        path = folder / name
        if path.is_file():
            return _indexed(path) if name in _INDEXES else read_file(path)
    raise ModelError(
        f"{folder} holds no weights: expected one of {', '.join((*_INDEXES, *_SINGLE))}. Is the download complete?"
    )


def read_file(path: Path) -> Files:
    """Returns the tensors of one file.

    Raises:
        ModelError: The file cannot be read, or holds anything but tensors.
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
    outside = sorted(
        {
            str(file)
            for file in listed.values()
            if ".." in Path(str(file)).parts or Path(str(file)).is_absolute()
        }
    )
    if outside:
        raise ModelError(
            f"{index} names files outside its folder: {_few(outside)}. Only its own files are read. Copy it again."
        )
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
            raise ModelError(
                f"{path} is not a complete safetensors file ({error}). Copy it again."
            ) from error
    return _unpickled(path)


def _unpickled(path: Path) -> _Pickled:
    """Returns the tensors of a `.bin` file; anything else in its pickle is refused and not run."""
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
            f"{path} should hold named tensors; it holds a {type(found).__name__} of other things. Is it "
            "the file of weights, and not of an optimiser?"
        )
    return _Pickled(found)


def _few(names: Iterable[str], n: int = 8) -> str:
    names = list(names)
    return ", ".join(names[:n]) + (" …" if len(names) > n else "")


@dataclass(frozen=True)
class Rule:
    r"""What becomes of the tensors whose whole name matches a pattern.

    Args:
        pattern: A regular expression, such as `r"model\.layers\.(.+)"`.
        to: The new name or names, as replacements such as `r"model.language_model.layers.\1"`; empty to ignore the
            tensor.
        change: A function that makes the tensors of the new names from the tensor; None keeps it as it is.
    """

    pattern: str
    to: str | tuple[str, ...] = ()
    change: Change | None = None

    def targets(self, name: str) -> tuple[str, ...] | None:
        """Returns the new names of a tensor; None where the rule does not match its name."""
        found = re.fullmatch(self.pattern, name)
        if found is None:
            return None
        return tuple(found.expand(one) for one in ((self.to,) if isinstance(self.to, str) else self.to))


IGNORED: tuple[Rule, ...] = (Rule(r".*rotary_emb\.inv_freq"), Rule(r".*position_ids"))
"""Buffers that old checkpoints carry and transformers computes anew."""


@dataclass(frozen=True)
class Step:
    """A tensor of a checkpoint with the rule that matches its name.

    Attributes:
        source: The tensor's name in the checkpoint.
        names: Its new names; empty if it is ignored, None if no rule matches.
        rule: The rule; None if no rule matches.
    """

    source: str
    names: tuple[str, ...] | None
    rule: Rule | None


@dataclass(frozen=True, eq=False)
class Part:
    """Some files of a checkpoint and the rules for the names in them.

    Attributes:
        tensors: The tensors of the files.
        rules: The rules; of those that match a name the first one counts.
    """

    tensors: Tensors
    rules: tuple[Rule, ...]

    def steps(self) -> Iterator[Step]:
        """Yields every tensor with its new names, in the order of the files."""
        for source in self.tensors.names():
            yield next(
                (Step(source, to, rule) for rule in self.rules if (to := rule.targets(source)) is not None),
                Step(source, None, None),
            )

    def metas(self, step: Step) -> list[tuple[str, Tensor]]:
        """Returns the new names with tensors on the meta device: shapes and dtypes, nothing is read."""
        return self._made(step, self.tensors.meta(step.source))

    def values(self, step: Step) -> list[tuple[str, Tensor]]:
        """Returns the new names with their tensors."""
        return self._made(step, self.tensors.read(step.source))

    def _made(self, step: Step, tensor: Tensor) -> list[tuple[str, Tensor]]:
        names = step.names or ()
        change = None if step.rule is None else step.rule.change
        try:
            made = [tensor] * len(names) if change is None else list(change(tensor))
            return list(zip(names, made, strict=True))
        except (
            RuntimeError,
            ValueError,
            IndexError,
        ) as error:  # torch's words for a shape that cannot be cut
            raise ModelError(
                f"{step.source} of shape {tuple(tensor.shape)} cannot be made into {' and '.join(names)} ({error}). "
                "Does its config.json describe other sizes?"
            ) from error


@dataclass(frozen=True)
class Entry:
    """A tensor to write."""

    name: str
    dtype: torch.dtype
    shape: tuple[int, ...]

    @property
    def nbytes(self) -> int:
        """The size of the tensor in the file, in bytes."""
        return prod(self.shape) * self.dtype.itemsize


def cut(entries: Sequence[Entry], limit: int) -> list[list[Entry]]:
    """Returns the entries in order, in shards of at most `limit` bytes; a larger entry has its own shard."""
    shards: list[list[Entry]] = [[]]
    size = 0
    for entry in entries:
        if shards[-1] and size + entry.nbytes > limit:
            shards.append([])
            size = 0
        shards[-1].append(entry)
        size += entry.nbytes
    return shards


def write_shards(
    folder: Path, entries: Sequence[Entry], tensors: Iterable[tuple[str, Tensor]], limit: int
) -> None:
    """Writes `model.safetensors`, or shards and their index, as transformers names them.

    One tensor is in memory at a time, cast to its entry's dtype.

    Args:
        folder: The folder to write to.
        entries: The entries of all tensors.
        tensors: The tensors: the same names in the same order.
        limit: The largest size of a shard in bytes.

    Raises:
        ModelError: A tensor differs from its entry, or its dtype is not supported.
    """
    shards, coming, where = cut(entries, limit), iter(tensors), {}
    for i, shard in enumerate(shards):
        name = "model" if len(shards) == 1 else f"model-{i + 1:05}-of-{len(shards):05}"
        with (folder / f"{name}.safetensors").open("wb") as file:
            file.write(_header(shard))
            for entry in shard:
                _write(file, entry, coming)
        where |= {entry.name: f"{name}.safetensors" for entry in shard}
    if len(shards) > 1:
        index = {"metadata": {"total_size": sum(entry.nbytes for entry in entries)}, "weight_map": where}
        (folder / "model.safetensors.index.json").write_text(json.dumps(index, indent=1) + "\n", "utf-8")


def _header(shard: Sequence[Entry]) -> bytes:
    """Returns the length of the JSON header and the header, padded with blanks to a multiple of eight bytes."""
    described: dict[str, object] = {"__metadata__": {"format": "pt"}}
    at = 0
    for entry in shard:
        if entry.dtype not in _NAMES:
            raise ModelError(
                f"{entry.name} is of the type {entry.dtype}; known are {', '.join(map(str, _NAMES))}. Pass dtype=."
            )
        described[entry.name] = {
            "dtype": _NAMES[entry.dtype],
            "shape": list(entry.shape),
            "data_offsets": [at, at + entry.nbytes],
        }
        at += entry.nbytes
    text = json.dumps(described, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text


def _write(file: BinaryIO, entry: Entry, coming: Iterator[tuple[str, Tensor]]) -> None:
    name, tensor = next(coming, ("nothing", torch.empty(0)))
    if (name, tuple(tensor.shape)) != (entry.name, entry.shape):
        raise ModelError(
            f"expected the tensor {entry.name} of shape {entry.shape}; {name} of shape {tuple(tensor.shape)} came. "
            "Did the files change in the meantime?"
        )
    flat = tensor.detach().to(entry.dtype).contiguous().flatten()
    flat.view(torch.uint8).numpy().tofile(file)
