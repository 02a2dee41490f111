"""Computes in halves what is too large for memory; traces and runs use the same function."""

from __future__ import annotations

import gc
import sys
from collections.abc import Callable
from typing import Any, TypeVar

__all__ = ["in_halves", "out_of_memory"]

T = TypeVar("T")
Some = TypeVar("Some")
"""What can be cut by a slice: a tuple, an array."""


def in_halves(
    batch: Some,
    compute: Callable[[Some], T],
    *,
    too_large: Callable[[Some, str], Exception],
    split: Callable[[Some, tuple[Some, Some], str], None] = lambda *_: None,
    free_cache: Callable[[], bool] = lambda: False,
) -> list[T]:
    """What `compute` gives for a batch; for its two halves, or theirs in turn, where that does not fit in memory.

    Args:
        batch: What to compute, one thing or more; it is sliced.
        compute: Computes any part of it.
        too_large: The error for a single thing that does not fit, from it and the problem.
        split: Called at each split with the batch, its halves and the problem.
        free_cache: Drops what is kept for others and returns whether there was anything. It is called before the first
            split, so that nothing is split that would fit alone.

    Raises:
        Exception: What `too_large` makes, or what `compute` raises for other reasons.
    """
    found, problem = _tried(compute, batch)
    if problem and free_cache():
        free_memory()
        found, problem = _tried(compute, batch)
    if not problem:
        return found
    things: Any = batch
    if len(things) == 1:
        raise too_large(batch, problem)
    free_cache()
    free_memory()
    middle = (len(things) + 1) // 2
    halves = (things[:middle], things[middle:])
    split(batch, halves, problem)
    options: dict[str, Any] = {"too_large": too_large, "split": split, "free_cache": free_cache}
    return [one for half in halves for one in in_halves(half, compute, **options)]


def _tried(compute: Callable[[Any], T], batch: Any) -> tuple[list[T], str]:
    """The result as a list of one and "", or nothing and a text if memory ran out.

    It is a text because an exception would keep alive the tensors of the frames that it passed through.
    """
    try:
        return [compute(batch)], ""
    except Exception as error:
        if not out_of_memory(error):
            raise
        return [], f"{type(error).__name__}: {error}"


def out_of_memory(error: BaseException) -> bool:
    """Whether an exception means that memory ran out: torch's or Python's class, or a backend's message."""
    torch = sys.modules.get("torch")
    if isinstance(error, MemoryError) or (torch and isinstance(error, torch.cuda.OutOfMemoryError)):
        return True
    text = str(error).lower()
    return isinstance(error, RuntimeError) and ("out of memory" in text or "can't allocate memory" in text)


def free_memory() -> None:
    """Gives back what nothing holds any more."""
    gc.collect()
    torch = sys.modules.get("torch")
    empty: Callable[[], None] | None = getattr(getattr(torch, "cuda", None), "empty_cache", None)
    if empty is not None:
        empty()
