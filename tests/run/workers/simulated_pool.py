"""A pool whose workers die, fail and finish as a test says, one message at a time, in the order of the calls."""

from __future__ import annotations

import pickle
from collections import deque
from collections.abc import Callable
from typing import Any

from interp.run.prepare import Unit
from interp.run.workers.worker import Message, about_this_process

Fate = Callable[[int, int, Unit], str]
"""What becomes of a unit in a worker of a slot: "done", "died" or "failed"."""


class SimulatedPool:
    def __init__(
        self,
        fate: Fate = lambda worker, slot, unit: "done",
        *,
        starts: Callable[[int, int], bool] = lambda worker, slot: True,
        versions: dict[str, str] | None = None,
    ) -> None:
        self.fate, self.starts, self.versions = fate, starts, versions
        self.slots: dict[int, int] = {}
        self.sent: list[tuple[int, Unit]] = []
        self.in_flight: dict[int, Unit] = {}
        self.most_in_flight = 0
        self.closed: list[bool] = []
        self.messages: deque[Message] = deque()

    def start(self, worker: int, slot: int) -> None:
        assert worker not in self.slots
        self.slots[worker] = slot
        if self.starts(worker, slot):
            self.messages.append(Message(worker, "ready", self.versions or about_this_process()))
        else:
            self.messages.append(Message(worker, "died", "it was killed by SIGKILL"))

    def send(self, worker: int, unit: Unit) -> None:
        assert worker not in self.in_flight, "a worker got a second unit"
        self.sent.append((worker, unit))
        self.in_flight[worker] = unit
        self.most_in_flight = max(self.most_in_flight, len(self.in_flight))
        kind: Any = self.fate(worker, self.slots[worker], unit)
        value = {
            "done": {},
            "died": "it was killed by SIGKILL",
            "failed": pickle.dumps((ValueError(f"a bug in {unit.shard}"), "Traceback of the worker")),
        }[kind]
        self.messages.append(Message(worker, kind, value))

    def wait(self) -> list[Message]:
        message = self.messages.popleft()  # an IndexError: the dispatcher waits for nothing
        self.in_flight.pop(message.worker, None)
        return [message]

    def close(self, *, kill: bool) -> None:
        self.closed.append(kill)
