"""Worker processes. They keep their tasks and their model between shards, and end when their parent ends."""

from __future__ import annotations

import multiprocessing
import os
import pickle
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field
from typing import Any

from interp.errors import InterpError, RunError
from interp.run.cache import ProcessCache
from interp.run.files import digest
from interp.run.prepare import Unit
from interp.run.sessions import Ledger, n_threads
from interp.run.shards import Job, compute_shard

__all__ = ["in_processes"]


def in_processes(groups: Sequence[bytes], units: Sequence[Unit], workers: int) -> Iterator[Unit]:
    """Computes units in spawned processes and yields each unit when it is finished.

    Each process uses as many threads as this one.

    Args:
        groups: The pickled jobs of each group. Each process receives them once, through its pipe.
        units: The units to compute, in order.
        workers: The largest number of processes.

    Raises:
        RunError: A worker died, or finds another study than this process does.
    """
    pool = ProcessPoolExecutor(
        max_workers=min(workers, len(units)),
        mp_context=multiprocessing.get_context("spawn"),
        initializer=_start,
        initargs=(groups, n_threads()),
    )
    try:
        pending = {pool.submit(_work, unit): unit for unit in units}
        while pending:
            done, _ = wait(pending, return_when=FIRST_COMPLETED)
            for future in done:
                future.result()
                yield pending.pop(future)
    except BrokenProcessPool as error:
        raise RunError(
            "expected every worker to live, but one died: it was killed, ran out of memory, or could not unpickle its "
            "task (see above). Finished shards are kept; run again, with fewer workers if memory is short."
        ) from error
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


@dataclass
class _WorkerState:
    """The state of a worker: the pickled jobs of every group, the jobs of its current group, and its cache."""

    groups: Sequence[bytes]
    group: int = -1
    jobs: list[Job] = field(default_factory=list)
    ledgers: dict[int, Ledger] = field(default_factory=dict)
    shelf: ProcessCache = field(default_factory=ProcessCache)

    def at(self, unit: Unit) -> list[tuple[Job, Ledger]]:
        """Returns the unit's jobs, each with this process's record of it."""
        if unit.group != self.group:
            self.jobs, self.ledgers = [], {}
            self.jobs, self.group = pickle.loads(self.groups[unit.group]), unit.group
        for place in unit.places:
            if place not in self.ledgers:
                job = self.jobs[place]
                job.use(self.shelf)
                _check(job)
                self.ledgers[place] = Ledger(job.folder, job.session)
        return [(self.jobs[place], self.ledgers[place]) for place in unit.places]


_worker: dict[str, _WorkerState] = {}


def _start(groups: Sequence[bytes], threads: int | None) -> None:
    if threads is not None:
        import torch

        torch.set_num_threads(threads)
    parent = multiprocessing.parent_process()
    if parent is not None:
        threading.Thread(target=_end_with, args=(parent,), daemon=True).start()
    _worker["state"] = _WorkerState(groups)


def _end_with(parent: Any) -> None:
    """Ends this process when the parent ends; a killed parent cannot end its workers itself."""
    parent.join()
    os._exit(1)


def _work(unit: Unit) -> None:
    state = _worker["state"]
    compute_shard(state.at(unit), unit.shard, state.shelf)


def _check(job: Job) -> None:
    """Checks that this process finds the same study as its parent; otherwise every sample would fail or differ.

    Raises:
        RunError: The task cannot be opened in this process, or describes another study.
    """
    try:
        found = digest(job.task.to_dict())
    except InterpError as error:
        raise RunError(f"a worker process cannot open the task of {job.folder.path}: {error}") from error
    if found != job.folder.digest:
        raise RunError(
            f"expected a worker process to compute the study {job.folder.digest[:12]}, but it finds the "
            f"study {found[:12]}. Do the processes see different devices, files or versions of interp?"
        )
