"""Runs a task's missing shards, here or in worker processes, and joins them."""

from __future__ import annotations

import multiprocessing
import os
import time
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import FIRST_EXCEPTION, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from typing import Any

import numpy as np
import pyarrow as pa

from interp.errors import InterpError, RunError
from interp.run.manifest import n_threads, record_session
from interp.run.plan import Plan
from interp.run.progress import Progress
from interp.run.store import RunFolder
from interp.run.task import FAILURE_SCHEMA, FAILURES, Outcome, Task, failure

__all__ = ["run_task"]


def run_task(
    task: Task,
    out: str | os.PathLike[str],
    *,
    workers: int = 1,
    progress: bool = True,
    label: str = "",
) -> RunFolder:
    """The folder of a finished run; shards already there are not computed again.

    A sample that raises an `InterpError` becomes a row of the failures table and the rest of its micro-batch
    is computed without it. Any other exception stops the run, with a note saying which samples were at work;
    a later call resumes.

    Args:
        task: What to compute.
        out: The folder that holds runs.
        workers: 1 computes in this process; more start processes that each hold their own copy of the task
            (a model is loaded once per process). The bytes are the same.
        progress: Show a bar on stderr, or a few lines where that is not a terminal.
        label: What the progress bar calls this run.

    Raises:
        RunError: The folder cannot be used, a worker died, or a micro-batch fails though each sample passes.
    """
    if workers < 1:
        raise RunError(f"expected workers ≥ 1, got {workers}.")
    folder = RunFolder.create(out, task.name, task.to_dict())
    plan, schemas = task.plan(), _schemas(task)
    missing = [shard for shard in range(len(plan.shards)) if not _finished(folder, plan, schemas, shard)]
    if missing:
        record_session(folder, task.provenance(), missing=len(missing), total=len(plan.shards))
        with Progress(label or folder.path.name, plan, missing, show=progress) as bar:
            for shard, cost in _results(task, folder, missing, workers):
                _add_cost(folder, shard, cost)
                bar.advance(shard)
    joined = (*task.joined(), FAILURES)
    if missing or not all(folder.has_table(name) for name in joined):
        _join(folder, plan, {name: schemas[name] for name in joined})
    return folder


def _schemas(task: Task) -> dict[str, pa.Schema]:
    return {**task.schemas(), FAILURES: FAILURE_SCHEMA}


def _finished(folder: RunFolder, plan: Plan, schemas: Mapping[str, pa.Schema], shard: int) -> bool:
    """Whether a shard is whole and speaks of every sample planned for it, and of no other."""
    tables = folder.read_shard(shard, schemas)
    if tables is None:
        return False
    seen = {index for table in tables.values() for index in table.column("index").to_pylist()}
    return seen == set(plan.indices(shard))


def _results(
    task: Task, folder: RunFolder, missing: list[int], workers: int
) -> Iterator[tuple[int, dict[str, float]]]:
    if workers == 1 or len(missing) == 1:
        for shard in missing:
            yield shard, compute_shard(task, folder, shard)
    else:
        yield from _in_processes(task, folder, missing, workers)


def compute_shard(task: Task, folder: RunFolder, shard: int) -> dict[str, float]:
    """Compute and store one shard; returns its cost."""
    start = time.perf_counter()
    schemas = _schemas(task)
    rows: dict[str, list[Mapping[str, Any]]] = {name: [] for name in schemas}
    cost: dict[str, float] = {}
    for batch in task.plan().shards[shard]:
        outcome = _attempt_with_context(task, folder, shard, batch)
        for name, more in outcome.rows.items():
            rows[name].extend(more)
        cost = _sum_costs([cost, outcome.cost])
    folder.write_shard(shard, {name: _table(rows[name], schemas[name]) for name in schemas})
    return {**cost, "wall_seconds": time.perf_counter() - start}


def _attempt_with_context(task: Task, folder: RunFolder, shard: int, batch: tuple[int, ...]) -> Outcome:
    try:
        return _attempt(task, batch)
    except Exception as error:
        ids = ", ".join(task.identity(index)[0] for index in batch)
        error.add_note(
            f"in run {folder.path}, shard {shard}, samples {list(batch)} (ids {ids}). Finished shards are "
            f"kept: run again to resume."
        )
        raise


def _attempt(task: Task, batch: tuple[int, ...]) -> Outcome:
    """The outcome of a micro-batch, its unusable samples set aside as failures."""
    try:
        return task.compute(batch)
    except InterpError as error:
        if len(batch) == 1:
            return Outcome({FAILURES: [failure(task, batch[0], type(error).__name__, str(error))]})
        first = error
    bad = {index: error for index in batch if (error := _error_alone(task, index)) is not None}
    if not bad:
        raise RunError(
            f"expected one of the samples {list(batch)} to fail alone as their micro-batch did, but each "
            f"passes. The micro-batch said: {first}"
        ) from first
    failures = [failure(task, index, type(error).__name__, str(error)) for index, error in bad.items()]
    rest = tuple(index for index in batch if index not in bad)
    if not rest:
        return Outcome({FAILURES: failures})
    outcome = _attempt(task, rest)
    return Outcome({**outcome.rows, FAILURES: [*failures, *outcome.rows.get(FAILURES, ())]}, outcome.cost)


def _error_alone(task: Task, index: int) -> InterpError | None:
    try:
        task.compute((index,))
    except InterpError as error:
        return error
    return None


def _table(rows: list[Mapping[str, Any]], schema: pa.Schema) -> pa.Table:
    """Rows by sample; those of one sample stay in the order they were computed."""
    ordered = sorted(rows, key=lambda row: row["index"])
    return pa.Table.from_pylist([dict(row) for row in ordered], schema=schema)


def _sum_costs(costs: Iterable[Mapping[str, float]]) -> dict[str, float]:
    """Sums, except for peaks, of which the largest counts."""
    total: dict[str, float] = {}
    for cost in costs:
        for name, value in cost.items():
            join = max if name.startswith("peak") else float.__add__
            total[name] = join(total[name], float(value)) if name in total else float(value)
    return total


def _add_cost(folder: RunFolder, shard: int, cost: Mapping[str, float]) -> None:
    shards = folder.read_json("cost.json", {}).get("shards", {}) | {str(shard): dict(cost)}
    folder.write_json("cost.json", {"shards": shards, "total": _sum_costs(shards.values())})


def _join(folder: RunFolder, plan: Plan, schemas: Mapping[str, pa.Schema]) -> None:
    """The tables over all shards, in the order of the samples."""
    parts: dict[str, list[pa.Table]] = {name: [] for name in schemas}
    for shard in range(len(plan.shards)):
        tables = folder.read_shard(shard, schemas)
        if tables is None:
            raise RunError(
                f"expected shard {shard} of {folder.path} to be whole after it was written. Is the disk "
                f"failing, or does another program write there? Run again."
            )
        for name, table in tables.items():
            parts[name].append(table)
    for name, tables in parts.items():
        joined = pa.concat_tables([table.replace_schema_metadata(None) for table in tables])
        order = np.argsort(joined.column("index").to_numpy(), kind="stable")
        folder.write_table(name, joined.take(order).combine_chunks())


_worker: dict[str, Any] = {}


def _in_processes(
    task: Task, folder: RunFolder, missing: list[int], workers: int
) -> Iterator[tuple[int, dict[str, float]]]:
    """Shards from spawned processes, each with the number of threads this one has."""
    pool = ProcessPoolExecutor(
        max_workers=min(workers, len(missing)),
        mp_context=multiprocessing.get_context("spawn"),
        initializer=_start_worker,
        initargs=(task, folder, n_threads()),
    )
    try:
        pending = {pool.submit(_work, shard): shard for shard in missing}
        while pending:
            done, _ = wait(pending, return_when=FIRST_EXCEPTION, timeout=0.2)
            for future in done:
                shard = pending.pop(future)
                yield shard, future.result()
    except BrokenProcessPool as error:
        raise RunError(
            "expected every worker to live, but one died: out of memory, or its model could not be loaded "
            "(see above). Finished shards are kept; run again with fewer workers."
        ) from error
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _start_worker(task: Task, folder: RunFolder, threads: int | None) -> None:
    if threads is not None:
        import torch

        torch.set_num_threads(threads)
    _worker.update(task=task, folder=folder)


def _work(shard: int) -> dict[str, float]:
    return compute_shard(_worker["task"], _worker["folder"], shard)
