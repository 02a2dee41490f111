"""Computes one shard of one or several jobs: their micro-batches in turn, their costs, their tables."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import pyarrow as pa

from interp.run.ahead import Ahead
from interp.run.cache import ProcessCache
from interp.run.columns import Records, joined_rows, table_of
from interp.run.memory import Splits, compute_batch
from interp.run.plan import Plan
from interp.run.sessions import Ledger, sum_costs
from interp.run.store import RunFolder
from interp.run.task import FAILURE_SCHEMA, FAILURES, Outcome, Sharing, Task, Watched

__all__ = ["Job", "compute_shard", "finished", "schemas_of"]


def schemas_of(task: Task) -> dict[str, pa.Schema]:
    """Returns the schemas of a shard's tables, failures included."""
    return {**task.schemas(), FAILURES: FAILURE_SCHEMA}


def finished(folder: RunFolder, plan: Plan, schemas: Mapping[str, pa.Schema], shard: int) -> bool:
    """Whether a shard is complete and holds exactly the samples planned for it."""
    tables = folder.read_shard(shard, schemas)
    if tables is None:
        return False
    seen = {index for table in tables.values() for index in table.column("index").to_pylist()}
    return seen == set(plan.indices(shard))


@dataclass(frozen=True)
class Job:
    """A task with its folder and its session. It is pickled for worker processes."""

    task: Task
    folder: RunFolder
    session: str
    loaders: int = 0

    def use(self, shelf: ProcessCache) -> None:
        """Gives the task the cache, if the task can use one."""
        if isinstance(self.task, Sharing):
            self.task.use(shelf)


def compute_shard(
    jobs: Sequence[tuple[Job, Ledger]],
    shard: int,
    shelf: ProcessCache,
    ahead: Ahead | None = None,
    following: Sequence[tuple[int, ...]] = (),
) -> None:
    """Computes and stores one shard of jobs of one plan; jobs whose shard another process has stored are skipped.

    Each micro-batch is computed for all jobs before the next one; then the values that they share are dropped.

    Args:
        jobs: The jobs, each with this process's record of it.
        shard: The shard.
        shelf: What the jobs share.
        ahead: What prepares micro-batches and writes shards; it may still be writing this one afterwards. By default
            a new one, which prepares as the jobs say and has written when this ends.
        following: The micro-batches that are computed next.

    Raises:
        RunError: What the jobs depend on, which is the same for all of them, changed meanwhile. Nothing is stored.
    """
    if ahead is None:
        with Ahead(jobs[0][0].loaders) as own:
            compute_shard(jobs, shard, shelf, own)
        return
    plan = jobs[0][0].task.plan()
    drafts = [
        _Draft(job, shard, ledger)
        for job, ledger in jobs
        if not finished(job.folder, plan, schemas_of(job.task), shard)
    ]
    batches = plan.shards[shard] if drafts else ()
    coming = [*batches, *following]
    for number, batch in enumerate(batches):
        ahead.start(jobs[0][0].task, coming[number : number + 1 + ahead.loaders])
        for draft in drafts:
            draft.add(batch, shelf.clear, ahead)
        shelf.clear()
    if drafts:
        drafts[0].check_unchanged()
    for draft in drafts:
        draft.store(ahead)


class _Draft:
    """One job's shard during its computation."""

    def __init__(self, job: Job, shard: int, ledger: Ledger) -> None:
        self._job, self._shard, self._ledger = job, shard, ledger
        self._schemas = schemas_of(job.task)
        self._rows: dict[str, list[Records]] = {name: [] for name in self._schemas}
        self._cost: dict[str, float] = {}
        self._splits: Splits = []
        self._seconds = 0.0

    def add(self, batch: tuple[int, ...], free_cache: Callable[[], bool], ahead: Ahead) -> None:
        """Computes a micro-batch, once it is prepared."""
        start = time.perf_counter()
        outcome = self._attempt(batch, free_cache, ahead)
        for name, more in outcome.rows.items():
            self._rows[name].append(more)
        self._cost = sum_costs([self._cost, outcome.cost])
        self._seconds += time.perf_counter() - start

    def check_unchanged(self) -> None:
        """Raises a `RunError` if the job's numbers are no longer of what its folder is named for."""
        if isinstance(self._job.task, Watched):
            self._job.task.check_unchanged()

    def store(self, ahead: Ahead) -> None:
        """Records the cost of the shard and then stores the shard, at once or behind the computation."""
        start = time.perf_counter()
        tables = {name: table_of(joined_rows(self._rows[name]), one) for name, one in self._schemas.items()}
        self._seconds += time.perf_counter() - start
        self._ledger.add(self._shard, {**self._cost, "wall_seconds": self._seconds}, self._splits)
        ahead.write(partial(self._job.folder.write_shard, self._shard, tables))

    def _attempt(self, batch: tuple[int, ...], free_cache: Callable[[], bool], ahead: Ahead) -> Outcome:
        task = self._job.task
        try:
            ahead.wait(batch)
            return compute_batch(task, batch, self._splits, free_cache)
        except Exception as error:
            ids = ", ".join(task.identity(index)[0] for index in batch)
            error.add_note(
                f"in run {self._job.folder.path}, shard {self._shard}, samples {list(batch)} (ids {ids}). "
                f"Finished shards are kept: run again to resume."
            )
            raise
