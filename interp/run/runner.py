"""Computes the missing shards of one or many tasks, in this process or in a pool of workers, and joins them."""

from __future__ import annotations

import contextlib
import gc
import os
import pickle
import sys
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

from interp.inputs.files import as_path, remove_leftovers
from interp.run.plan import shards_of
from interp.run.prepare import PreparedTask, Progress, Unit, units_of
from interp.run.sessions import Ledger
from interp.run.shards import Ahead, Job, check_loaders, compute_shard
from interp.run.store import RunFolder
from interp.run.task import Portable, ProcessCache, Task
from interp.run.workers import Workers, compute_units, packed_jobs, store_sent_files

__all__ = ["Group", "check_options", "run_task", "run_tasks"]

Group = Sequence[tuple[str, Task]]
"""Tasks that can be ready at the same time, such as those of one opened model, each with its label."""


def run_task(
    task: Task,
    out: str | os.PathLike[str],
    *,
    workers: int | Workers = 1,
    address: str | None = None,
    gpus: float | None = None,
    devices: str | Sequence[str] = (),
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
            task (a model is loaded once per process). The bytes written are the same. A `Workers` holds the next
            three options too.
        address: Where Ray runs the workers: "local", "auto", "host:port" or "ray://host:port"; None for processes of
            this machine.
        gpus: The GPUs of each worker on Ray.
        devices: The devices that local workers take in turn.
        progress: Whether to show a bar on stderr, or a few lines where that is not a terminal.
        label: The run's name on the progress bar.
        part: (i, n) computes part i of n, 1 ≤ i ≤ n. The tables are joined once every shard is complete:
            by the last machine if the machines share `out`, otherwise by `merge`.
        loaders: Threads of each process that prepare the next micro-batches while one is computed.

    Raises:
        RunError: As for `run_tasks`.
    """
    found = Workers.of(workers, address=address, gpus=gpus, devices=devices)
    options: dict[str, Any] = {"progress": progress, "part": part, "loaders": loaders}
    return run_tasks([[(label, task)]], out, workers=found, **options)[0]


def run_tasks(
    groups: Iterable[Group],
    out: str | os.PathLike[str],
    *,
    workers: int | Workers = 1,
    address: str | None = None,
    gpus: float | None = None,
    devices: str | Sequence[str] = (),
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

    A shard whose worker is killed goes to another worker. On Ray, workers send what they computed and this process
    writes it, so `out` need not be shared with their machines; files that tasks read must be.

    Args:
        groups: Groups of tasks with their labels.
        out: The folder that holds runs.
        workers: The number of processes; with 1 this process computes. A `Workers` holds the next three options too.
        address: Where Ray runs the workers: "local", "auto", "host:port" or "ray://host:port"; None for processes of
            this machine.
        gpus: The GPUs of each worker on Ray.
        devices: The devices that local workers take in turn.
        progress: Whether to show progress on stderr.
        part: (i, n) computes part i of n of every task.
        loaders: Threads of each process that prepare the next micro-batches; with any, shards are written behind.

    Raises:
        RunError: A folder cannot be used, three workers died over one shard, Ray cannot be used, a sample alone does
            not fit in memory, or a micro-batch fails although each sample passes.
    """
    found = Workers.of(workers, address=address, gpus=gpus, devices=devices)
    check_options(out, found, part, loaders)
    done: list[list[PreparedTask]] = []
    waiting: list[bytes] = []
    units: list[Unit] = []
    model_devices: set[str] = set()
    with Progress(show=progress) as bars:
        for group in groups:
            orders = [PreparedTask.of(label, task, out, part, bars) for label, task in group]
            jobs = [order.job(task, loaders) for order, (_, task) in zip(orders, group, strict=True)]
            own = units_of(len(done), orders)
            done.append(orders)
            model_devices |= {task.device for _, task in group if isinstance(task, Portable)}
            found.for_models_on(model_devices)
            if found.is_this_process or len(own) < (2 if found.address is None else 1):
                _compute_here(jobs, orders, own)
                waiting.append(b"")
            else:
                waiting.append(packed_jobs(jobs, found))
                units += own
            del group, jobs
        _compute_in_workers(waiting, done, units, found.for_models_on(model_devices), bars)
    return tuple(order.folder for orders in done for order in orders)


def check_options(out: Any, workers: int | Workers, part: Any, loaders: Any = 0) -> Workers:
    """Checks the options of a run before anything is loaded, and returns those of the workers.

    Raises:
        RunError: `out` is no path, `workers` no whole number ≥ 1, `loaders` none from 0 to 64, or `part` no (i, n) with
            1 ≤ i ≤ n.
    """
    as_path("out", out)
    check_loaders(loaders)
    found = Workers.of(workers)
    shards_of(part, 0)
    return found


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
    waiting: Sequence[bytes],
    orders: Sequence[Sequence[PreparedTask]],
    units: Sequence[Unit],
    workers: Workers,
    bars: Progress,
) -> None:
    """Computes the units of all groups in workers; joins a run as soon as its last shard is complete."""
    if not units:
        return
    left = Counter((unit.group, place) for unit in units for place in unit.places)

    def describe(unit: Unit) -> str:
        return _described(waiting[unit.group], unit)

    _free_devices()
    with contextlib.closing(
        compute_units(waiting, units, workers, say=bars.say, describe=describe)
    ) as computed:
        for unit, sent in computed:
            for place in unit.places:
                order = orders[unit.group][place]
                store_sent_files(order.folder, sent.get(place, {}))
                order.advance(unit.shard)
                left[unit.group, place] -= 1
                if not left[unit.group, place]:
                    order.finish()
    for order in (order for group in {unit.group for unit in units} for order in orders[group]):
        if not order.missing:
            order.finish()
        remove_leftovers(order.folder.path)  # of workers that were killed while they wrote


def _described(group: bytes, unit: Unit) -> str:
    """The run and the samples of a unit, for a message."""
    job = pickle.loads(group)[unit.places[0]]
    indices = job.task.plan().indices(unit.shard)
    ids = ", ".join(job.task.identity(index)[0] for index in indices)
    return f"shard {unit.shard} of {job.folder.path}, samples {list(indices)} (ids {ids})"


def _free_devices() -> None:
    """Frees what models that were opened here for their fingerprint left on CUDA devices: workers need the room."""
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_initialized():
        gc.collect()
        torch.cuda.empty_cache()
