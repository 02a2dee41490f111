"""Maps of tokens and patches as plain values, for files that hold no code."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from interp.inputs.cross_keys import CrossKeys
from interp.inputs.patch_map import PatchMap, PatchWeights
from interp.inputs.tokens import TokenMap

__all__ = ["token_map", "token_record"]

_PLAIN = ("image", "footprints", "views", "image_index", "frames", "frame_times")


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
        for name, value in (("sequence", own["sequence"]), ("slots", own["slots"]), ("weights", weights)):
            object.__setattr__(found, name, value)
    return found


def _of_patches(patches: PatchMap) -> dict[str, Any]:
    weights = patches.weights
    arrays: dict[str, np.ndarray] = {"token": weights.token, "patch": weights.patch, "weight": weights.weight}
    return {**arrays, "shape": weights.shape, "sequence": patches.sequence, "slots": patches.slots}
