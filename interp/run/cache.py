"""What one process keeps while it computes: an opened model, and values that the next task may need too.

Everything is in memory and gone with the process: a value is kept from the task that made it to the tasks that
compute the same micro-batch after it, so nothing has to outlive a kill or travel between processes.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import Any, TypeVar

__all__ = ["BUDGET", "ProcessCache"]

T = TypeVar("T")

BUDGET = 4 * 2**30
"""Bytes that the values on a shelf may take together. An image prefix of a 7B model takes about 300 MB per sample
at 576 image tokens in 16 bits, so this holds that of one micro-batch of 8, and of several for smaller models."""


class ProcessCache:
    """One opened model, and values by key: least recently used out first, never more than `budget` bytes.

    A key must say all that its value depends on: who finds a value may not be able to tell it from its own.
    """

    def __init__(self, budget: int = BUDGET) -> None:
        self.budget = budget
        self._values: OrderedDict[str, tuple[Any, int]] = OrderedDict()
        self._model: tuple[Any, Any] | None = None

    @property
    def n_bytes(self) -> int:
        """What the values take."""
        return sum(size for _, size in self._values.values())

    def model(self, key: Any, load: Callable[[], T]) -> T:
        """The model of this key; another one is let go of before it is loaded."""
        if self._model is None or self._model[0] != key:
            self._model = None
            self.clear()
            self._model = key, load()
        return self._model[1]

    def once(self, key: str, make: Callable[[], T], size: Callable[[T], int]) -> tuple[T, bool]:
        """The value of this key, and whether it was there; otherwise `make` makes it.

        A value larger than the budget is not kept. When `make` raises, nothing changes.
        """
        if key in self._values:
            self._values.move_to_end(key)
            return self._values[key][0], True
        value = make()
        taken = size(value)
        if taken <= self.budget:
            self._values[key] = value, taken
            while self.n_bytes > self.budget:
                self._values.popitem(last=False)
        return value, False

    def clear(self) -> bool:
        """Let go of the values, not of the model; whether there were any."""
        held = bool(self._values)
        self._values.clear()
        return held
