"""Runs the fake task many times and kills it: at random moments, or inside a chosen write.

    python tests/run/killed_runs.py moments|behind|writes|together OUT N

It imports and warms up once, and forks, so that a run costs some hundredths of a second. Each experiment has a folder
of its own under OUT; what happened is printed as JSON, one line per experiment.
"""

from __future__ import annotations

import builtins
import json
import os
import random
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from fake_task import Roots  # first: it keeps torch out

from interp.inputs import files
from interp.run import run_task

PLACES = ("half a write", "before fsync", "before rename", "after rename")
TASK = {"n": 16, "bad": (5, 9)}
SEALS = "**/shards/*.json"
"""The files that finish shards, in a run's folder."""
N_WRITES = 29
"""Files that an undisturbed run of this task writes."""


def start(
    out: Path,
    *,
    pause: float = 0.002,
    prepare: Callable[[], None] = lambda: None,
    loaders: int = 0,
    **changes: Any,
) -> int:
    """Run the task in a process of its own; returns the process."""
    child = os.fork()
    if child:
        return child
    status = 1
    try:
        os.fsync = lambda handle: None  # a kill loses nothing that the kernel holds: only order matters here
        prepare()
        run_task(Roots(**{**TASK, "pause": pause, **changes}), out, progress=False, loaders=loaders)
        status = 0
    finally:
        os._exit(status)


def end(child: int) -> bool:
    """Wait; whether the process ended well. Anything but that and a SIGKILL is an error."""
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if status not in (0, -signal.SIGKILL):
        raise SystemExit(f"a run ended with {status}")
    return status == 0


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


class HalfWritten:
    """A file that takes half of what it is given, and then the process is gone."""

    def __init__(self, file: Any) -> None:
        self.file = file

    def __enter__(self) -> HalfWritten:
        return self

    def __exit__(self, *_: object) -> None:
        self.file.close()

    def __getattr__(self, name: str) -> Any:
        return getattr(self.file, name)

    def write(self, data: bytes) -> None:
        self.file.write(data[: len(data) // 2])
        self.file.flush()
        die()


def die_inside(place: str, number: int) -> None:
    """Be killed at this place of the n-th write."""
    begun = [0]
    replace = os.replace

    def opened(path: Any, mode: str) -> Any:
        begun[0] += 1
        file = builtins.open(path, mode)  # noqa: SIM115 – its user closes it
        return HalfWritten(file) if begun[0] == number and place == "half a write" else file

    def synced(handle: int) -> None:
        if begun[0] == number and place == "before fsync":
            die()

    def renamed(source: Any, target: Any) -> None:
        if begun[0] == number and place == "before rename":
            die()
        replace(source, target)
        if begun[0] == number and place == "after rename":
            die()

    files.open, os.fsync, os.replace = opened, synced, renamed  # pyright: ignore


def tell(out: Path, **what: Any) -> None:
    """Print what a killed run left, run it to the end, and go on."""
    left = [str(file.relative_to(out)) for file in out.glob("**/*") if file.is_file()]
    print(json.dumps({"out": str(out), "left": left, **what}), flush=True)
    if not end(start(out, pause=0.0)):
        raise SystemExit("nobody killed this run")


def moments(out: Path, n: int, loaders: int = 0) -> None:
    """n kills at random moments of a run's life; a run that was over is not counted.

    Every second one falls after the first finished shard, however long a busy machine takes to come so far.
    """
    chance, begin = random.Random(7), time.perf_counter()
    end(start(out / "whole", loaders=loaders))
    life, killed = time.perf_counter() - begin, 0
    for number in range(4 * n):
        place = out / str(number)
        child = start(place, loaders=loaders)
        moment = chance.uniform(0.0, life)
        if number % 2:
            _wait_for_a_shard(place, life)
            moment /= 8
        time.sleep(moment)
        os.kill(child, signal.SIGKILL)
        if not end(child):
            killed += 1
            tell(place)
        if killed == n:
            return


def _wait_for_a_shard(out: Path, life: float) -> None:
    """Returns when a shard is finished, or after many times the life of a run."""
    last = time.perf_counter() + 20 * life
    while time.perf_counter() < last and not any(out.glob(SEALS)):
        time.sleep(0.0005)


def behind(out: Path, n: int) -> None:
    """As `moments`, of runs that write each shard while they compute the next one."""
    moments(out, n, loaders=2)


def writes(out: Path, n: int) -> None:
    """n kills inside writes, spread over all of a run's writes and the four places inside each."""
    points = [(write, where) for write in range(1, N_WRITES + 1) for where in PLACES]
    for number, (write, where) in enumerate(random.Random(11).sample(points, n)):
        place = out / str(number)
        if end(start(place, pause=0.0, prepare=lambda where=where, write=write: die_inside(where, write))):
            raise SystemExit(f"a run has fewer than {write} writes")
        tell(place, where=where, write=write)


def together(out: Path, n: int) -> None:
    """n times two runs on one folder, at once; each notes the micro-batches it computes in one file."""
    for number in range(n):
        place = out / str(number)
        children = [start(place, pause=0.003, bad=(), log=f"{place}.log") for _ in range(2)]
        print(json.dumps({"out": str(place), "well": [end(child) for child in children]}), flush=True)


if __name__ == "__main__":
    kind, folder, count = sys.argv[1:]
    run_task(Roots(**TASK), Path(folder, "warm"), progress=False)
    {"moments": moments, "behind": behind, "writes": writes, "together": together}[kind](
        Path(folder), int(count)
    )
