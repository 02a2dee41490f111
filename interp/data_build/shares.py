"""Shares of modality and body region of samples, and of the paper's 44 source sets (figure 2b)."""

from __future__ import annotations

from collections import Counter

import pandas as pd

from interp.data.build import SOURCES, body_region, modality
from interp.data.samples import Samples

__all__ = ["OF", "PAPER", "shares_of", "shares_of_sources"]

PAPER = "VGMED's 44 source sets"
OF = {"modality": modality, "region": body_region}
"""What is counted, and how it is read from a sample."""


def shares_of(samples: Samples, name: str) -> pd.DataFrame:
    """Returns one row a value of modality or region, the most frequent first.

    Args:
        samples: At least one sample.
        name: What the column `data` says.

    Returns:
        Columns data, of ("modality" or "region"), value, n (samples) and share in (0, 1], which add up to 1 in each.
    """
    rows = []
    for kind, of in OF.items():
        counts = Counter(of(sample) for sample in samples)
        rows += [_row(name, kind, value, n, n / len(samples)) for value, n in counts.items()]
    return _sorted(rows)


def shares_of_sources() -> pd.DataFrame:
    """Returns the same of the 44 source sets: n is the number of sets; a set of k modalities counts 1/k for each."""
    rows = []
    for kind, field in (("modality", "modalities"), ("region", "regions")):
        sets: Counter[str] = Counter()
        weights: dict[str, float] = {}
        for source in SOURCES:
            values = getattr(source, field)
            sets.update(values)
            for value in values:
                weights[value] = weights.get(value, 0.0) + 1 / len(values)
        rows += [_row(PAPER, kind, value, n, weights[value] / len(SOURCES)) for value, n in sets.items()]
    return _sorted(rows)


def _row(data: str, of: str, value: str, n: int, share: float) -> dict[str, object]:
    return {"data": data, "of": of, "value": value, "n": n, "share": share}


def _sorted(rows: list[dict[str, object]]) -> pd.DataFrame:
    return pd.DataFrame(rows).sort_values(
        ["of", "share", "value"], ascending=[True, False, True], ignore_index=True
    )
