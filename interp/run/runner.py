"""Runs a task's missing shards, here or in worker processes, and joins them."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence

from interp.errors import RunError
from interp.run.join import join_tables
from interp.run.layout import Layout, settle
from interp.run.plan import shards_of
from interp.run.pool import in_processes
from interp.run.progress import Progress
from interp.run.sessions import Ledger, begin_session, publish
from interp.run.shards import Job, schemas_of
from interp.run.store import RunFolder
from interp.run.task import Task

__all__ = ["run_task"]


def run_task(
    task: Task,
    out: str | os.PathLike[str],
    *,
    workers: int = 1,
    progress: bool = True,
    label: str = "",
    part: tuple[int, int] | None = None,
) -> RunFolder:
    """The folder of a finished run; shards already there are not computed again.

    A sample that raises an `InterpError` becomes a row of the failures table, and the rest of its micro-batch
    is computed without it. A micro-batch too large for memory is computed in halves; the manifest says so.
    Any other exception stops the run, with a note which samples were at work; a later call resumes.

    Args:
        task: What to compute.
        out: The folder that holds runs.
        workers: 1 computes in this process; more start processes, each with its own copy of the task (a model
            is loaded once per process). The bytes are the same.
        progress: Show a bar on stderr, or a few lines where that is not a terminal.
        label: What the progress bar calls this run.
        part: (i, n) computes part i of n, 1 ≤ i ≤ n. The tables are joined once every shard is there: by the
            last machine when they share `out`, else by `merge`.

    Raises:
        RunError: The folder cannot be used, a worker died, a sample alone does not fit in memory, or a
            micro-batch fails though each sample passes.
    """
    if workers < 1:
        raise RunError(f"expected workers ≥ 1, got {workers}.")
    layout = Layout.of(task)
    own = shards_of(part, len(layout.plan.shards))
    job = Job(task, RunFolder.create(out, task.name, task.to_dict()))
    settle(job.folder.path, job.folder.digest, layout)
    missing = [shard for shard in own if not job.finished(shard)]
    if missing:
        counts = {"missing": len(missing), "total": len(layout.plan.shards)}
        session = begin_session(
            job.folder, task.provenance(), **counts, **({"part": list(part)} if part else {})
        )
        with Progress(label or job.folder.path.name, layout.plan, missing, own=own, show=progress) as bar:
            for shard in _computed(job, session, missing, workers):
                bar.advance(shard)
    publish(job.folder)
    _join(job, layout, own, anew=bool(missing))
    return job.folder


def _join(job: Job, layout: Layout, own: Sequence[int], *, anew: bool) -> None:
    """Join the tables if every shard is there, and if they are not there or no longer right."""
    n_shards = len(layout.plan.shards)
    others = set(range(n_shards)) - set(own)
    if not all(job.finished(shard) for shard in others):
        return
    if anew or not all(job.folder.has_table(name) for name in layout.joined):
        schemas = schemas_of(job.task)
        join_tables(job.folder, n_shards, {name: schemas[name] for name in layout.joined})


def _computed(job: Job, session: str, missing: list[int], workers: int) -> Iterator[int]:
    if workers == 1 or len(missing) == 1:
        ledger = Ledger(job.folder, session)
        for shard in missing:
            job.compute(shard, ledger)
            yield shard
    else:
        yield from in_processes(job, session, missing, workers)
