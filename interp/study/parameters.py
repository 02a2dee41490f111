"""In what the methods of a grid differ, as columns of numbers and words."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

__all__ = ["numeric_pair", "varied"]


def varied(cells: Sequence[tuple[Mapping[str, str], Mapping[str, Any]]]) -> pd.DataFrame:
    """One row per cell: its labels, and those parameters of its method that differ between cells.

    Heads that differ are `k`, their number. What is no number, text or None is written as JSON; a parameter that
    only some methods have is None for the others.

    Args:
        cells: Each cell's labels and its method as JSON values.
    """
    flat = [_flat(method) for _, method in cells]
    names = dict.fromkeys(name for method in flat for name in method)
    taken = cells[0][0]
    differ = [
        name
        for name in names
        if name not in taken and len({json.dumps(method.get(name)) for method in flat}) > 1
    ]
    rows = [
        {**labels, **{name: method.get(name) for name in differ}}
        for (labels, _), method in zip(cells, flat, strict=True)
    ]
    return pd.DataFrame(rows)


def numeric_pair(parameters: pd.DataFrame, axes: Sequence[str]) -> tuple[str, str] | None:
    """The two numbers in which the methods differ, where these are all they differ in; else None."""
    own = [str(name) for name in parameters.columns if name not in axes]
    if len(own) != 2 or not all(pd.api.types.is_numeric_dtype(parameters[name]) for name in own):
        return None
    return (own[0], own[1]) if not parameters[own].isna().to_numpy().any() else None


def _flat(method: Mapping[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in method.items():
        if name == "heads":
            found["k"] = len(value)
        else:
            found[name] = value if isinstance(value, int | float | str | None) else json.dumps(value)
    return found
