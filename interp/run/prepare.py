"""Prepares tasks to run: folders, missing shards, sessions, progress, and which tasks are computed together."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import TracebackType

import pyarrow as pa
from rich.console import Console

from interp.errors import RunError
from interp.inputs.text import count
from interp.run.merge import join_tables
from interp.run.plan import Plan, shards_of
from interp.run.sessions import begin_session, publish
from interp.run.shards import Job, finished, schemas_of
from interp.run.store import RunFolder, StoredPlan, store_plan
from interp.run.task import Sharing, Task
from interp.tracing.passes.progress_bar import bars

__all__ = ["PreparedTask", "Progress", "Track", "Unit", "units_of"]


MOST_TOGETHER = 16
"""The largest number of tasks computed together; the rows of each wait in memory until its shard is complete."""


@dataclass
class PreparedTask:
    """A task's run, without the task itself: what is needed to follow its progress and to finish it.

    Attributes:
        folder: The run's folder.
        layout: The run's plan and tables.
        schemas: The schema of each table.
        own: The shards of this part of the run.
        missing: The shards of this part that are not complete yet.
        session: The session that computes the missing shards; empty if none is missing.
        sharing_key: The sharing key; tasks with the same key are computed together.
        track: The progress bar of the run.
    """

    folder: RunFolder
    layout: StoredPlan
    schemas: Mapping[str, pa.Schema]
    own: tuple[int, ...]
    missing: list[int] = field(default_factory=list)
    session: str = ""
    sharing_key: str = ""
    track: Track | None = None

    @classmethod
    def of(
        cls,
        label: str,
        task: Task,
        out: str | os.PathLike[str],
        part: tuple[int, int] | None,
        progress: Progress,
    ) -> PreparedTask:
        """Prepares a task; begins a session if there is something to compute.

        Raises:
            RunError: The part is invalid, or the folder cannot be used.
        """
        layout = StoredPlan.of(task)
        own = shards_of(part, len(layout.plan.shards))
        order = cls(RunFolder.create(out, task.name, task.to_dict()), layout, schemas_of(task), own)
        store_plan(order.folder.path, order.folder.digest, layout)
        order.missing = [shard for shard in own if not order.finished(shard)]
        order.sharing_key = task.sharing_key if isinstance(task, Sharing) else order.folder.path.name
        if order.missing:
            counts = {"missing": len(order.missing), "total": len(layout.plan.shards)}
            more = {"part": list(part)} if part else {}
            order.session = begin_session(order.folder, task.provenance(), **counts, **more)
            name = label or order.folder.path.name
            order.track = progress.track(name, layout.plan, order.missing, own=own)
        return order

    def job(self, task: Task, loaders: int = 0) -> Job:
        """Returns the job that computes the task in this folder and session, with so many loaders."""
        return Job(task, self.folder, self.session, loaders)

    def finished(self, shard: int) -> bool:
        """Whether a shard is complete."""
        return finished(self.folder, self.layout.plan, self.schemas, shard)

    def advance(self, shard: int) -> None:
        """Counts a shard that was just computed."""
        if self.track is not None:
            self.track.advance(shard)

    def finish(self) -> None:
        """Publishes the cost; joins the tables if every shard is complete and they are absent or outdated.

        Raises:
            RunError: The folder, or a shard of this part, was deleted while the task ran.
        """
        self._check_whole()
        publish(self.folder)
        n_shards = len(self.layout.plan.shards)
        if not all(self.finished(shard) for shard in set(range(n_shards)) - set(self.own)):
            return
        if self.missing or not all(self.folder.has_table(name) for name in self.layout.joined):
            joined = {name: self.schemas[name] for name in self.layout.joined}
            join_tables(self.folder, n_shards, joined, n_samples=self.layout.plan.n_samples)

    def _check_whole(self) -> None:
        self.folder.check_there()
        lost = [shard for shard in self.own if not self.folder.has_shard(shard, self.layout.tables)]
        if lost:
            raise RunError(
                f"expected every shard of {self.folder.path} to stay while the study ran, but shards {lost} are "
                f"gone. Did another program delete files there? Run again: only what is missing is computed."
            )
        store_plan(self.folder.path, self.folder.digest, self.layout)


@dataclass(frozen=True)
class Unit:
    """The smallest piece of work: one shard of the tasks at these places of a group."""

    group: int
    places: tuple[int, ...]
    shard: int


def units_of(group: int, orders: Sequence[PreparedTask]) -> list[Unit]:
    """Returns the units of a group of prepared tasks; units with the same sharing key follow each other."""
    lanes: dict[tuple[str, int], list[int]] = {}
    counts: dict[str, int] = {}
    for place, order in enumerate(orders):
        if order.missing:
            counts[order.sharing_key] = counts.get(order.sharing_key, 0) + 1
            lanes.setdefault(
                (order.sharing_key, (counts[order.sharing_key] - 1) // MOST_TOGETHER), []
            ).append(place)
    units = []
    for places in lanes.values():
        for shard in sorted({shard for place in places for shard in orders[place].missing}):
            here = tuple(place for place in places if shard in orders[place].missing)
            units.append(Unit(group, here, shard))
    return units


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
            self._say(f"{count(self._total, 'sample')}{kept}")

    def advance(self, shard: int) -> None:
        """Counts the samples of a finished shard."""
        self._done += self._sizes[shard]
        if self._progress.bars is not None:
            self._progress.bars.update(self._bar, completed=self._done)
            return
        quarter = self._done * QUARTERS // self._total
        if self._progress.show and quarter > self._said:
            self._said = quarter
            self._say(
                f"{self._done}/{count(self._total, 'sample')}, {time.perf_counter() - self._start:.0f} s"
            )

    def _say(self, text: str) -> None:
        self._progress.say(f"{self._label}: {text}")
