"""A task made ready to run: its folder, its missing shards, its session; and which tasks are computed abreast."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import pyarrow as pa

from interp.run.plan import shards_of
from interp.run.progress import Progress, Track
from interp.run.sessions import begin_session, publish
from interp.run.shards import Job, finished, schemas_of
from interp.run.store import Layout, RunFolder, join_tables, settle
from interp.run.task import Sharing, Task

__all__ = ["Order", "Unit", "units_of"]

ABREAST = 16
"""Tasks of one kin that are computed at the same time: the rows of each wait in memory until its shard is whole."""


@dataclass
class Order:
    """A task's run, without the task: what it takes to see how far it is, and to finish it.

    Attributes:
        folder: Its folder.
        layout: Its plan and tables.
        schemas: The schema of each table.
        own: The shards of the part asked for.
        missing: Those of them that are not there yet.
        session: The session that computes them; empty when none is missing.
        kin: Which orders are computed abreast with it.
        track: Its progress.
    """

    folder: RunFolder
    layout: Layout
    schemas: Mapping[str, pa.Schema]
    own: tuple[int, ...]
    missing: list[int] = field(default_factory=list)
    session: str = ""
    kin: str = ""
    track: Track | None = None

    @classmethod
    def of(
        cls,
        label: str,
        task: Task,
        out: str | os.PathLike[str],
        part: tuple[int, int] | None,
        progress: Progress,
    ) -> Order:
        """The order of a task; a session begins if there is something to compute.

        Raises:
            RunError: The part is none, or the folder cannot be used.
        """
        layout = Layout.of(task)
        own = shards_of(part, len(layout.plan.shards))
        order = cls(RunFolder.create(out, task.name, task.to_dict()), layout, schemas_of(task), own)
        settle(order.folder.path, order.folder.digest, layout)
        order.missing = [shard for shard in own if not order.finished(shard)]
        order.kin = task.kin if isinstance(task, Sharing) else order.folder.path.name
        if order.missing:
            counts = {"missing": len(order.missing), "total": len(layout.plan.shards)}
            more = {"part": list(part)} if part else {}
            order.session = begin_session(order.folder, task.provenance(), **counts, **more)
            name = label or order.folder.path.name
            order.track = progress.track(name, layout.plan, order.missing, own=own)
        return order

    def job(self, task: Task) -> Job:
        """The work itself."""
        return Job(task, self.folder, self.session)

    def finished(self, shard: int) -> bool:
        """Whether a shard is whole."""
        return finished(self.folder, self.layout.plan, self.schemas, shard)

    def advance(self, shard: int) -> None:
        """Count a shard that was just computed."""
        if self.track is not None:
            self.track.advance(shard)

    def finish(self) -> None:
        """Publish what it cost; join the tables if every shard is there, and they are not, or no longer right."""
        publish(self.folder)
        n_shards = len(self.layout.plan.shards)
        if not all(self.finished(shard) for shard in set(range(n_shards)) - set(self.own)):
            return
        if self.missing or not all(self.folder.has_table(name) for name in self.layout.joined):
            join_tables(self.folder, n_shards, {name: self.schemas[name] for name in self.layout.joined})


@dataclass(frozen=True)
class Unit:
    """The least that is computed at once: one shard of the orders at these places of a group."""

    group: int
    places: tuple[int, ...]
    shard: int


def units_of(group: int, orders: Sequence[Order]) -> list[Unit]:
    """The units of a group of orders, those of one kin after each other."""
    lanes: dict[tuple[str, int], list[int]] = {}
    counts: dict[str, int] = {}
    for place, order in enumerate(orders):
        if order.missing:
            counts[order.kin] = counts.get(order.kin, 0) + 1
            lanes.setdefault((order.kin, (counts[order.kin] - 1) // ABREAST), []).append(place)
    units = []
    for places in lanes.values():
        for shard in sorted({shard for place in places for shard in orders[place].missing}):
            here = tuple(place for place in places if shard in orders[place].missing)
            units.append(Unit(group, here, shard))
    return units
