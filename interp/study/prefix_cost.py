"""What a call would cost alone, where it used an image prefix that another call had computed."""

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
    """Holds prefixes on a shelf, and adds up what those would have cost that a call found there.

    A prefix counts once a call: what the call made or found itself before is its own.

    Attributes:
        shelf: Where they lie.
        device: Where the model runs.
        found: What making those found took, when they were made.
    """

    shelf: ProcessCache
    device: Any
    found: Cost = Cost()  # noqa: RUF009 - frozen
    _seen: set[str] = field(default_factory=set)

    def once(self, key: str, make: Callable[[], Any], size: Callable[[Any], int]) -> tuple[Any, bool]:
        """As `ProcessCache.once`; the time that a prefix takes is written down beside it."""
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
    """The model with a bill of its own for the prefixes that its traces find on the shelf."""
    bill = Bill(shelf, mllm.device)
    if not isinstance(mllm, Mllm) or mllm.prefixes is None:
        return mllm, bill
    return mllm.sharing(Prefixes(bill.once, mllm.prefixes.model)), bill


def _price(value: Any, cost: Cost) -> Cost:
    """One pass over the prefixes, padding included; nothing where they are empty because they would not be exact."""
    if not isinstance(value, Prefix) or not value.keys:
        return Cost(cost.seconds, cost.peak_bytes)
    return Cost(cost.seconds, cost.peak_bytes, 1, 0, len(value.keys[0]) * max(value.lengths))


def stored_cost(cost: Cost) -> dict[str, float]:
    """A cost by name, as runs store it: see `interp.tracing.Cost` for the names and units."""
    return {name: float(value) for name, value in asdict(cost).items()}
