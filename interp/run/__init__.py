"""Work cut into shards that survive a kill: a task, its plan, its folder, and the runner that joins them."""

from __future__ import annotations

from interp.run.plan import Plan, make_plan
from interp.run.runner import run_task
from interp.run.store import RunFolder, canonical, digest, folder_name
from interp.run.task import FAILURES, Outcome, Task

__all__ = [
    "FAILURES",
    "Outcome",
    "Plan",
    "RunFolder",
    "Task",
    "canonical",
    "digest",
    "folder_name",
    "make_plan",
    "run_task",
]
