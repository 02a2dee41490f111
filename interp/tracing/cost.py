"""What a piece of work cost: time, memory, passes through the model."""

from __future__ import annotations

import sys
import time
from dataclasses import dataclass
from typing import Any

import torch

__all__ = ["Cost", "Meter"]


@dataclass(frozen=True)
class Cost:
    """What a trace took. Costs add up; the peak of a sum is the larger peak.

    Attributes:
        seconds: Wall-clock time, encoding included.
        peak_bytes: Most memory in use: allocated on the GPU during the work, or, on a CPU, the process's
            largest resident set so far.
        forwards: Calls of the model; a prefix, a suffix or a generated token is one each.
        backwards: Backward passes.
        tokens: Token positions that went through the language model, padding included.
    """

    seconds: float = 0.0
    peak_bytes: int = 0
    forwards: int = 0
    backwards: int = 0
    tokens: int = 0

    def __add__(self, other: Cost) -> Cost:
        return Cost(
            self.seconds + other.seconds,
            max(self.peak_bytes, other.peak_bytes),
            self.forwards + other.forwards,
            self.backwards + other.backwards,
            self.tokens + other.tokens,
        )


class Meter:
    """Measures a `with` block. `forwards`, `backwards` and `tokens` are counted by `interp.tracing.passes.run.run_pass`
    and by what differentiates."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self.forwards = self.backwards = self.tokens = 0
        self.cost = Cost()
        self._earlier = 0

    def count(self, cost: Cost) -> None:
        """Counts a part of the block that was measured on its own; its seconds are the block's already."""
        self.forwards += cost.forwards
        self.backwards += cost.backwards
        self.tokens += cost.tokens
        self._earlier = max(self._earlier, cost.peak_bytes)

    def __enter__(self) -> Meter:
        if self._device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self._device)
        self._start = time.perf_counter()
        return self

    def __exit__(self, *exception: Any) -> None:
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)
        seconds = time.perf_counter() - self._start
        peak = max(self._earlier, _peak(self._device))
        self.cost = Cost(seconds, peak, self.forwards, self.backwards, self.tokens)


def _peak(device: torch.device) -> int:
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    if sys.platform == "win32":
        return 0
    import resource

    # Linux counts kibibytes, macOS bytes
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
