"""Workers as actors of a Ray cluster, or of a private Ray on this machine."""

from __future__ import annotations

import contextlib
import importlib
import logging
import os
import socket
import time
from collections.abc import Callable, Sequence
from typing import Any

from interp.errors import RunError
from interp.run.prepare import Unit
from interp.run.workers.options import Workers
from interp.run.workers.private_ray import PrivateRay, quiet_and_patient, show_token
from interp.run.workers.worker import Message, Worker, about_this_process

__all__ = ["RayCluster", "packed_with_code"]

TICK = 1.0
"""Seconds between two looks at whether a worker could be placed."""
CONNECT = 10.0
"""Seconds that a cluster's machine has to answer."""
SLOW = 20.0
"""Seconds without a worker after which the user is told what is waited for."""
PATIENCE = 600.0
"""Seconds without a worker after which the run ends: a cluster that grows needs some minutes for a machine."""


class RayCluster:
    """A pool of Ray actors. They send what they computed, so no file system need be shared.

    The actors belong to this process: Ray ends them when it ends, also when it is killed.

    Args:
        groups: The pickled jobs of each group, which go into Ray's object store once.
        workers: The address, and the GPUs of each worker.
        n: The number of workers that will be started.
        threads: The number of torch's threads in each worker; None if torch is not imported here.
        say: Shows a line to the user.

    Raises:
        RunError: Ray is not installed, or there is no cluster at the address.
    """

    def __init__(
        self,
        groups: Sequence[bytes],
        workers: Workers,
        n: int,
        threads: int | None,
        say: Callable[[str], None],
    ) -> None:
        self._ray, self._gpus, self._threads, self._say = _ray(), float(workers.gpus or 0), threads, say
        self._joined = not self._ray.is_initialized()
        self._private = _joined(self._ray, str(workers.address), n) if self._joined else None
        self._actor = self._ray.remote(RemoteWorker).options(
            num_cpus=1, num_gpus=self._gpus, max_restarts=0, scheduling_strategy="SPREAD"
        )
        self._groups = [self._ray.put(group) for group in groups]
        self._actors: dict[int, Any] = {}
        self._calls: dict[Any, int] = {}
        self._placed: set[int] = set()
        self._seen, self._told = time.monotonic(), False

    def start(self, worker: int, slot: int) -> None:
        """Creates an actor; Ray places it where its CPU and GPUs are free, now or later."""
        del slot  # Ray chooses the devices
        device = "cuda" if self._gpus else None
        self._actors[worker] = self._actor.remote(self._groups, self._threads, device)
        self._calls[self._actors[worker].start.remote()] = worker

    def send(self, worker: int, unit: Unit) -> None:
        """Gives an actor a unit."""
        self._calls[self._actors[worker].compute.remote(unit)] = worker

    def wait(self) -> list[Message]:
        """Waits for a message, for a second at most."""
        ready, _ = self._ray.wait(list(self._calls), timeout=TICK)
        if self._placed:
            self._seen = time.monotonic()
        elif not ready:
            self._check_patience()
        return [self._read(call) for call in ready]

    def _read(self, call: Any) -> Message:
        worker = self._calls.pop(call)
        try:
            message = Message(worker, *self._ray.get(call))
            self._placed.add(worker)
            return message
        except self._ray.exceptions.RayError as error:
            with contextlib.suppress(Exception):  # it is gone, or Ray believes so
                self._ray.kill(self._actors[worker])
            del self._actors[worker]
            self._placed.discard(worker)
            return Message(worker, "died", " ".join(f"{type(error).__name__}: {error}".split())[:500])

    def _check_patience(self) -> None:
        waited = time.monotonic() - self._seen
        if waited < SLOW:
            return
        has = self._ray.cluster_resources()
        wants = f"1 CPU{f' and {self._gpus:g} GPU' if self._gpus else ''}"
        there = f"{has.get('CPU', 0):g} CPUs and {has.get('GPU', 0):g} GPUs in all"
        if waited > PATIENCE:
            raise RunError(
                f"expected Ray to place a worker with {wants} within {PATIENCE:.0f} s, but it did not; the cluster "
                f"has {there}. Are they taken by other jobs (`ray status`)? Pass a smaller gpus=, or run again later."
            )
        if not self._told:
            self._told = True
            self._say(f"waiting for Ray to place a worker with {wants}; the cluster has {there}.")

    def close(self, *, kill: bool) -> None:
        """Ends all actors, and this process's part in the cluster if it began here; with `kill`, messages are kept."""
        for actor in self._actors.values():
            with contextlib.suppress(Exception):
                self._ray.kill(actor)
        if self._joined:
            self._ray.shutdown()
        if self._private is not None:
            self._private.close(leave_messages=kill)
            if kill:
                self._say(f"Ray's own messages are in {self._private.folder}/session_latest/logs.")


class RemoteWorker:
    """A `Worker` in an actor.

    Args:
        groups: References to the pickled jobs of each group.
        threads: The number of torch's threads; None if the driver did not import torch.
        device: The device that models take; None for that of their `ModelSpec`.
    """

    def __init__(self, groups: Sequence[Any], threads: int | None, device: str | None) -> None:
        self._given = groups, threads, device
        self._worker: Worker | None = None

    def start(self) -> tuple[str, Any]:
        """Opens what does not depend on a unit, and says what this process is."""
        groups, threads, device = self._given
        self._worker = Worker(lambda group: _ray().get(groups[group]), threads, device, sends=True)
        return "ready", about_this_process()

    def compute(self, unit: Unit) -> tuple[str, Any]:
        """Computes a unit; see `Worker.outcome`."""
        if self._worker is None:
            self.start()
        return self._worker.outcome(unit)  # pyright: ignore[reportOptionalMemberAccess]


def packed_with_code(value: Any) -> bytes:
    """Returns a pickle that holds the code of classes and functions of `__main__`.

    Raises:
        RunError: Ray is not installed.
    """
    return _ray().cloudpickle.dumps(value)


def _ray() -> Any:
    try:
        return importlib.import_module("ray")
    except ImportError as error:
        raise RunError(
            f"expected Ray to be installed, because an address is given, got: {error}. Install the extra: "
            f'pip install "interp[ray]".'
        ) from error


def _joined(ray: Any, address: str, n: int) -> PrivateRay | None:
    """Joins a cluster, or a private Ray, which it starts and returns; Ray prints nothing and sends no statistics."""
    private = None
    try:
        _check_reachable(address)
        if address == "local":
            private = PrivateRay(max(n, os.cpu_count() or 1))
            show_token()
        with quiet_and_patient():
            found = address if private is None else private.address
            ray.init(address=found, log_to_driver=False, logging_level=logging.ERROR)
        return private
    except BaseException as error:
        with contextlib.suppress(Exception):
            ray.shutdown()
        if private is not None:
            private.close()
        if not isinstance(error, Exception):
            raise
        said = " ".join(str(error).split())[:800]
        raise RunError(f"expected to use Ray at {address!r}, got: {said}. {_advice(address)}") from error


def _check_reachable(address: str) -> None:
    """Raises an `OSError` if nothing listens at host:port: Ray itself would try for minutes."""
    host, colon, port = address.removeprefix("ray://").rpartition(":")
    if colon:
        socket.create_connection((host.strip("[]"), int(port)), timeout=CONNECT).close()


def _advice(address: str) -> str:
    if address == "local":
        return "Is this machine very busy? Run again, or leave address out: local processes start faster."
    return (
        'Start a cluster with `ray start --head` and run this on one of its machines, or pass address="local" for a '
        "private Ray. If the cluster asks for a token, set RAY_AUTH_MODE to token and copy its ~/.ray/auth_token here."
    )
