"""Where a sample's image tokens lie, from what a run stored."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from interp.study.cells import GridCell
    from interp.tokens import TokenMap

__all__ = ["stored_tokens"]


def stored_tokens(cell: GridCell, index: int) -> TokenMap:
    """The image tokens of one sample of a run whose samples table holds footprints (text positions are not stored)."""
    from interp.tokens import TokenMap

    row = cell.folder.read_table("samples").to_pandas().set_index("index").loc[index]
    footprints = np.asarray(row["footprints"], float).reshape(-1, 4)
    n = len(footprints)
    sizes = tuple(cell.study.data[index].sizes)
    return TokenMap(np.arange(n), footprints, None, np.full(n, "stored"), row["image_index"], sizes, n)
