"""Workers as processes of this machine, which end when the driver ends."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import threading
from collections.abc import Sequence
from multiprocessing.connection import Connection, wait
from typing import Any

from interp.run.prepare import Unit
from interp.run.workers.options import Workers
from interp.run.workers.worker import Message, Worker, about_this_process

__all__ = ["Processes"]

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
        """Ends all processes: idle ones by word, any other and those that do not listen by force."""
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
    """The life of a worker process."""
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
