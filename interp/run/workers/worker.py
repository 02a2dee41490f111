"""What runs in a worker: it keeps its tasks and its model between units, and checks that it sees the driver's study.

On clusters without a shared file system a worker sends its files to the driver instead of writing them.
"""

from __future__ import annotations

import os
import pickle
import socket
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import pyarrow as pa

from interp.errors import InterpError, RunError
from interp.inputs.files import digest, write_atomically
from interp.run.prepare import Unit
from interp.run.sessions import Ledger, code_fingerprint, versions
from interp.run.shards import Job, compute_shard
from interp.run.store import RunFolder
from interp.run.task import Portable, ProcessCache

__all__ = [
    "Message",
    "SentFiles",
    "UnwrittenFolder",
    "Worker",
    "WorkerTraceback",
    "about_this_process",
    "raised",
    "store_sent_files",
]


Kind = Literal["ready", "done", "failed", "died"]


SentFiles = Mapping[str, bytes]
"""The content of files by their path in the run's folder, in the order in which they are to be written."""


@dataclass(frozen=True)
class Message:
    """The outcome of a worker's start or of a unit.

    Attributes:
        worker: The worker's number.
        kind: "ready": it started; "done": it computed its unit; "failed": its unit raised an error; "died": it is gone.
        value: What it says about itself; the files it sends by place; the pickled error; or why it died.
    """

    worker: int
    kind: Kind
    value: Any = None


def about_this_process() -> dict[str, str]:
    """Returns the versions that numbers may depend on, and a hash of this package's code."""
    return {**versions(), "interp's code": code_fingerprint()}


class WorkerTraceback(Exception):  # noqa: N818 - it is the cause of an error, never raised itself
    """The traceback of an error in a worker, as text."""

    def __str__(self) -> str:
        return f"\n{self.args[0]}"


def raised(packed: bytes) -> Exception:
    """Returns the error that a worker packed, with the worker's traceback as its cause."""
    error, trace = pickle.loads(packed)
    error.__cause__ = WorkerTraceback(trace)
    return error


def _packed(error: Exception) -> bytes:
    """The error with its traceback; one that cannot be pickled becomes a `RunError` with its text."""
    trace = "".join(traceback.format_exception(error))
    try:
        packed = pickle.dumps((error, trace))
        pickle.loads(packed)
    except Exception:
        notes = " ".join(getattr(error, "__notes__", ()))
        return pickle.dumps(
            (RunError(f"a worker raised {type(error).__name__}: {error} {notes}".strip()), trace)
        )
    return packed


@dataclass
class Worker:
    """A worker between its units.

    Attributes:
        read_group: Returns the pickled jobs of a group by its number.
        threads: The number of torch's threads, as in the driver; None if torch is not imported there.
        device: The device that the worker's models take; None for the device of their `ModelSpec`.
        sends: Whether the worker sends what it computed instead of writing it, and so may be on another machine.
    """

    read_group: Callable[[int], bytes]
    threads: int | None = None
    device: str | None = None
    sends: bool = False
    _group: int = -1
    _jobs: list[Job] = field(default_factory=list)
    _ledgers: dict[int, Ledger] = field(default_factory=dict)
    _shelf: ProcessCache = field(default_factory=ProcessCache)

    def __post_init__(self) -> None:
        if self.threads is not None:
            import torch

            torch.set_num_threads(self.threads)

    def outcome(self, unit: Unit) -> tuple[Kind, Any]:
        """Computes a unit; returns ("done", the files to write by place) or ("failed", the packed error)."""
        try:
            return "done", self._compute(unit)
        except Exception as error:
            return "failed", _packed(error)

    def _compute(self, unit: Unit) -> dict[int, SentFiles]:
        self._open(unit)
        jobs = [self._jobs[place] for place in unit.places]
        if self.sends and isinstance(jobs[0].task, Portable):
            jobs[0].task.check_inputs(jobs[0].task.plan().indices(unit.shard))
        compute_shard([(self._jobs[p], self._ledgers[p]) for p in unit.places], unit.shard, self._shelf)
        folders = {place: self._jobs[place].folder for place in unit.places}
        return {place: one.take() for place, one in folders.items() if isinstance(one, UnwrittenFolder)}

    def _open(self, unit: Unit) -> None:
        """Unpickles the unit's jobs, if they are of another group than the last ones, and checks each new one."""
        if unit.group != self._group:
            self._jobs, self._ledgers = [], {}
            self._jobs, self._group = pickle.loads(self.read_group(unit.group)), unit.group
        for place in unit.places:
            if place not in self._ledgers:
                job = self._jobs[place]
                if self.sends:
                    job = self._jobs[place] = replace(job, folder=UnwrittenFolder.like(job.folder))
                if self.device is not None and isinstance(job.task, Portable):
                    job.task.move(self.device)
                job.use(self._shelf)
                _check(job)
                self._ledgers[place] = Ledger(job.folder, job.session)


def where_am_i() -> str:
    """Returns this process's machine and number, for messages."""
    return f"process {os.getpid()} on {socket.gethostname()}"


def _check(job: Job) -> None:
    """Checks that this process finds the same study as the driver; otherwise every sample would fail or differ.

    Raises:
        RunError: The task cannot be opened in this process, or describes another study.
    """
    try:
        found = digest(job.task.to_dict())
    except InterpError as error:
        raise RunError(
            f"a worker process cannot open the task of {job.folder.path} ({where_am_i()}): {error}"
        ) from error
    if found != job.folder.digest:
        raise RunError(
            f"expected a worker process to compute the study {job.folder.digest[:12]}, but it finds the "
            f"study {found[:12]} ({where_am_i()}). Do the processes see different devices, files or versions of interp?"
        )


@dataclass(frozen=True)
class UnwrittenFolder(RunFolder):
    """A run's folder that holds nothing and keeps in memory what is written to it.

    Its path is that of the driver's folder, which may not exist on the worker's machine, or hold something else.
    """

    files: dict[str, bytes] = field(default_factory=dict)

    @classmethod
    def like(cls, folder: RunFolder) -> UnwrittenFolder:
        """Returns the unwritten folder of the same run."""
        return cls(folder.path, folder.digest)

    def check_there(self) -> None:
        """Does nothing: the driver checks its folder when it writes."""

    def read_shard(self, shard: int, tables: Mapping[str, pa.Schema]) -> dict[str, pa.Table] | None:
        """Returns None: no shard is here."""
        return None

    def read_json(self, name: str, default: Any) -> Any:
        """Returns the default: no file is here."""
        return default

    def take(self) -> dict[str, bytes]:
        """Returns what was written since the last call."""
        taken = dict(self.files)
        self.files.clear()
        return taken

    def _write(self, file: Path, data: bytes) -> None:
        self.files[file.relative_to(self.path).as_posix()] = data


def store_sent_files(folder: RunFolder, files: SentFiles) -> None:
    """Writes what a worker sent into the run's folder, each file atomically and in order: a shard's seal is last.

    Raises:
        RunError: The folder is gone or cannot be written.
    """
    for name, data in files.items():
        folder.check_there()
        write_atomically(folder.path / name, data)
