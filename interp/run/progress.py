"""How far a run is: a bar on a terminal, five lines elsewhere; always on stderr."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bar

from interp.run.plan import Plan

__all__ = ["Progress"]

QUARTERS = 4


class Progress:
    """Counts samples of finished shards. A context manager."""

    def __init__(
        self, label: str, plan: Plan, missing: list[int], *, own: Sequence[int], show: bool = True
    ) -> None:
        self._sizes = {shard: len(plan.indices(shard)) for shard in missing}
        self._total, self._label = sum(len(plan.indices(shard)) for shard in own), label
        self._done = self._total - sum(self._sizes.values())
        self._start, self._said = time.perf_counter(), self._done * QUARTERS // self._total
        self._console = Console(file=sys.stderr)
        self._show = show
        self._bar = _bar(self._console) if show and self._console.is_terminal else None

    def __enter__(self) -> Progress:
        if self._bar is not None:
            self._bar.start()
            self._task = self._bar.add_task(self._label, total=self._total, completed=self._done)
        elif self._show:
            kept = f", {self._done} kept from before" if self._done else ""
            self._say(f"{self._total} samples{kept}")
        return self

    def advance(self, shard: int) -> None:
        """Count the samples of a finished shard."""
        self._done += self._sizes[shard]
        if self._bar is not None:
            self._bar.update(self._task, completed=self._done)
            return
        quarter = self._done * QUARTERS // self._total
        if self._show and quarter > self._said:
            self._said = quarter
            self._say(f"{self._done}/{self._total} samples, {time.perf_counter() - self._start:.0f} s")

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.stop()

    def _say(self, text: str) -> None:
        print(f"{self._label}: {text}", file=sys.stderr, flush=True)


def _bar(console: Console) -> Bar:
    return Bar(
        TextColumn("[bold]{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("samples"),
        TimeRemainingColumn(),
        console=console,
    )
