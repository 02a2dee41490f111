"""What methods cost, over what the plain model cost on the same samples."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from interp.study.cells import GridCell
from interp.study.refinement_task import SPENT

__all__ = ["costs"]


def costs(cells: Sequence[GridCell]) -> pd.DataFrame:
    """One row per cell: `plain_…`, `method_…` and `…_ratio` of seconds, forwards, backwards and tokens.

    Each is what it takes alone: image prefixes that cells of a grid share are counted for each that uses them. A
    ratio is NaN where the plain model spent nothing, as of backward passes.
    """
    rows = []
    for cell in cells:
        total = cell.folder.read_json("cost.json", {}).get("total", {})
        row: dict[str, object] = dict(cell.labels)
        for name in SPENT:
            plain, own = (float(total.get(f"{side}_{name}", float("nan"))) for side in ("plain", "method"))
            row |= {f"plain_{name}": plain, f"method_{name}": own}
            row[f"{name}_ratio"] = own / plain if plain else float("nan")
        rows.append(row)
    return pd.DataFrame(rows)
