"""What `import ray` gives where no cluster is wanted: actors are objects of this process, and calls end at once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any


class ActorDiedError(Exception):
    """What Ray raises for an actor that is gone."""


@dataclass(eq=False)
class Call:
    """The reference to a result."""

    give: Callable[[], Any]


@dataclass(eq=False)
class Actor:
    """A handle: each method of the object behind it has `remote`."""

    behind: Any

    def __getattr__(self, name: str) -> Any:
        method = getattr(self.behind, name)
        return SimpleNamespace(remote=lambda *given: Call(lambda: method(*given)))


@dataclass
class StandInRay:
    """The part of Ray that a pool uses; notes what it was asked for."""

    initialized: bool = False
    fault: BaseException | None = None
    ready: bool = True
    resources: dict[str, float] = field(default_factory=lambda: {"CPU": 8.0})
    inits: list[dict[str, Any]] = field(default_factory=list)
    options: dict[str, Any] = field(default_factory=dict)
    made: list[tuple[Any, ...]] = field(default_factory=list)
    killed: list[Any] = field(default_factory=list)
    n_shutdowns: int = 0
    exceptions: Any = field(default_factory=lambda: SimpleNamespace(RayError=ActorDiedError))

    cloudpickle: Any = field(
        default_factory=lambda: SimpleNamespace(dumps=lambda value: f"code of {value}".encode())
    )

    def is_initialized(self) -> bool:
        return self.initialized

    def init(self, **given: Any) -> None:
        self.inits.append(given)
        if self.fault is not None:
            raise self.fault
        self.initialized = True

    def shutdown(self) -> None:
        self.n_shutdowns += 1

    def remote(self, kind: Callable[..., Any]) -> Any:
        def make(*given: Any) -> Actor:
            self.made.append(given)
            return Actor(kind(*given))

        def with_options(**options: Any) -> Any:
            self.options = options
            return SimpleNamespace(remote=make)

        return SimpleNamespace(options=with_options)

    def put(self, value: Any) -> Call:
        return Call(lambda: value)

    def get(self, call: Call) -> Any:
        return call.give()

    def wait(self, calls: Sequence[Call], timeout: float) -> tuple[list[Call], list[Call]]:
        return ([*calls], []) if self.ready else ([], [*calls])

    def kill(self, actor: Actor) -> None:
        self.killed.append(actor)

    def cluster_resources(self) -> dict[str, float]:
        return self.resources
