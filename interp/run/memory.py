"""One micro-batch at a time: bad samples are set aside as failures, and one too large for memory is halved."""

from __future__ import annotations

import gc
import sys
from collections.abc import Callable, Mapping
from typing import Any

from interp.errors import InterpError, RunError
from interp.run.sessions import sum_costs
from interp.run.task import FAILURES, Outcome, Task, failure

__all__ = ["Splits", "attempt", "out_of_memory"]

Splits = list[Mapping[str, Any]]


def attempt(
    task: Task, batch: tuple[int, ...], splits: Splits, relieve: Callable[[], bool] = lambda: False
) -> Outcome:
    """The outcome of a micro-batch, its unusable samples set aside as failures.

    A micro-batch that does not fit in memory is computed in halves, and those in halves if need be; each
    split is added to `splits`, because other batches round differently (about 1e-5 in float32).

    Args:
        task: What to compute.
        batch: The samples.
        splits: Gets an entry per split.
        relieve: Lets go of what is held for other tasks, and says whether there was anything. It comes before
            the first split, so that a task is split together with others only where it would be alone.

    Raises:
        RunError: One sample alone does not fit, or a micro-batch fails though each of its samples passes.
    """
    outcome, problem = _roomy(task, batch, relieve)
    if outcome is not None:
        return outcome
    if isinstance(problem, str):
        return _halved(task, batch, problem, splits, relieve)
    if len(batch) == 1:
        return Outcome({FAILURES: [_failed(task, batch[0], problem)]})
    bad = {index: error for index in batch if (error := _error_alone(task, index, relieve)) is not None}
    if not bad:
        raise RunError(
            f"expected one of the samples {list(batch)} to fail alone as their micro-batch did, but each "
            f"passes. The micro-batch said: {problem}"
        ) from problem
    failures = Outcome({FAILURES: [_failed(task, index, error) for index, error in bad.items()]})
    rest = tuple(index for index in batch if index not in bad)
    return _together(failures, attempt(task, rest, splits, relieve)) if rest else failures


def _roomy(
    task: Task, batch: tuple[int, ...], relieve: Callable[[], bool]
) -> tuple[Outcome | None, InterpError | str]:
    """As `_computed`, and once more with nothing held for other tasks when memory ran out."""
    found = _computed(task, batch)
    if isinstance(found[1], str) and found[0] is None and relieve():
        _free_memory()
        return _computed(task, batch)
    return found


def _computed(task: Task, batch: tuple[int, ...]) -> tuple[Outcome | None, InterpError | str]:
    """The outcome; or the error of a bad sample; or, as a text, that memory ran out.

    A text, because an exception would keep the tensors of the frames it went through alive.

    Raises:
        RunError: The task itself cannot run; that is no sample's failure.
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
    task: Task, batch: tuple[int, ...], problem: str, splits: Splits, relieve: Callable[[], bool]
) -> Outcome:
    if len(batch) == 1:
        raise _too_large(task, batch[0], problem)
    relieve()
    _free_memory()
    middle = (len(batch) + 1) // 2
    halves = batch[:middle], batch[middle:]
    splits.append({"samples": list(batch), "halves": [list(half) for half in halves], "error": problem})
    first, second = (attempt(task, half, splits, relieve) for half in halves)
    return _together(first, second)


def _too_large(task: Task, index: int, problem: str) -> RunError:
    return RunError(
        f"expected sample {index} ({task.identity(index)[0]}) to fit in memory, but not even alone it does "
        f"({problem}). It is no failure of the sample: another machine computes it. Free memory, use fewer "
        f"workers, a smaller dtype or a larger device, and run again."
    )


def _error_alone(task: Task, index: int, relieve: Callable[[], bool]) -> InterpError | None:
    outcome, problem = _roomy(task, (index,), relieve)
    if isinstance(problem, str) and outcome is None:
        raise _too_large(task, index, problem)
    return None if isinstance(problem, str) else problem


def _failed(task: Task, index: int, error: InterpError) -> dict[str, Any]:
    return failure(task, index, type(error).__name__, str(error))


def _together(first: Outcome, second: Outcome) -> Outcome:
    names = [*first.rows, *(name for name in second.rows if name not in first.rows)]
    rows = {name: [*first.rows.get(name, ()), *second.rows.get(name, ())] for name in names}
    return Outcome(rows, sum_costs([first.cost, second.cost]))


def out_of_memory(error: BaseException) -> bool:
    """Whether an exception says that memory ran out: torch's own class, Python's, or a backend's sentence."""
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
