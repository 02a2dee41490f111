"""Jobs that run on a server and are collected later, in this process or another.

This is a file of its own because `Mllm` names its classes, and what sends jobs imports `Mllm`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from interp.tracing.trace import Trace

__all__ = ["RemoteJob", "Submitted"]


class Submitted(Exception):  # noqa: N818 - it is no error
    """Raised instead of returning a result when a job was submitted without waiting; `job` is its id."""

    def __init__(self, job: str) -> None:
        super().__init__(job)
        self.job = job


@dataclass(frozen=True, eq=False)
class RemoteJob:
    """A trace that runs on a server. Made by `Mllm.submit`.

    Attributes:
        id: The server's id of the job; `Mllm.collect` takes it in any process.
    """

    id: str
    _state: Callable[[], str] = field(repr=False)
    _collect: Callable[[float | None], Trace] = field(repr=False)

    @property
    def state(self) -> str:
        """The job's state: "QUEUED", "RUNNING", "COMPLETED", "ERROR", …; "unknown" before the server has one.

        Raises:
            ServerError: The server does not answer.
        """
        return self._state()

    def collect(self, timeout: float | None = None) -> Trace:
        """The trace, once the job is done.

        Args:
            timeout: The most seconds to wait; None to wait without a limit.

        Raises:
            ServerError: A job that failed or is not done in time, or a server that does not answer.
        """
        return self._collect(timeout)
