"""Records as columns: what a task gives when one dictionary per row would cost more than the numbers in it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, TypeAlias, overload

import numpy as np
import pyarrow as pa

__all__ = ["Columns", "Records", "TableRows", "joined_rows", "table_of"]


class Columns(Sequence[Mapping[str, Any]]):
    """A table's rows, held as one array or list per column. As a sequence it is the rows, each a dictionary.

    Args:
        values: Column → its values, all of one length.

    Raises:
        ValueError: Columns of different lengths.
    """

    def __init__(self, values: Mapping[str, np.ndarray | list[Any]]) -> None:
        self.values = dict(values)
        lengths = {name: len(column) for name, column in self.values.items()}
        if len(set(lengths.values())) > 1:
            raise ValueError(f"columns have one length; got {lengths}")
        self._n = next(iter(lengths.values()), 0)

    def __len__(self) -> int:
        return self._n

    @overload
    def __getitem__(self, at: int) -> Mapping[str, Any]: ...

    @overload
    def __getitem__(self, at: slice) -> Columns: ...

    def __getitem__(self, at: int | slice) -> Mapping[str, Any] | Columns:
        if isinstance(at, slice):
            return Columns({name: column[at] for name, column in self.values.items()})
        row = {name: column[at] for name, column in self.values.items()}
        return {name: one.item() if isinstance(one, np.generic) else one for name, one in row.items()}

    def __iter__(self) -> Iterator[Mapping[str, Any]]:
        return (self[at] for at in range(len(self)))

    def table(self, schema: pa.Schema) -> pa.Table:
        """The rows as a table; columns that are absent are null, others than the schema's are left out."""
        arrays = [
            pa.array(self.values[field.name], field.type)
            if field.name in self.values
            else pa.nulls(len(self), field.type)
            for field in schema
        ]
        return pa.Table.from_arrays(arrays, schema=schema)


Records: TypeAlias = Sequence[Mapping[str, Any]]
TableRows: TypeAlias = Mapping[str, Records]
"""Table name → its rows, as dictionaries or as `Columns`."""


def joined_rows(parts: Iterable[Records]) -> Records:
    """The rows of all parts in order; `Columns` where each part with rows is of the same columns."""
    given = [part for part in parts if len(part)]
    columns = [part.values for part in given if isinstance(part, Columns)]
    if not columns or len(columns) < len(given) or any(one.keys() != columns[0].keys() for one in columns):
        return [row for part in given for row in part]
    return Columns({name: _joined([one[name] for one in columns]) for name in columns[0]})


def _joined(parts: Sequence[np.ndarray | list[Any]]) -> np.ndarray | list[Any]:
    if all(isinstance(part, np.ndarray) for part in parts):
        return np.concatenate(parts)
    return [value for part in parts for value in part]


def table_of(rows: Records, schema: pa.Schema) -> pa.Table:
    """The rows as a table, sorted by the column `index`; rows of one sample keep their order."""
    table = (
        rows.table(schema) if isinstance(rows, Columns) else pa.Table.from_pylist(list(rows), schema=schema)
    )
    order = np.argsort(table.column("index").to_numpy(), kind="stable")
    if np.array_equal(order, np.arange(len(order))):
        return table
    return table.take(order)
