"""Computes one shard of one or several jobs: prepares micro-batches ahead, halves those too large for memory, writes.

`loaders` threads do what a task can do without its model: read and decode images, run the processor, tokenise. They
help where the model leaves the interpreter free: on a GPU, or on a CPU with more cores than it uses. No byte of a
result depends on them. What they raise is raised when the micro-batch is computed, with its samples named.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial, reduce
from typing import Any, TypeVar

import pyarrow as pa

from interp.errors import InterpError, RunError
from interp.run.plan import Plan
from interp.run.sessions import Ledger, sum_costs
from interp.run.store import RunFolder
from interp.run.task import (
    FAILURE_SCHEMA,
    FAILURES,
    Outcome,
    Preparing,
    ProcessCache,
    Records,
    Sharing,
    Task,
    Watched,
    failure,
    joined_rows,
    table_of,
)
from interp.tracing.passes.out_of_memory import in_halves, out_of_memory
from interp.tracing.passes.progress_bar import without_bars

__all__ = [
    "Ahead",
    "Job",
    "Splits",
    "check_loaders",
    "compute_batch",
    "compute_shard",
    "finished",
    "schemas_of",
]


Splits = list[Mapping[str, Any]]
Indices = tuple[int, ...]
T = TypeVar("T")


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
        ahead: Prepares micro-batches and writes shards; it may still be writing this shard after the return. By default
            a new one, which uses the jobs' number of loaders and has finished writing at the return.
        following: The micro-batches that are computed next.

    Raises:
        RunError: Something that the jobs depend on, such as the model, changed meanwhile. Nothing is stored.
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


def compute_batch(
    task: Task, batch: Indices, splits: Splits, free_cache: Callable[[], bool] = lambda: False
) -> Outcome:
    """Returns the outcome of a micro-batch, with its unusable samples as failures.

    A micro-batch that does not fit in memory is computed in halves, and these again in halves if necessary. Each
    split is added to `splits`, because batches of another size round differently (about 1e-5 in float32).

    Args:
        task: What to compute.
        batch: The samples.
        splits: One entry is added for each split.
        free_cache: Drops what is kept for other tasks and returns whether there was anything. It is called before
            the first split, so that a task that runs together with others is split only where it would be alone.

    Raises:
        RunError: A single sample does not fit, or a micro-batch fails although each of its samples passes.
    """
    with without_bars():  # a run has its own
        return _Computation(task, splits, free_cache).outcome(batch)


@dataclass(frozen=True)
class _Computation:
    """Computes micro-batches of a task; the fields are the arguments of `compute_batch`."""

    task: Task
    splits: Splits
    free_cache: Callable[[], bool]

    def outcome(self, batch: Indices) -> Outcome:
        """The outcome of a micro-batch, computed in parts that fit."""
        return reduce(_together, self._fitting(batch, self._with_failures))

    def _fitting(self, batch: Indices, compute: Callable[[Indices], T]) -> list[T]:
        return in_halves(
            batch, compute, too_large=self._too_large, split=self._note, free_cache=self.free_cache
        )

    def _with_failures(self, batch: Indices) -> Outcome:
        """The outcome of the samples that can be used, and the others' failures."""
        found = self._computed(batch)
        if isinstance(found, Outcome):
            return found
        if len(batch) == 1:
            return Outcome({FAILURES: [self._failed(batch[0], found)]})
        bad = {
            index: error
            for index in batch
            for error in self._fitting((index,), self._computed)
            if isinstance(error, InterpError)
        }
        if not bad:
            raise RunError(
                f"expected one of the samples {list(batch)} to fail alone as their micro-batch did, but each "
                f"passes. The error of the micro-batch was: {found}"
            ) from found
        failures = Outcome({FAILURES: [self._failed(index, error) for index, error in bad.items()]})
        rest = tuple(index for index in batch if index not in bad)
        return _together(failures, self.outcome(rest)) if rest else failures

    def _computed(self, batch: Indices) -> Outcome | InterpError:
        """The outcome, or the error of an invalid sample.

        Raises:
            RunError: The task itself cannot run; this is not a failure of a sample.
        """
        try:
            return self.task.compute(batch)
        except RunError:
            raise
        except InterpError as error:
            return error

    def _failed(self, index: int, error: InterpError) -> dict[str, Any]:
        return failure(self.task, index, type(error).__name__, str(error))

    def _note(self, batch: Indices, halves: tuple[Indices, Indices], problem: str) -> None:
        self.splits.append(
            {"samples": list(batch), "halves": [list(half) for half in halves], "error": problem}
        )

    def _too_large(self, alone: Indices, problem: str) -> RunError:
        (index,) = alone
        return RunError(
            f"expected sample {index} ({self.task.identity(index)[0]}) to fit in memory, but it does not fit even "
            f"alone ({problem}). The sample is valid: a machine with more memory can compute it. Free memory, use "
            f"fewer workers, a smaller dtype or a larger device, and run again."
        )


def _together(first: Outcome, second: Outcome) -> Outcome:
    names = [*first.rows, *(name for name in second.rows if name not in first.rows)]
    rows = {name: joined_rows([first.rows.get(name, ()), second.rows.get(name, ())]) for name in names}
    return Outcome(rows, sum_costs([first.cost, second.cost]))


class Ahead:
    """The threads of one process. A context manager: they end with it.

    Args:
        loaders: How many micro-batches are prepared at the same time; 0 prepares none and writes at once.
    """

    def __init__(self, loaders: int) -> None:
        self.loaders = loaders
        self._pool = ThreadPoolExecutor(loaders, "interp-loader", _one_torch_thread) if loaders else None
        self._writer = ThreadPoolExecutor(1, "interp-writer") if loaders else None
        self._task: Task | None = None
        self._prepare: Callable[[Indices], None] | None = None
        self._started: dict[Indices, Future[None]] = {}
        self._written: Future[None] | None = None

    def __enter__(self) -> Ahead:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        for pool in (self._pool, self._writer):
            if pool is not None:
                pool.shutdown(wait=True, cancel_futures=kind is not None and pool is self._pool)
        if kind is None:
            self.finish_writing()

    def start(self, task: Task, batches: list[Indices]) -> None:
        """Begins to prepare these micro-batches, in order, as soon as a loader is free."""
        if self._pool is None or not isinstance(task, Preparing):
            return
        if task is not self._task:
            self._task, self._prepare, self._started = task, task.preparer(self.loaders), {}
        for batch in batches:
            if batch not in self._started and self._prepare is not None:
                self._started[batch] = self._pool.submit(self._prepare, batch)

    def wait(self, batch: Indices) -> None:
        """Waits until a micro-batch is prepared, if that was begun.

        An error of a sample is left to the computation, which records it as a failure; so is a lack of memory.

        Raises:
            Exception: What a loader raised and is no fault of a sample.
        """
        future = self._started.pop(batch, None)
        if future is None:
            return
        try:
            future.result()
        except InterpError:
            return
        except Exception as error:
            if not out_of_memory(error):
                error.add_note("raised by a loader, while it prepared this micro-batch")
                raise

    def write(self, write: Callable[[], None]) -> None:
        """Writes a shard: behind the computation where there are loaders, after the shard before it.

        Raises:
            RunError: The shard before it could not be written.
        """
        self.finish_writing()
        if self._writer is None:
            write()
        else:
            self._written = self._writer.submit(write)

    def finish_writing(self) -> None:
        """Waits for the shard that is being written.

        Raises:
            RunError: It could not be written.
        """
        before, self._written = self._written, None
        if before is not None:
            before.result()


def check_loaders(loaders: Any) -> None:
    """Raises `RunError` unless it is a whole number ≥ 0."""
    if not isinstance(loaders, int) or isinstance(loaders, bool) or not 0 <= loaders <= 64:
        raise RunError(f"expected a whole number of loaders from 0 to 64, got {loaders!r}.")


def _one_torch_thread() -> None:
    """Loaders are many, and each uses one thread."""
    torch = sys.modules.get("torch")
    if torch is not None:
        torch.set_num_threads(1)
