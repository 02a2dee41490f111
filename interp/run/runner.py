"""Computes the missing shards of one or many tasks, in this process or in a pool of workers, and joins them."""

from __future__ import annotations

import os
import pickle
from collections.abc import Iterable, Sequence
from typing import Any

from interp.errors import RunError
from interp.run.ahead import Ahead, check_loaders
from interp.run.cache import ProcessCache
from interp.run.files import as_path
from interp.run.plan import shards_of
from interp.run.prepare import PreparedTask, Unit, units_of
from interp.run.progress import Progress
from interp.run.sessions import Ledger
from interp.run.shards import Job, compute_shard
from interp.run.store import RunFolder
from interp.run.task import Task
from interp.run.workers import in_processes

__all__ = ["Group", "check_options", "run_task", "run_tasks"]

Group = Sequence[tuple[str, Task]]
"""Tasks that can be ready at the same time, such as those of one opened model, each with its label."""


def run_task(
    task: Task,
    out: str | os.PathLike[str],
    *,
    workers: int = 1,
    progress: bool = True,
    label: str = "",
    part: tuple[int, int] | None = None,
    loaders: int = 0,
) -> RunFolder:
    """Runs a task and returns its folder; complete shards are not computed again. See `run_tasks`.

    Args:
        task: The task to run.
        out: The folder that holds runs.
        workers: With 1 this process computes; with more, that many processes start, each with its own copy of the
            task (a model is loaded once per process). The bytes written are the same.
        progress: Whether to show a bar on stderr, or a few lines where that is not a terminal.
        label: The run's name on the progress bar.
        part: (i, n) computes part i of n, 1 ≤ i ≤ n. The tables are joined once every shard is complete:
            by the last machine if the machines share `out`, otherwise by `merge`.
        loaders: Threads of each process that prepare the next micro-batches while one is computed.

    Raises:
        RunError: As for `run_tasks`.
    """
    return run_tasks([[(label, task)]], out, workers=workers, progress=progress, part=part, loaders=loaders)[
        0
    ]


def run_tasks(
    groups: Iterable[Group],
    out: str | os.PathLike[str],
    *,
    workers: int = 1,
    progress: bool = True,
    part: tuple[int, int] | None = None,
    loaders: int = 0,
) -> tuple[RunFolder, ...]:
    """Runs tasks and returns their folders in the order of the tasks; complete shards are not computed again.

    Tasks with the same sharing key (`Sharing`) are computed together: each micro-batch is computed for all of them
    before the next one, so that they can share intermediate values. All groups share one pool of workers. A worker
    keeps its model open while its tasks use the same one. The next group is requested when the previous one is
    finished or handed to the workers, and no group is kept afterwards. None of this changes a byte of the results.

    A sample that raises an `InterpError` becomes a row of the failures table, and the rest of its micro-batch is
    computed without it. A micro-batch too large for memory is computed in halves, which the manifest records. Any
    other exception stops the run and names the samples being computed; a later call resumes.

    Args:
        groups: Groups of tasks with their labels.
        out: The folder that holds runs.
        workers: The number of processes; with 1 this process computes.
        progress: Whether to show progress on stderr.
        part: (i, n) computes part i of n of every task.
        loaders: Threads of each process that prepare the next micro-batches; with any, shards are written behind.

    Raises:
        RunError: A folder cannot be used, a worker died, a sample alone does not fit in memory, or a
            micro-batch fails although each sample passes.
    """
    check_options(out, workers, part, loaders)
    done: list[list[PreparedTask]] = []
    waiting: list[bytes] = []
    units: list[Unit] = []
    with Progress(show=progress) as bars:
        for group in groups:
            orders = [PreparedTask.of(label, task, out, part, bars) for label, task in group]
            jobs = [order.job(task, loaders) for order, (_, task) in zip(orders, group, strict=True)]
            own = units_of(len(done), orders)
            done.append(orders)
            if workers == 1 or len(own) < 2:
                _compute_here(jobs, orders, own)
                waiting.append(b"")
            else:
                waiting.append(pickle.dumps(jobs))
                units += own
            del group, jobs
        _compute_in_workers(waiting, done, units, workers)
    return tuple(order.folder for orders in done for order in orders)


def check_options(out: Any, workers: Any, part: Any, loaders: Any = 0) -> None:
    """Checks the options of a run before anything is loaded.

    Raises:
        RunError: `out` is no path, `workers` no whole number ≥ 1, `loaders` none from 0 to 64, or `part` no (i, n) with
            1 ≤ i ≤ n.
    """
    as_path("out", out)
    check_loaders(loaders)
    if not isinstance(workers, int) or isinstance(workers, bool) or workers < 1:
        raise RunError(f"expected a whole number of workers ≥ 1, got {workers!r}.")
    shards_of(part, 0)


def _compute_here(jobs: Sequence[Job], orders: Sequence[PreparedTask], units: Sequence[Unit]) -> None:
    """Computes the units of a group in this process."""
    shelf = ProcessCache()
    ledgers = [Ledger(job.folder, job.session) for job in jobs]
    for job in jobs:
        job.use(shelf)
    with Ahead(max((job.loaders for job in jobs), default=0)) as ahead:
        for number, unit in enumerate(units):
            own = [(jobs[place], ledgers[place]) for place in unit.places]
            compute_shard(own, unit.shard, shelf, ahead, _first_batches(jobs, units[number + 1 :], unit))
            for place in unit.places:
                orders[place].advance(unit.shard)
    for order in orders:
        order.finish()


def _first_batches(jobs: Sequence[Job], units: Sequence[Unit], after: Unit) -> Sequence[tuple[int, ...]]:
    """The micro-batches of the unit that comes after this one, if it is of the same tasks."""
    if not units or units[0].places != after.places:
        return ()
    return jobs[after.places[0]].task.plan().shards[units[0].shard]


def _compute_in_workers(
    waiting: Sequence[bytes], orders: Sequence[Sequence[PreparedTask]], units: Sequence[Unit], workers: int
) -> None:
    """Computes the units of all groups in worker processes; joins a run as soon as its last shard is complete."""
    if not units:
        return
    left = {(unit.group, place): 0 for unit in units for place in unit.places}
    for unit in units:
        for place in unit.places:
            left[unit.group, place] += 1
    for unit in in_processes(waiting, units, workers):
        for place in unit.places:
            order = orders[unit.group][place]
            order.advance(unit.shard)
            left[unit.group, place] -= 1
            if not left[unit.group, place]:
                order.finish()
    for group in {unit.group for unit in units}:
        for order in (order for order in orders[group] if not order.missing):
            order.finish()
