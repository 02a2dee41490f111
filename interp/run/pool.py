"""Worker processes that each hold their own copy of a task, and end when the process that started them does."""

from __future__ import annotations

import multiprocessing
import os
import threading
from collections.abc import Iterator
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from typing import Any

from interp.errors import InterpError, RunError
from interp.run.files import digest
from interp.run.manifest import n_threads
from interp.run.sessions import Ledger
from interp.run.shards import Job

__all__ = ["in_processes"]

_worker: dict[str, Any] = {}


def in_processes(job: Job, session: str, missing: list[int], workers: int) -> Iterator[int]:
    """The number of each shard as spawned processes finish it; each has as many threads as this one.

    Raises:
        RunError: A worker died, or sees another study than this process does.
    """
    pool = ProcessPoolExecutor(
        max_workers=min(workers, len(missing)),
        mp_context=multiprocessing.get_context("spawn"),
        initializer=_start,
        initargs=(job, session, n_threads()),
    )
    try:
        pending = {pool.submit(_work, shard): shard for shard in missing}
        while pending:
            done, _ = wait(pending, return_when=FIRST_COMPLETED)
            for future in done:
                future.result()
                yield pending.pop(future)
    except BrokenProcessPool as error:
        raise RunError(
            "expected every worker to live, but one died: killed, out of memory, or its task could not be "
            "unpickled (see above). Finished shards are kept; run again, with fewer workers if memory is short."
        ) from error
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _start(job: Job, session: str, threads: int | None) -> None:
    if threads is not None:
        import torch

        torch.set_num_threads(threads)
    parent = multiprocessing.parent_process()
    if parent is not None:
        threading.Thread(target=_end_with, args=(parent,), daemon=True).start()
    _worker.update(job=job, session=session, ledger=None)


def _end_with(parent: Any) -> None:
    """A killed process cannot tell its workers: without this they would hold their models for ever."""
    parent.join()
    os._exit(1)


def _work(shard: int) -> None:
    job: Job = _worker["job"]
    if _worker["ledger"] is None:
        _open(job)
        _worker["ledger"] = Ledger(job.folder, _worker["session"])
    job.compute(shard, _worker["ledger"])


def _open(job: Job) -> None:
    """See that the task is here what it is there; otherwise every sample would fail, or differ.

    Raises:
        RunError: The task cannot be opened in this process, or describes another study.
    """
    try:
        found = digest(job.task.to_dict())
    except InterpError as error:
        raise RunError(f"a worker process cannot open the task of {job.folder.path}: {error}") from error
    if found != job.folder.digest:
        raise RunError(
            f"expected a worker process to compute the study {job.folder.digest[:12]}, but there it is "
            f"{found[:12]}. Do the processes see different devices, files or versions of interp?"
        )
