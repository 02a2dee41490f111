"""Gives units to workers, one at a time to each, and gives those of a worker that died to another.

Local workers are processes of this machine; they end when the driver ends.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import pickle
import signal
import threading
from collections import Counter, deque
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from typing import Any, Protocol, runtime_checkable

from interp.errors import RunError
from interp.run.prepare import Unit
from interp.run.sessions import n_threads
from interp.run.shards import Job
from interp.run.workers.options import Workers
from interp.run.workers.ray_cluster import RayCluster, packed_with_code
from interp.run.workers.worker import Message, SentFiles, Worker, about_this_process, raised

__all__ = ["Computed", "Pool", "Processes", "compute_units", "dispatched", "packed_jobs"]


MOST_DEATHS = 3
"""Workers that may die over one unit, and starts that may fail one after the other."""

Computed = tuple[Unit, Mapping[int, SentFiles]]
"""A finished unit, and the files that its worker sent instead of writing them, by the place of their job."""


@runtime_checkable
class Pool(Protocol):
    """Workers that can be started at any time, each of which computes one unit at a time."""

    def start(self, worker: int, slot: int) -> None:
        """Starts a worker with a number of its own. A worker that replaces another one has its slot."""
        ...

    def send(self, worker: int, unit: Unit) -> None:
        """Gives a unit to a worker that is ready and idle."""
        ...

    def wait(self) -> list[Message]:
        """Waits for messages and returns them; after "died" a worker has no others."""
        ...

    def close(self, *, kill: bool) -> None:
        """Ends all workers, with `kill` at once."""
        ...


def packed_jobs(jobs: Sequence[Job], workers: Workers) -> bytes:
    """Returns the jobs of a group as bytes that a worker reads.

    Classes of a notebook or script, which no machine of a cluster can import, travel to Ray with their code.

    Raises:
        RunError: Ray is not installed although it has an address, or a model is open and no worker can open it.
    """
    return pickle.dumps(list(jobs)) if workers.address is None else packed_with_code(list(jobs))


def compute_units(
    groups: Sequence[bytes],
    units: Sequence[Unit],
    workers: Workers,
    *,
    say: Callable[[str], None],
    describe: Callable[[Unit], str],
) -> Generator[Computed, None, None]:
    """Computes units in workers and yields each one when it is finished.

    At most one unit a worker is in flight. A unit whose worker died goes to another worker after the other units of
    its group, and a new worker starts. A worker that dies twice without finishing a unit is not replaced as long as
    there are others. When a unit raises an error, the units in flight are finished before the error is raised.

    Args:
        groups: The pickled jobs of each group.
        units: The units to compute, in order.
        workers: How many workers, and where.
        say: Shows a line to the user.
        describe: Names the run and the samples of a unit.

    Raises:
        RunError: Three workers died over one unit or could not be started, a worker has other versions or finds
            another study than this process does, or Ray cannot be used.
    """
    n = min(workers.n, len(units))
    pool: Pool = (
        Processes(groups, workers, n_threads())
        if workers.address is None
        else RayCluster(groups, workers, n, n_threads(), say)
    )
    return dispatched(pool, units, n, say=say, describe=describe)


def dispatched(
    pool: Pool,
    units: Sequence[Unit],
    n: int,
    *,
    say: Callable[[str], None],
    describe: Callable[[Unit], str],
) -> Generator[Computed, None, None]:
    """Computes units in at most n workers of a pool, which it closes; see `compute_units`."""
    state = _State(pool, deque(units), say, describe)
    finished = False
    try:
        for slot in range(n):
            state.start(slot)
        while state.unfinished:
            for message in pool.wait():
                yield from state.take(message)
        finished = True
    finally:
        pool.close(kill=not finished)
    if state.error is not None:
        raise state.error


@dataclass
class _Slot:
    """A place for a worker.

    Attributes:
        unit: The unit in flight; None when the worker is idle or not ready.
        ready: Whether the worker has started.
        deaths: Workers of this slot that died since one of them last finished a unit.
    """

    unit: Unit | None = None
    ready: bool = False
    deaths: int = 0


class _State:
    """Which units wait, which are in flight, and what went wrong."""

    def __init__(
        self, pool: Pool, queue: deque[Unit], say: Callable[[str], None], describe: Callable[[Unit], str]
    ) -> None:
        self._pool, self._queue, self._say, self._describe = pool, queue, say, describe
        self._slots: dict[int, _Slot] = {}
        self._worker_slots: dict[int, int] = {}
        self._n_started, self._failed_starts = 0, 0
        self._deaths: Counter[Unit] = Counter()
        self.error: Exception | None = None

    @property
    def unfinished(self) -> bool:
        """Whether a unit waits or is in flight."""
        return bool(self._queue) or any(slot.unit is not None for slot in self._slots.values())

    def start(self, slot: int) -> None:
        """Starts a worker in a slot."""
        worker, self._n_started = self._n_started, self._n_started + 1
        self._worker_slots[worker] = slot
        self._slots.setdefault(slot, _Slot())
        self._pool.start(worker, slot)

    def take(self, message: Message) -> Iterator[Computed]:
        """Handles a message, and gives its worker the next unit."""
        slot = self._slots[self._worker_slots[message.worker]]
        if message.kind == "died":
            self._buried(message, slot)
            return
        if message.kind == "ready":
            self._failed_starts, slot.ready = 0, True
            self._check_versions(message.value)
        unit, slot.unit = slot.unit, None
        if message.kind == "failed":
            self._stop(raised(message.value))
        self._feed()
        if message.kind == "done" and unit is not None:
            slot.deaths = 0
            yield unit, message.value

    def _feed(self) -> None:
        """Gives each idle worker a unit."""
        for worker, place in self._worker_slots.items():
            slot = self._slots[place]
            if self._queue and slot.ready and slot.unit is None:
                slot.unit = self._queue.popleft()
                self._pool.send(worker, slot.unit)

    def _buried(self, message: Message, slot: _Slot) -> None:
        """Puts a dead worker's unit back and replaces the worker."""
        place = self._worker_slots.pop(message.worker)
        unit, slot.unit, ready, slot.ready = slot.unit, None, slot.ready, False
        slot.deaths += 1
        self._failed_starts += not ready
        if self.error is not None:
            return
        if unit is not None:
            self._deaths[unit] += 1
            if self._deaths[unit] >= MOST_DEATHS:
                self._stop(RunError(_deadly(self._describe(unit), message.value)))
                return
            self._put_back(unit)
        if self._failed_starts >= MOST_DEATHS and not any(other.ready for other in self._slots.values()):
            self._stop(RunError(_no_start(message.value)))
            return
        if unit is None and not self._queue:
            return
        others = any(self._slots[own].deaths < 2 for own in self._worker_slots.values())
        given_up = slot.deaths >= 2 and others
        self._say(
            f"a worker died again ({message.value}); the run goes on without it."
            if given_up
            else f"a worker died ({message.value}); its shard goes to another worker."
        )
        self._feed()
        if self._queue and not given_up:
            self.start(place)

    def _put_back(self, unit: Unit) -> None:
        """Puts a unit behind the others of its group, so that no worker opens a model twice for it."""
        place = sum(1 for other in self._queue if other.group <= unit.group)
        self._queue.insert(place, unit)

    def _check_versions(self, theirs: Mapping[str, str]) -> None:
        own = about_this_process()
        differing = [name for name in own if theirs.get(name) != own[name]]
        if differing:
            listed = ", ".join(f"{name} {theirs.get(name, 'none')} and not {own[name]}" for name in differing)
            self._stop(
                RunError(
                    f"expected every worker to have the versions of this process, because results depend on them, but "
                    f"one has {listed}. Install the same versions of interp and its libraries on every machine, and "
                    f"do not edit the package while a study runs."
                )
            )

    def _stop(self, error: Exception) -> None:
        """Gives out no more units; the first error is the one that is raised."""
        self._queue.clear()
        self.error = self.error or error


def _deadly(what: str, reason: str) -> str:
    return (
        f"expected a worker to compute {what}, but {MOST_DEATHS} workers died over it, the last one because {reason}. "
        f"Did they run out of memory? Finished shards are kept: run again with fewer workers or a smaller batch, "
        f"or without these samples."
    )


def _no_start(reason: str) -> str:
    return (
        f"expected workers to start, but {MOST_DEATHS} in a row did not, the last one because {reason} (see above). "
        f'Does the script start its run under `if __name__ == "__main__":`, and is interp installed where the '
        f"workers run? Finished shards are kept: run again."
    )


GRACE = 5.0
"""Seconds that an idle process has to end."""


class Processes:
    """A pool of spawned processes, each behind a pipe of its own.

    Args:
        groups: The pickled jobs of each group. Each process receives them once.
        workers: How many, and on which devices.
        threads: The number of torch's threads in each process; None if torch is not imported here.
    """

    def __init__(self, groups: Sequence[bytes], workers: Workers, threads: int | None) -> None:
        self._groups, self._threads, self._devices = groups, threads, workers.devices
        self._context = multiprocessing.get_context("spawn")
        self._pipes: dict[int, Connection] = {}
        self._processes: dict[int, Any] = {}

    def start(self, worker: int, slot: int) -> None:
        """Starts a process."""
        here, there = self._context.Pipe()
        device = self._devices[slot % len(self._devices)] if self._devices else None
        given = (there, self._groups, self._threads, device)
        process = self._context.Process(target=_serve, args=given, name=f"interp worker {worker}")
        process.start()
        there.close()  # so that this end sees the end of the process
        self._pipes[worker], self._processes[worker] = here, process

    def send(self, worker: int, unit: Unit) -> None:
        """Gives a process a unit; if it is gone, `wait` tells."""
        with contextlib.suppress(OSError):
            self._pipes[worker].send(unit)

    def wait(self) -> list[Message]:
        """Waits for at least one message."""
        places = {id(pipe): worker for worker, pipe in self._pipes.items()}
        return [self._read(places[id(pipe)]) for pipe in wait(list(self._pipes.values()))]

    def _read(self, worker: int) -> Message:
        try:
            return Message(worker, *self._pipes[worker].recv())
        except (EOFError, OSError):
            self._pipes.pop(worker).close()
            process = self._processes.pop(worker)
            process.join(GRACE)
            return Message(worker, "died", _reason(process.exitcode))

    def close(self, *, kill: bool) -> None:
        """Ends all processes: idle ones are asked to end; busy ones, and those that do not respond, are killed."""
        for pipe in self._pipes.values():
            with contextlib.suppress(OSError):
                pipe.send(None)
        for process in self._processes.values():
            process.join(0 if kill else GRACE)
            if process.is_alive():
                process.kill()
                process.join()
        for pipe in self._pipes.values():
            pipe.close()


def _reason(code: int | None) -> str:
    if code is None:
        return "it closed its pipe"
    if code < 0:
        return f"it was killed by {signal.Signals(-code).name}"
    return f"it ended with exit code {code}"


def _serve(pipe: Connection, groups: Sequence[bytes], threads: int | None, device: str | None) -> None:
    """Runs a worker process until it is told to end."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the driver too, which ends its workers
    os.environ["HF_HUB_DISABLE_PROGRESS_BARS"] = "1"  # a bar of each worker would tear the run's own
    parent = multiprocessing.parent_process()
    if parent is not None:
        threading.Thread(target=_end_with, args=(parent,), daemon=True).start()
    worker = Worker(groups.__getitem__, threads, device)
    pipe.send(("ready", about_this_process()))
    while (unit := pipe.recv()) is not None:
        pipe.send(worker.outcome(unit))


def _end_with(parent: Any) -> None:
    """Ends this process when the parent ends; a killed parent cannot end its workers itself."""
    parent.join()
    os._exit(1)
