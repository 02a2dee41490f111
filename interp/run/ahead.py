"""Prepares micro-batches while the model runs, and writes shards behind it.

`loaders` threads do what a task can do without its model: read and decode images, run the processor, tokenise. They
help where the model leaves the interpreter free: on a GPU, or on a CPU with more cores than it uses. No byte of a
result depends on them. What they raise is raised when the micro-batch is computed, with its samples named.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

from interp.errors import InterpError, RunError
from interp.run.task import Preparing, Task
from interp.tracing.passes.out_of_memory import out_of_memory

__all__ = ["Ahead", "check_loaders"]

Batch = tuple[int, ...]


class Ahead:
    """The threads of one process. A context manager: they end with it.

    Args:
        loaders: How many micro-batches are prepared at the same time; 0 prepares none and writes at once.
    """

    def __init__(self, loaders: int) -> None:
        self.loaders = loaders
        self._pool = ThreadPoolExecutor(loaders, "interp-loader", _one_torch_thread) if loaders else None
        self._writer = ThreadPoolExecutor(1, "interp-writer") if loaders else None
        self._task: Task | None = None
        self._prepare: Callable[[Batch], None] | None = None
        self._started: dict[Batch, Future[None]] = {}
        self._written: Future[None] | None = None

    def __enter__(self) -> Ahead:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        for pool in (self._pool, self._writer):
            if pool is not None:
                pool.shutdown(wait=True, cancel_futures=kind is not None and pool is self._pool)
        if kind is None:
            self.finish_writing()

    def start(self, task: Task, batches: list[Batch]) -> None:
        """Begins to prepare these micro-batches, in order, as soon as a loader is free."""
        if self._pool is None or not isinstance(task, Preparing):
            return
        if task is not self._task:
            self._task, self._prepare, self._started = task, task.preparer(self.loaders), {}
        for batch in batches:
            if batch not in self._started and self._prepare is not None:
                self._started[batch] = self._pool.submit(self._prepare, batch)

    def wait(self, batch: Batch) -> None:
        """Waits until a micro-batch is prepared, if that was begun.

        An error of a sample is left to the computation, which records it as a failure; so is a lack of memory.

        Raises:
            Exception: What a loader raised and is no fault of a sample.
        """
        future = self._started.pop(batch, None)
        if future is None:
            return
        try:
            future.result()
        except InterpError:
            return
        except Exception as error:
            if not out_of_memory(error):
                error.add_note("raised by a loader, while it prepared this micro-batch")
                raise

    def write(self, write: Callable[[], None]) -> None:
        """Writes a shard: behind the computation where there are loaders, after the shard before it.

        Raises:
            RunError: The shard before it could not be written.
        """
        self.finish_writing()
        if self._writer is None:
            write()
        else:
            self._written = self._writer.submit(write)

    def finish_writing(self) -> None:
        """Waits for the shard that is being written.

        Raises:
            RunError: It could not be written.
        """
        before, self._written = self._written, None
        if before is not None:
            before.result()


def check_loaders(loaders: Any) -> None:
    """Raises `RunError` unless it is a whole number ≥ 0."""
    if not isinstance(loaders, int) or isinstance(loaders, bool) or not 0 <= loaders <= 64:
        raise RunError(f"expected a whole number of loaders from 0 to 64, got {loaders!r}.")


def _one_torch_thread() -> None:
    """Loaders are many, and each uses one thread."""
    torch = sys.modules.get("torch")
    if torch is not None:
        torch.set_num_threads(1)
