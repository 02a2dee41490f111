"""Computes one micro-batch: invalid samples become failures, and a batch too large for memory is halved."""

from __future__ import annotations

import gc
import sys
from collections.abc import Callable, Mapping
from typing import Any

from interp.errors import InterpError, RunError
from interp.run.columns import joined_rows
from interp.run.sessions import sum_costs
from interp.run.task import FAILURES, Outcome, Task, failure

__all__ = ["Splits", "compute_batch", "out_of_memory"]

Splits = list[Mapping[str, Any]]


def compute_batch(
    task: Task, batch: tuple[int, ...], splits: Splits, free_cache: Callable[[], bool] = lambda: False
) -> Outcome:
    """Returns the outcome of a micro-batch, with its unusable samples as failures.

    A micro-batch that does not fit in memory is computed in halves, and these again in halves if necessary. Each
    split is added to `splits`, because batches of another size round differently (about 1e-5 in float32).

    Args:
        task: What to compute.
        batch: The samples.
        splits: One entry is added for each split.
        free_cache: Drops what is kept for other tasks and returns whether there was anything. It is called before
            the first split, so that a task that runs together with others is split only where it would be alone.

    Raises:
        RunError: A single sample does not fit, or a micro-batch fails although each of its samples passes.
    """
    outcome, problem = _computed_with_room(task, batch, free_cache)
    if outcome is not None:
        return outcome
    if isinstance(problem, str):
        return _halved(task, batch, problem, splits, free_cache)
    if len(batch) == 1:
        return Outcome({FAILURES: [_failed(task, batch[0], problem)]})
    bad = {index: error for index in batch if (error := _error_alone(task, index, free_cache)) is not None}
    if not bad:
        raise RunError(
            f"expected one of the samples {list(batch)} to fail alone as their micro-batch did, but each "
            f"passes. The error of the micro-batch was: {problem}"
        ) from problem
    failures = Outcome({FAILURES: [_failed(task, index, error) for index, error in bad.items()]})
    rest = tuple(index for index in batch if index not in bad)
    return _together(failures, compute_batch(task, rest, splits, free_cache)) if rest else failures


def _computed_with_room(
    task: Task, batch: tuple[int, ...], free_cache: Callable[[], bool]
) -> tuple[Outcome | None, InterpError | str]:
    """Like `_computed`, but tries once more with an empty cache if memory ran out."""
    found = _computed(task, batch)
    if isinstance(found[1], str) and found[0] is None and free_cache():
        _free_memory()
        return _computed(task, batch)
    return found


def _computed(task: Task, batch: tuple[int, ...]) -> tuple[Outcome | None, InterpError | str]:
    """Returns the outcome, or the error of an invalid sample, or a text if memory ran out.

    It is a text because an exception would keep alive the tensors of the frames that it passed through.

    Raises:
        RunError: The task itself cannot run; this is not a failure of a sample.
    """
    try:
        return task.compute(batch), ""
    except RunError:
        raise
    except InterpError as error:
        return None, error
    except Exception as error:
        if not out_of_memory(error):
            raise
        return None, f"{type(error).__name__}: {error}"


def _halved(
    task: Task, batch: tuple[int, ...], problem: str, splits: Splits, free_cache: Callable[[], bool]
) -> Outcome:
    if len(batch) == 1:
        raise _too_large(task, batch[0], problem)
    free_cache()
    _free_memory()
    middle = (len(batch) + 1) // 2
    halves = batch[:middle], batch[middle:]
    splits.append({"samples": list(batch), "halves": [list(half) for half in halves], "error": problem})
    first, second = (compute_batch(task, half, splits, free_cache) for half in halves)
    return _together(first, second)


def _too_large(task: Task, index: int, problem: str) -> RunError:
    return RunError(
        f"expected sample {index} ({task.identity(index)[0]}) to fit in memory, but it does not fit even "
        f"alone ({problem}). The sample is valid: a machine with more memory can compute it. Free memory, use fewer "
        f"workers, a smaller dtype or a larger device, and run again."
    )


def _error_alone(task: Task, index: int, free_cache: Callable[[], bool]) -> InterpError | None:
    outcome, problem = _computed_with_room(task, (index,), free_cache)
    if isinstance(problem, str) and outcome is None:
        raise _too_large(task, index, problem)
    return None if isinstance(problem, str) else problem


def _failed(task: Task, index: int, error: InterpError) -> dict[str, Any]:
    return failure(task, index, type(error).__name__, str(error))


def _together(first: Outcome, second: Outcome) -> Outcome:
    names = [*first.rows, *(name for name in second.rows if name not in first.rows)]
    rows = {name: joined_rows([first.rows.get(name, ()), second.rows.get(name, ())]) for name in names}
    return Outcome(rows, sum_costs([first.cost, second.cost]))


def out_of_memory(error: BaseException) -> bool:
    """Whether an exception means that memory ran out: torch's or Python's class, or a backend's message."""
    torch = sys.modules.get("torch")
    if isinstance(error, MemoryError) or (torch and isinstance(error, torch.cuda.OutOfMemoryError)):
        return True
    text = str(error).lower()
    return isinstance(error, RuntimeError) and ("out of memory" in text or "can't allocate memory" in text)


def _free_memory() -> None:
    gc.collect()
    torch = sys.modules.get("torch")
    empty: Callable[[], None] | None = getattr(getattr(torch, "cuda", None), "empty_cache", None)
    if empty is not None:
        empty()
