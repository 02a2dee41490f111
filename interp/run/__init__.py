"""Runs tasks in shards that survive a kill: a task, its plan, its folder, and the runner that joins the shards."""

from __future__ import annotations

from interp.run.listing import runs
from interp.run.merge import merge
from interp.run.plan import Plan, as_part, make_plan
from interp.run.runner import check_options, run_task, run_tasks
from interp.run.sessions import cost_of, manifest_of
from interp.run.store import RunFolder, canonical, digest, folder_name
from interp.run.task import FAILURES, UNDEFINED, Outcome, Portable, ProcessCache, Sharing, Task, Watched
from interp.run.workers import Workers

__all__ = [
    "FAILURES",
    "UNDEFINED",
    "Outcome",
    "Plan",
    "Portable",
    "ProcessCache",
    "RunFolder",
    "Sharing",
    "Task",
    "Watched",
    "Workers",
    "as_part",
    "canonical",
    "check_options",
    "cost_of",
    "digest",
    "folder_name",
    "make_plan",
    "manifest_of",
    "merge",
    "run_task",
    "run_tasks",
    "runs",
]
