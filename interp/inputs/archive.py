"""Values with arrays in one file that holds no code: a safetensors file whose header says how they fit together.

    write("maps.safetensors", "maps", {"arrays": [xr.DataArray(…)], "note": "text"})
    read("maps.safetensors", "maps")

Texts, numbers, None, lists, tuples (which come back as lists), dictionaries with text keys, numpy arrays and labelled
arrays can be stored. An array of texts is kept in the header. `token_record` turns a map of tokens or patches into such
values, and `token_map` reads them.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from interp.errors import MapError
from interp.inputs.files import as_path, unreadable, write_atomically
from interp.inputs.footprints import CrossKeys
from interp.inputs.patch_map import PatchMap, PatchWeights
from interp.inputs.text import brief
from interp.inputs.tokens import TokenMap

__all__ = ["SAVE_ADVICE", "read", "token_map", "token_record", "write"]


FORMAT = "interp"
VERSION = 1
SAVE_ADVICE = (
    'save(path) writes the {what} to a file; got no path. Write .save("{what}.safetensors"). To keep a value '
    "inside an nnsight trace, write nnsight.save(value)."
)
OTHER = (
    "The file has the format safetensors; for another write the arrays, such as numpy.savez(path, maps[0])."
)
ARRAY, TEXTS, LABELLED = "$array", "$texts", "$labelled"


_PLAIN = ("image", "footprints", "views", "image_index", "frames", "frame_times")


def write(path: str | os.PathLike[str], kind: str, content: Any) -> Path:
    """Writes the content, whole or not at all, and returns the path.

    Args:
        path: The file.
        kind: What it holds, such as "maps"; `read` asks for the same.
        content: What is stored.

    Raises:
        RunError: The file cannot be written.
        MapError: A value that is none of the kinds above.
    """
    arrays: dict[str, np.ndarray] = {}
    target = as_path("path", path, endings=(".safetensors",), what=OTHER)
    said = json.dumps(_packed(content, arrays), ensure_ascii=False)
    header = {"format": f"{FORMAT} {kind}", "version": str(VERSION), "content": said}
    write_atomically(target, save(arrays, metadata=header))
    return target


def read(path: str | os.PathLike[str], kind: str) -> Any:
    """Returns what `write` stored.

    Raises:
        MapError: No such file, or one that is damaged, of another kind or of a later version.
    """
    target = as_path("path", path)
    if problem := unreadable(target):
        raise MapError(f"{brief(os.fspath(target))} {problem}")
    try:
        with safe_open(target, framework="numpy") as file:
            header = file.metadata() or {}
            _check(target, kind, header)
            arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 – it is no dict
        return _unpacked(json.loads(header["content"]), arrays)
    except (SafetensorError, OSError, LookupError, TypeError, ValueError) as error:
        if isinstance(error, MapError):
            raise
        raise MapError(
            f"{brief(os.fspath(target))} is no file of {kind}, or it is damaged ({brief(str(error))}). Read a file "
            f"that .save(path) wrote, whole."
        ) from error


def _check(path: Path, kind: str, header: Mapping[str, str]) -> None:
    """Raises `MapError` for a file of another kind or version."""
    found = header.get("format", "")
    if found != f"{FORMAT} {kind}":
        what = f"{found.removeprefix(FORMAT).strip()}" if found.startswith(f"{FORMAT} ") else "something else"
        known = what in ("maps", "trace", "steering_vector")
        advice = f"Read it with interp.load_{what}." if known else "Name another file."
        raise MapError(
            f"expected a file of {kind}, got {brief(os.fspath(path))}, which holds {what}. {advice}"
        )
    if header.get("version") != str(VERSION):
        raise MapError(
            f"expected {kind} in version {VERSION} of the file format, got version {header.get('version')} in "
            f"{brief(os.fspath(path))}. Read it with the version of interp that wrote it, or a later one."
        )


def _packed(value: Any, arrays: dict[str, np.ndarray]) -> Any:
    """The value as JSON; its arrays are added to `arrays` and named in their place."""
    if isinstance(value, xr.DataArray):
        return {LABELLED: _packed(_parts(value), arrays)}
    if isinstance(value, np.ndarray):
        if value.dtype.kind not in "biuf":
            return {TEXTS: value.astype(str).tolist()}
        name = f"array {len(arrays)}"
        arrays[name] = np.ascontiguousarray(value).reshape(value.shape)
        return {ARRAY: name}
    if isinstance(value, Mapping):
        return {str(name): _packed(one, arrays) for name, one in value.items()}
    if isinstance(value, list | tuple):
        return [_packed(one, arrays) for one in value]
    if isinstance(value, np.generic):
        return value.item()
    if value is None or isinstance(value, str | bool | int | float):
        return value
    raise MapError(
        f"a file stores texts, numbers, arrays and lists of them; got {brief(value)}. Leave it out, or turn it into "
        "one of these."
    )


def _unpacked(value: Any, arrays: Mapping[str, np.ndarray]) -> Any:
    """What `_packed` was given."""
    if isinstance(value, list):
        return [_unpacked(one, arrays) for one in value]
    if not isinstance(value, dict):
        return value
    if set(value) == {ARRAY}:
        return arrays[value[ARRAY]]
    if set(value) == {TEXTS}:
        return np.array(value[TEXTS], np.str_)
    if set(value) == {LABELLED}:
        return _labelled(_unpacked(value[LABELLED], arrays))
    return {name: _unpacked(one, arrays) for name, one in value.items()}


def _parts(array: xr.DataArray) -> dict[str, Any]:
    """A labelled array as plain values; a dimension with several levels, such as (layer, head) pairs, by its levels."""
    levels = {
        str(dim): [str(name) for name in array.indexes[dim].names]
        for dim in array.dims
        if dim in array.indexes and array.indexes[dim].nlevels > 1
    }
    flat = array.reset_index(list(levels)) if levels else array
    coords = {str(name): [list(map(str, one.dims)), one.values] for name, one in flat.coords.items()}
    return {
        "values": array.values,
        "dims": list(map(str, array.dims)),
        "name": None if array.name is None else str(array.name),
        "attrs": dict(array.attrs),
        "coords": coords,
        "levels": levels,
    }


def _labelled(parts: Mapping[str, Any]) -> xr.DataArray:
    """The array of which these are the `_parts`."""
    coords = {name: (tuple(dims), values) for name, (dims, values) in parts["coords"].items()}
    found = xr.DataArray(
        parts["values"], coords, tuple(parts["dims"]), name=parts["name"], attrs=parts["attrs"]
    )
    return found.set_index(parts["levels"]) if parts["levels"] else found


def token_record(tokens: TokenMap) -> dict[str, Any]:
    """A map of tokens, or of patches, as numbers, texts and arrays; `token_map` reads it."""
    cross = tokens.cross
    return {
        **{name: getattr(tokens, name) for name in _PLAIN},
        "grid": tokens.grid,
        "sizes": tokens.sizes,
        "length": tokens.length,
        "spans": dict(tokens.spans),
        "words": tokens.words,
        "cross": None
        if cross is None
        else {"placeholders": cross.placeholders, "blocks": cross.blocks, "width": cross.width},
        "patches": _of_patches(tokens) if isinstance(tokens, PatchMap) else None,
    }


def token_map(record: Mapping[str, Any]) -> TokenMap:
    """Returns the map that `token_record` described.

    Raises:
        ImageTokenMismatch, MapError: Values that do not fit each other.
    """
    own = record["patches"]
    cross = None if record["cross"] is None else CrossKeys(**record["cross"])
    grid = None if record["grid"] is None else (int(record["grid"][0]), int(record["grid"][1]))
    found = (TokenMap if own is None else PatchMap)(
        **{name: record[name] for name in _PLAIN},
        grid=grid,
        sizes=tuple((int(width), int(height)) for width, height in record["sizes"]),
        length=record["length"],
        spans=record["spans"],
        words=tuple((text, tuple(at)) for text, at in record["words"]),
        cross=cross,
    )
    if own is not None:
        weights = PatchWeights(own["token"], own["patch"], own["weight"], (own["shape"][0], own["shape"][1]))
        parts = {name: own[name] for name in ("sequence", "slots")}
        padded = bool(own.get("padded", False))  # files of earlier versions do not say
        for name, value in {**parts, "weights": weights, "padded": padded}.items():
            object.__setattr__(found, name, value)
    return found


def _of_patches(patches: PatchMap) -> dict[str, Any]:
    weights = patches.weights
    arrays: dict[str, np.ndarray] = {"token": weights.token, "patch": weights.patch, "weight": weights.weight}
    return {
        **arrays,
        "shape": weights.shape,
        "sequence": patches.sequence,
        "slots": patches.slots,
        "padded": patches.padded,
    }
