"""What the runner asks of a piece of work, and what a micro-batch of it gives back."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

import pyarrow as pa

from interp.run.cache import Shelf
from interp.run.plan import Plan

__all__ = ["FAILURES", "FAILURE_SCHEMA", "Outcome", "Sharing", "Task", "failure"]

FAILURES = "failures"

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
    """Rows of a micro-batch by table name (each row names its sample's `index`), and what they cost."""

    rows: Mapping[str, Sequence[Mapping[str, Any]]]
    cost: Mapping[str, float] = field(default_factory=dict)


@runtime_checkable
class Task(Protocol):
    """A piece of work over numbered samples. Two tasks with equal `to_dict()` must give equal rows."""

    name: str

    def to_dict(self) -> dict[str, Any]:
        """Everything the numbers depend on, as JSON; its hash names the run's folder."""
        ...

    def provenance(self) -> dict[str, Any]:
        """What a reader wants to know but the numbers do not depend on (ids, names)."""
        ...

    def schemas(self) -> Mapping[str, pa.Schema]:
        """The tables of a shard, without the failures; each has an int64 column `index`."""
        ...

    def joined(self) -> tuple[str, ...]:
        """The tables small enough to be joined over all shards; the others are read with `RunFolder.find`."""
        ...

    def plan(self) -> Plan:
        """The shards and their micro-batches."""
        ...

    def identity(self, index: int) -> tuple[str, str]:
        """The id and the group of a sample; must not raise."""
        ...

    def compute(self, indices: tuple[int, ...]) -> Outcome:
        """Rows of one micro-batch; an `InterpError` says that some sample of it cannot be used."""
        ...


@runtime_checkable
class Sharing(Protocol):
    """A task that uses what its process has on a shelf, and leaves there what other tasks may need."""

    @property
    def kin(self) -> str:
        """Tasks of equal kin have equal plans; each micro-batch is computed for all of them in turn."""
        ...

    def use(self, shelf: Shelf) -> None:
        """Compute with this shelf from now on. What is on it changes what a task costs, never its rows."""
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
    """One row of the failures table."""
    sample, group = task.identity(index)
    place = {"layer": layer, "metric": metric, "control": control}
    return {"index": index, "sample": sample, "group": group, **place, "error": error, "reason": reason}
