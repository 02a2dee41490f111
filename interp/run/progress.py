"""Shows the progress of runs on stderr: a bar for each on a terminal, five lines for each elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from types import TracebackType

from rich.console import Console

from interp.run.plan import Plan
from interp.tracing.passes.progress_bar import bars

__all__ = ["Progress", "Track"]

QUARTERS = 4


class Progress:
    """A context manager with the bars of runs that are computed at the same time."""

    def __init__(self, *, show: bool = True) -> None:
        console = Console(file=sys.stderr)
        self.show = show
        self.bars = bars(console) if show and console.is_terminal else None

    def __enter__(self) -> Progress:
        if self.bars is not None:
            self.bars.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.bars is not None:
            self.bars.stop()

    def say(self, text: str) -> None:
        """Prints a line on stderr, above the bars where there are any."""
        if self.bars is not None:
            self.bars.console.print(text, markup=False, highlight=False, soft_wrap=True)
        elif self.show:
            print(text, file=sys.stderr, flush=True)

    def track(self, label: str, plan: Plan, missing: Sequence[int], *, own: Sequence[int]) -> Track:
        """Starts the bar of a run.

        Args:
            label: The run's name on the bar.
            plan: The run's plan.
            missing: The shards that are not complete yet.
            own: The shards of this part of the run."""
        return Track(self, label, plan, missing, own)


class Track:
    """Counts the samples of one run's finished shards."""

    def __init__(
        self, progress: Progress, label: str, plan: Plan, missing: Sequence[int], own: Sequence[int]
    ) -> None:
        self._sizes = {shard: len(plan.indices(shard)) for shard in missing}
        self._total, self._label = sum(len(plan.indices(shard)) for shard in own), label
        self._done = self._total - sum(self._sizes.values())
        self._start, self._said = time.perf_counter(), self._done * QUARTERS // self._total
        self._progress, bars = progress, progress.bars
        if bars is not None:
            self._bar = bars.add_task(label, total=self._total, completed=self._done)
        elif progress.show:
            kept = f", {self._done} kept from before" if self._done else ""
            self._say(f"{self._total} samples{kept}")

    def advance(self, shard: int) -> None:
        """Counts the samples of a finished shard."""
        self._done += self._sizes[shard]
        if self._progress.bars is not None:
            self._progress.bars.update(self._bar, completed=self._done)
            return
        quarter = self._done * QUARTERS // self._total
        if self._progress.show and quarter > self._said:
            self._said = quarter
            self._say(f"{self._done}/{self._total} samples, {time.perf_counter() - self._start:.0f} s")

    def _say(self, text: str) -> None:
        self._progress.say(f"{self._label}: {text}")
