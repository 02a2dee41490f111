"""Computing one shard: its micro-batches, its account, its sealed tables."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from interp.run.attempt import Splits, attempt
from interp.run.plan import Plan
from interp.run.sessions import Ledger, sum_costs
from interp.run.store import RunFolder
from interp.run.task import FAILURE_SCHEMA, FAILURES, Outcome, Task

__all__ = ["Job", "schemas_of"]


def schemas_of(task: Task) -> dict[str, pa.Schema]:
    """The tables of a shard, with the failures."""
    return {**task.schemas(), FAILURES: FAILURE_SCHEMA}


@dataclass(frozen=True)
class Job:
    """A task and the folder it fills. Travels to worker processes."""

    task: Task
    folder: RunFolder

    @property
    def plan(self) -> Plan:
        """The task's plan."""
        return self.task.plan()

    def finished(self, shard: int) -> bool:
        """Whether a shard is whole and speaks of every sample planned for it, and of no other."""
        tables = self.folder.read_shard(shard, schemas_of(self.task))
        if tables is None:
            return False
        seen = {index for table in tables.values() for index in table.column("index").to_pylist()}
        return seen == set(self.plan.indices(shard))

    def compute(self, shard: int, ledger: Ledger) -> None:
        """Compute and store one shard, unless another run on this folder has done so meanwhile."""
        if self.finished(shard):
            return
        start = time.perf_counter()
        schemas = schemas_of(self.task)
        rows: dict[str, list[Mapping[str, Any]]] = {name: [] for name in schemas}
        cost: dict[str, float] = {}
        splits: Splits = []
        for batch in self.plan.shards[shard]:
            outcome = self._attempt(shard, batch, splits)
            for name, more in outcome.rows.items():
                rows[name].extend(more)
            cost = sum_costs([cost, outcome.cost])
        tables = {name: _table(rows[name], schemas[name]) for name in schemas}
        ledger.add(shard, {**cost, "wall_seconds": time.perf_counter() - start}, splits)
        self.folder.write_shard(shard, tables)

    def _attempt(self, shard: int, batch: tuple[int, ...], splits: Splits) -> Outcome:
        try:
            return attempt(self.task, batch, splits)
        except Exception as error:
            ids = ", ".join(self.task.identity(index)[0] for index in batch)
            error.add_note(
                f"in run {self.folder.path}, shard {shard}, samples {list(batch)} (ids {ids}). Finished shards "
                f"are kept: run again to resume."
            )
            raise


def _table(rows: list[Mapping[str, Any]], schema: pa.Schema) -> pa.Table:
    """Rows by sample; those of one sample stay in the order they were computed."""
    ordered = sorted(rows, key=lambda row: row["index"])
    return pa.Table.from_pylist([dict(row) for row in ordered], schema=schema)
