"""The interface of a task for the runner, and the outcome of one of its micro-batches."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

import pyarrow as pa

from interp.inputs.text import storable
from interp.run.cache import ProcessCache
from interp.run.columns import TableRows
from interp.run.plan import Plan

__all__ = [
    "FAILURES",
    "FAILURE_SCHEMA",
    "UNDEFINED",
    "Outcome",
    "Portable",
    "Preparing",
    "Sharing",
    "Task",
    "Watched",
    "failure",
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
