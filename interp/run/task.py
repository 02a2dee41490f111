"""The interface of a task for the runner: what its process keeps, and the outcome of a micro-batch.

An outcome's rows are dictionaries, or `Columns` where one dictionary per row would cost more than the numbers in it.

A process keeps values in memory only: from the task that made a value to the tasks that compute the same micro-batch
after it. So nothing has to outlive a kill or travel between processes.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeAlias, TypeVar, overload, runtime_checkable

import numpy as np
import pyarrow as pa

from interp.inputs.text import storable
from interp.run.plan import Plan

__all__ = [
    "BUDGET",
    "FAILURES",
    "FAILURE_SCHEMA",
    "UNDEFINED",
    "Columns",
    "Outcome",
    "Portable",
    "Preparing",
    "ProcessCache",
    "Records",
    "Sharing",
    "TableRows",
    "Task",
    "Watched",
    "failure",
    "joined_rows",
    "table_of",
]


FAILURES = "failures"
UNDEFINED = "undefined"
"""The error of a single value that is undefined for a sample which was measured: no failure."""

FAILURE_SCHEMA = pa.schema(
    [
        ("index", pa.int64()),
        ("sample", pa.string()),
        ("group", pa.string()),
        ("layer", pa.int32()),
        ("metric", pa.string()),
        ("control", pa.string()),
        ("error", pa.string()),
        ("reason", pa.string()),
    ]
)
"""One row for each thing that could not be measured. `layer`, `metric` and `control` are null when the whole
sample failed."""


Records: TypeAlias = Sequence[Mapping[str, Any]]
TableRows: TypeAlias = Mapping[str, Records]
"""Table name → its rows, as dictionaries or as `Columns`."""


@dataclass(frozen=True)
class Outcome:
    """The rows of a micro-batch by table name (each row holds its sample's `index`) and their cost."""

    rows: TableRows
    cost: Mapping[str, float] = field(default_factory=dict)


@runtime_checkable
class Task(Protocol):
    """Work over numbered samples. Two tasks with equal `to_dict()` must give equal rows."""

    name: str

    def to_dict(self) -> dict[str, Any]:
        """Returns everything that the numbers depend on, as JSON; its hash names the run's folder."""
        ...

    def provenance(self) -> dict[str, Any]:
        """Returns information for readers that the numbers do not depend on (ids, names)."""
        ...

    def schemas(self) -> Mapping[str, pa.Schema]:
        """Returns the schemas of a shard's tables, without the failures; each has an int64 column `index`."""
        ...

    def joined(self) -> tuple[str, ...]:
        """Returns the tables that are small enough to join over all shards; `RunFolder.find` reads the others."""
        ...

    def plan(self) -> Plan:
        """Returns the shards and their micro-batches."""
        ...

    def identity(self, index: int) -> tuple[str, str]:
        """Returns the id and the group of a sample; must not raise."""
        ...

    def compute(self, indices: tuple[int, ...]) -> Outcome:
        """Returns the rows of one micro-batch; an `InterpError` means that one of its samples cannot be used."""
        ...


@runtime_checkable
class Watched(Protocol):
    """A task that depends on something that may change while it runs, such as an opened model."""

    def check_unchanged(self) -> None:
        """Raises a `RunError` if it is no longer what the run's folder is named for."""
        ...


@runtime_checkable
class Preparing(Protocol):
    """A task part of whose work on a micro-batch can be done before it is computed, by another thread."""

    def preparer(self, threads: int) -> Callable[[tuple[int, ...]], None]:
        """Returns a function that prepares a micro-batch; `compute` then finds what it left.

        Args:
            threads: How many threads will call it at the same time.
        """
        ...


@runtime_checkable
class Portable(Protocol):
    """A task that other processes compute, perhaps on other devices and on other machines."""

    @property
    def device(self) -> str:
        """The device that its model takes, such as "cuda:0"."""
        ...

    def move(self, device: str) -> None:
        """Opens the model on this device, which is of the same type; called before anything is computed."""
        ...

    def check_inputs(self, indices: Sequence[int]) -> None:
        """Raises a `RunError` if a file of these samples is not here, or not what it was when the run was planned."""
        ...


@runtime_checkable
class Sharing(Protocol):
    """A task that reads values from its process's cache and stores there what other tasks may need."""

    @property
    def sharing_key(self) -> str:
        """The sharing key. Tasks with equal keys have equal plans; each micro-batch is computed for all of them."""
        ...

    def use(self, shelf: ProcessCache) -> None:
        """Uses this cache from now on. Its content changes the cost of a task, never its rows."""
        ...


def failure(
    task: Task,
    index: int,
    error: str,
    reason: str,
    *,
    layer: int | None = None,
    metric: str | None = None,
    control: str | None = None,
) -> dict[str, Any]:
    """Returns one row of the failures table."""
    sample, group = task.identity(index)
    place = {"layer": layer, "metric": metric, "control": control}
    return {
        "index": index,
        "sample": sample,
        "group": group,
        **place,
        "error": error,
        "reason": storable(reason),
    }


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


T = TypeVar("T")

BUDGET = 4 * 2**30
"""The most bytes that the kept values take together. An image prefix of a 7B model takes about 300 MB per sample
at 576 image tokens in 16 bits, so this holds that of one micro-batch of 8, and of several for smaller models."""


class ProcessCache:
    """One opened model, and values by key: least recently used out first, never more than `budget` bytes.

    A key must say all that its value depends on, because a task uses the value it finds as if it were its own.
    """

    def __init__(self, budget: int = BUDGET) -> None:
        self.budget = budget
        self._values: OrderedDict[str, tuple[Any, int]] = OrderedDict()
        self._model: tuple[Any, Any] | None = None

    @property
    def n_bytes(self) -> int:
        """The bytes that the kept values take."""
        return sum(size for _, size in self._values.values())

    def model(self, key: Any, load: Callable[[], T]) -> T:
        """Returns the model of this key; the model kept before is released before this one is loaded."""
        if self._model is None or self._model[0] != key:
            self._model = None
            self.clear()
            self._model = key, load()
        return self._model[1]

    def once(self, key: str, make: Callable[[], T], size: Callable[[T], int]) -> tuple[T, bool]:
        """Returns the value of this key, made by `make` if it is not kept yet, and whether it was kept.

        A value larger than the budget is not kept. When `make` raises, nothing changes.
        """
        if key in self._values:
            self._values.move_to_end(key)
            return self._values[key][0], True
        value = make()
        taken = size(value)
        if taken <= self.budget:
            self._values[key] = value, taken
            while self.n_bytes > self.budget:
                self._values.popitem(last=False)
        return value, False

    def clear(self) -> bool:
        """Releases the values, but not the model. Returns whether there were any."""
        held = bool(self._values)
        self._values.clear()
        return held
