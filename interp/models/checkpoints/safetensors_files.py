"""Writes safetensors files tensor by tensor: first the header, from shapes alone, then each tensor."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import BinaryIO

import torch
from torch import Tensor

from interp.errors import ModelError

__all__ = ["Entry", "cut", "write_shards"]

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
