"""What a finished run's folder holds: the plan and its tables, stored so that parts can be joined without a model.

`plan.json` is a function of the task alone. It carries its own sha256, so that a damaged one is told from
another plan.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from interp.errors import RunError
from interp.run.files import digest, read_json, write_atomically
from interp.run.plan import Plan
from interp.run.task import FAILURES, Task
from interp.run.versions import SCHEMA_VERSION

__all__ = ["Layout", "read_layout", "settle", "stored_version"]

FILE = "plan.json"


@dataclass(frozen=True)
class Layout:
    """The plan, the names of a shard's tables, and which of them are joined over all shards."""

    plan: Plan
    tables: tuple[str, ...]
    joined: tuple[str, ...]

    @classmethod
    def of(cls, task: Task) -> Layout:
        """The layout of a task's run."""
        return cls(task.plan(), tuple(sorted((*task.schemas(), FAILURES))), (*task.joined(), FAILURES))

    def encode(self, run: str) -> bytes:
        """The bytes of `plan.json` for the run with this hash."""
        value = {
            "version": SCHEMA_VERSION,
            "run": run,
            "shards": [[list(batch) for batch in shard] for shard in self.plan.shards],
            "tables": list(self.tables),
            "joined": list(self.joined),
        }
        return (json.dumps({**value, "sha256": digest(value)}, sort_keys=True) + "\n").encode()


def read_layout(path: Path, run: str) -> Layout | None:
    """The layout stored in a run's folder; None when it is absent, damaged or another run's."""
    value = _whole(path)
    if value is None or value.get("run") != run or value.get("version") != SCHEMA_VERSION:
        return None
    shards = tuple(tuple(tuple(batch) for batch in shard) for shard in value["shards"])
    return Layout(Plan(shards), tuple(value["tables"]), tuple(value["joined"]))


def stored_version(path: Path) -> Any:
    """The version of the store that planned a folder; None when its plan is absent or damaged."""
    value = _whole(path)
    return None if value is None else value.get("version")


def settle(path: Path, run: str, layout: Layout) -> None:
    """Store the layout, or see that the one stored is the same.

    Raises:
        RunError: Another plan is stored: shards of two plans must not be mixed. Or it cannot be written.
    """
    stored = read_layout(path, run)
    if stored is None:
        write_atomically(path / FILE, layout.encode(run))
    elif stored != layout:
        raise RunError(
            f"expected {path / FILE} to hold the plan of this study, but it holds another: interp's way of "
            f"batching has changed since. Move {path} away and run the study again, or use the interp that "
            f"wrote it (the commit is in its manifest.json)."
        )


def _whole(path: Path) -> Mapping[str, Any] | None:
    value = read_json(path / FILE)
    if not isinstance(value, dict):
        return None
    rest = {key: part for key, part in value.items() if key != "sha256"}
    return rest if value.get("sha256") == digest(rest) else None
