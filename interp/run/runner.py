"""Runs the missing shards of one or many tasks, here or in one pool of worker processes, and joins them."""

from __future__ import annotations

import os
import pickle
from collections.abc import Iterable, Sequence

from interp.errors import RunError
from interp.run.cache import Shelf
from interp.run.prepare import Order, Unit, units_of
from interp.run.progress import Progress
from interp.run.sessions import Ledger
from interp.run.shards import Job, compute_shard
from interp.run.store import RunFolder
from interp.run.task import Task
from interp.run.workers import in_processes

__all__ = ["Group", "run_task", "run_tasks"]

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
) -> RunFolder:
    """The folder of a finished run; shards already there are not computed again. See `run_tasks`.

    Args:
        task: What to compute.
        out: The folder that holds runs.
        workers: 1 computes in this process; more start processes, each with its own copy of the task (a model
            is loaded once per process). The bytes are the same.
        progress: Show a bar on stderr, or a few lines where that is not a terminal.
        label: What the progress bar calls this run.
        part: (i, n) computes part i of n, 1 ≤ i ≤ n. The tables are joined once every shard is there: by the
            last machine when they share `out`, else by `merge`.

    Raises:
        RunError: As `run_tasks`.
    """
    return run_tasks([[(label, task)]], out, workers=workers, progress=progress, part=part)[0]


def run_tasks(
    groups: Iterable[Group],
    out: str | os.PathLike[str],
    *,
    workers: int = 1,
    progress: bool = True,
    part: tuple[int, int] | None = None,
) -> tuple[RunFolder, ...]:
    """The folders of finished runs, in the order of the tasks; shards already there are not computed again.

    Tasks of one kin (`Sharing`) are computed abreast: each micro-batch for all of them before the next, so that
    what one has made is still at hand for the others. All groups share one pool of workers, and a worker
    keeps its opened model while its tasks use the same one. A group is asked for when the one before is done,
    or handed over to the workers, and nothing of it is held afterwards. None of this changes a byte.

    A sample that raises an `InterpError` becomes a row of the failures table, and the rest of its micro-batch
    is computed without it. A micro-batch too large for memory is computed in halves; the manifest says so.
    Any other exception stops the run, with a note which samples were at work; a later call resumes.

    Args:
        groups: The tasks.
        out: The folder that holds runs.
        workers: Processes; 1 computes in this one.
        progress: Show progress on stderr.
        part: (i, n) computes part i of n of every task.

    Raises:
        RunError: A folder cannot be used, a worker died, a sample alone does not fit in memory, or a
            micro-batch fails though each sample passes.
    """
    if workers < 1:
        raise RunError(f"expected workers ≥ 1, got {workers}.")
    done: list[list[Order]] = []
    waiting: list[bytes] = []
    units: list[Unit] = []
    with Progress(show=progress) as bars:
        for group in groups:
            orders = [Order.of(label, task, out, part, bars) for label, task in group]
            jobs = [order.job(task) for order, (_, task) in zip(orders, group, strict=True)]
            own = units_of(len(done), orders)
            done.append(orders)
            if workers == 1 or len(own) < 2:
                _here(jobs, orders, own)
                waiting.append(b"")
            else:
                waiting.append(pickle.dumps(jobs))
                units += own
            del group, jobs
        _there(waiting, done, units, workers)
    return tuple(order.folder for orders in done for order in orders)


def _here(jobs: Sequence[Job], orders: Sequence[Order], units: Sequence[Unit]) -> None:
    """Compute the units of a group in this process."""
    shelf = Shelf()
    ledgers = [Ledger(job.folder, job.session) for job in jobs]
    for job in jobs:
        job.use(shelf)
    for unit in units:
        compute_shard([(jobs[place], ledgers[place]) for place in unit.places], unit.shard, shelf)
        for place in unit.places:
            orders[place].advance(unit.shard)
    for order in orders:
        order.finish()


def _there(
    waiting: Sequence[bytes], orders: Sequence[Sequence[Order]], units: Sequence[Unit], workers: int
) -> None:
    """Compute the units of all groups in worker processes; a run is joined as soon as its last shard is there."""
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
