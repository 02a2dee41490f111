"""Computes one micro-batch: invalid samples become failures, and a batch too large for memory is halved."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import reduce
from typing import Any, TypeVar

from interp.errors import InterpError, RunError
from interp.run.columns import joined_rows
from interp.run.sessions import sum_costs
from interp.run.task import FAILURES, Outcome, Task, failure
from interp.tracing.passes.out_of_memory import in_halves
from interp.tracing.passes.progress_bar import without_bars

__all__ = ["Splits", "compute_batch"]

Splits = list[Mapping[str, Any]]
Indices = tuple[int, ...]
T = TypeVar("T")


def compute_batch(
    task: Task, batch: Indices, splits: Splits, free_cache: Callable[[], bool] = lambda: False
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
    with without_bars():  # a run has its own
        return _Computation(task, splits, free_cache).outcome(batch)


@dataclass(frozen=True)
class _Computation:
    """Computes micro-batches of a task; the fields are the arguments of `compute_batch`."""

    task: Task
    splits: Splits
    free_cache: Callable[[], bool]

    def outcome(self, batch: Indices) -> Outcome:
        """The outcome of a micro-batch, computed in parts that fit."""
        return reduce(_together, self._fitting(batch, self._with_failures))

    def _fitting(self, batch: Indices, compute: Callable[[Indices], T]) -> list[T]:
        return in_halves(
            batch, compute, too_large=self._too_large, split=self._note, free_cache=self.free_cache
        )

    def _with_failures(self, batch: Indices) -> Outcome:
        """The outcome of the samples that can be used, and the others' failures."""
        found = self._computed(batch)
        if isinstance(found, Outcome):
            return found
        if len(batch) == 1:
            return Outcome({FAILURES: [self._failed(batch[0], found)]})
        bad = {
            index: error
            for index in batch
            for error in self._fitting((index,), self._computed)
            if isinstance(error, InterpError)
        }
        if not bad:
            raise RunError(
                f"expected one of the samples {list(batch)} to fail alone as their micro-batch did, but each "
                f"passes. The error of the micro-batch was: {found}"
            ) from found
        failures = Outcome({FAILURES: [self._failed(index, error) for index, error in bad.items()]})
        rest = tuple(index for index in batch if index not in bad)
        return _together(failures, self.outcome(rest)) if rest else failures

    def _computed(self, batch: Indices) -> Outcome | InterpError:
        """The outcome, or the error of an invalid sample.

        Raises:
            RunError: The task itself cannot run; this is not a failure of a sample.
        """
        try:
            return self.task.compute(batch)
        except RunError:
            raise
        except InterpError as error:
            return error

    def _failed(self, index: int, error: InterpError) -> dict[str, Any]:
        return failure(self.task, index, type(error).__name__, str(error))

    def _note(self, batch: Indices, halves: tuple[Indices, Indices], problem: str) -> None:
        self.splits.append(
            {"samples": list(batch), "halves": [list(half) for half in halves], "error": problem}
        )

    def _too_large(self, alone: Indices, problem: str) -> RunError:
        (index,) = alone
        return RunError(
            f"expected sample {index} ({self.task.identity(index)[0]}) to fit in memory, but it does not fit even "
            f"alone ({problem}). The sample is valid: a machine with more memory can compute it. Free memory, use "
            f"fewer workers, a smaller dtype or a larger device, and run again."
        )


def _together(first: Outcome, second: Outcome) -> Outcome:
    names = [*first.rows, *(name for name in second.rows if name not in first.rows)]
    rows = {name: joined_rows([first.rows.get(name, ()), second.rows.get(name, ())]) for name in names}
    return Outcome(rows, sum_costs([first.cost, second.cost]))
