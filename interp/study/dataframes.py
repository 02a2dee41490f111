"""Frames and tables of studies: rows by their labels, and the columns that several tables share."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import pandas as pd
import pyarrow as pa

__all__ = ["NAME", "SAMPLE_FIELDS", "below", "records", "rows_of", "where"]


def where(frame: pd.DataFrame, keep: Any) -> pd.DataFrame:
    """The rows for which a boolean series is true."""
    return frame[keep]  # pyright: ignore[reportReturnType]


def rows_of(frame: pd.DataFrame, labels: Mapping[str, str]) -> pd.DataFrame:
    """The rows that carry these labels."""
    keep = pd.Series(True, index=frame.index)
    for axis, label in labels.items():
        keep &= frame[axis] == label
    return where(frame, keep)


def records(frame: pd.DataFrame) -> list[dict[str, Any]]:
    """Each row as a dict."""
    return [{str(name): value for name, value in row.items()} for row in frame.to_dict("records")]


def below(frames: Iterable[pd.DataFrame]) -> pd.DataFrame:
    """Frames below one another; the dtypes of empty ones do not count, and categories become text."""
    parts = list(frames)
    full = [part for part in parts if len(part)] or parts[:1]
    joined = pd.concat(full, ignore_index=True)
    texts: dict[Any, Any] = {name: str for name in joined.columns if joined[name].dtype == "category"}
    return joined.astype(texts)


NAME = pa.dictionary(pa.int32(), pa.string())
"""A column of few different names."""

SAMPLE_FIELDS = (
    ("index", pa.int64()),
    ("sample", pa.string()),
    ("group", pa.string()),
    ("question", pa.string()),
    ("answer", pa.string()),
)
"""The first columns of a table of one row a sample: its place in the data, its id, its group, what it asks."""
