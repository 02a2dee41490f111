"""Columns that the tables of several studies share."""

from __future__ import annotations

import pyarrow as pa

__all__ = ["NAME", "SAMPLE_FIELDS"]

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
