"""The cost of a call as if it ran alone, where it used an image prefix that another call had computed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import Any

from interp.run import ProcessCache
from interp.tracing import Cost, Mllm, Prefix, Prefixes
from interp.tracing.cost import Meter

__all__ = ["Bill", "billed", "stored_cost"]


@dataclass(eq=False)
class Bill:
    """Keeps prefixes in a process's cache, and adds up the cost of those that a call found there.

    A prefix counts once for each call, and not at all if the call made it itself.

    Attributes:
        shelf: The cache that holds the prefixes.
        device: The device that the model runs on.
        found: The cost, when they were made, of the prefixes that were found.
    """

    shelf: ProcessCache
    device: Any
    found: Cost = Cost()  # noqa: RUF009 - frozen
    _seen: set[str] = field(default_factory=set)

    def once(self, key: str, make: Callable[[], Any], size: Callable[[Any], int]) -> tuple[Any, bool]:
        """As `ProcessCache.once`; the cost of a prefix is stored beside it."""
        prices: list[Cost] = []

        def priced() -> Any:
            with Meter(self.device) as meter:
                value = make()
            prices.append(_price(value, meter.cost))
            return value

        value, known = self.shelf.once(key, priced, size)
        price, _ = self.shelf.once(f"price of {key}", lambda: (prices or [Cost()])[0], lambda _: 0)
        if known and key not in self._seen:
            self.found = self.found + price
        self._seen.add(key)
        return value, known


def billed(mllm: Any, shelf: ProcessCache) -> tuple[Any, Bill]:
    """The model, and the bill of the prefixes that its traces find in the cache."""
    bill = Bill(shelf, mllm.device)
    if not isinstance(mllm, Mllm) or mllm.prefixes is None:
        return mllm, bill
    return mllm.sharing(Prefixes(bill.once, mllm.prefixes.model)), bill


def _price(value: Any, cost: Cost) -> Cost:
    """The cost of one pass over the prefixes, padding included; no pass if they are empty, as inexact ones are."""
    if not isinstance(value, Prefix) or not value.keys:
        return Cost(cost.seconds, cost.peak_bytes)
    return Cost(cost.seconds, cost.peak_bytes, 1, 0, len(value.keys[0]) * max(value.lengths))


def stored_cost(cost: Cost) -> dict[str, float]:
    """A cost by name, as runs store it: see `interp.tracing.Cost` for the names and units."""
    return {name: float(value) for name, value in asdict(cost).items()}
