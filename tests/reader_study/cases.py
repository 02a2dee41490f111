"""Small samples and maps for reader studies, and files as readers would save them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from interp.data import Samples
from interp.indicators import Maps
from interp.inputs.footprints import squash
from interp.inputs.sample import Sample
from interp.inputs.tokens import TokenMap
from interp.reader_study import Key
from interp.tracing import Cost

SIZE, GRID = (48, 36), (3, 4)


def cases(n: int, **changes: Any) -> Samples:
    """Samples of one small random image each, in a group each."""
    rng = np.random.default_rng(0)
    return Samples(
        [
            Sample(
                rng.integers(0, 255, (SIZE[1], SIZE[0], 3), dtype=np.uint8),
                f"question {i}?",
                boxes=[(4, 4, 20, 20)],
                **{"group": f"patient {i}", "id": f"secret-{i}", **changes},
            )
            for i in range(n)
        ],
        "cases",
    )


def tokens(grid: tuple[int, int] = GRID) -> TokenMap:
    """Tokens over such an image."""
    found = squash(SIZE, grid)
    n = len(found)
    return TokenMap(np.arange(n), found.boxes, grid, found.views, found.image, (SIZE,), n)


def maps(n: int, seed: int, grid: tuple[int, int] = GRID, power: float = 1.0) -> Maps:
    """Random maps of `n` such samples."""
    rng = np.random.default_rng(seed)
    arrays = tuple(xr.DataArray(rng.random(grid[0] * grid[1]) ** power, dims=["token"]) for _ in range(n))
    return Maps(arrays, (tokens(grid),) * n, Cost())


def answer_file(path: Path, key: Key, reader: str, chosen: Mapping[str, str], **changes: Any) -> Path:
    """The file of one reader: item → "A", "B" or "tie"."""
    answers = [{"item": item, "values": {"choice": side}} for item, side in chosen.items()]
    record = {
        "format": "interp reader study",
        "version": 1,
        "form": key.form,
        "by": reader,
        "answers": answers,
    }
    path.write_text(json.dumps(record | changes))
    return path


def prefers(key: Key, condition: str) -> dict[str, str]:
    """Item → the side on which the condition is."""
    return {one.item: "A" if one.a == condition else "B" for one in key.items}
