"""Jobs that are left to run on a server and collected later, in this process or another."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from interp.tracing.trace import Trace

__all__ = ["RemoteJob", "Submitted"]


class Submitted(Exception):  # noqa: N818 - it is no error
    """Raised in place of a result when a job was left to run; `job` is its id."""

    def __init__(self, job: str) -> None:
        super().__init__(job)
        self.job = job


@dataclass(frozen=True, eq=False)
class RemoteJob:
    """A trace that runs on a server. Made by `Mllm.submit`.

    Attributes:
        id: the server's name for it; `Mllm.collect` takes it in any process.
    """

    id: str
    _state: Callable[[], str] = field(repr=False)
    _collect: Callable[[float | None], Trace] = field(repr=False)

    @property
    def state(self) -> str:
        """What the server says of it now: "QUEUED", "RUNNING", "COMPLETED", "ERROR", …; "unknown" before it says any.

        Raises:
            ServerError: The server does not answer.
        """
        return self._state()

    def collect(self, timeout: float | None = None) -> Trace:
        """The trace, once the job is done.

        Args:
            timeout: how many seconds to wait; None for as long as it takes.

        Raises:
            ServerError: It failed, it is not done in time, or the server does not answer.
        """
        return self._collect(timeout)
