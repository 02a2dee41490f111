"""How much faster several workers are than one: python benchmarks/workers.py [--workers 2] [--where processes ray]

A `LayerSweep` of relative attention over rendered scenes on the bundled organism, which runs on one thread, once with
one worker and once with several, on local processes and on a private Ray. Samples per second are taken from when every
worker has finished a shard, so that starting processes and loading the model do not count, to when the last shard is
stored. What starting takes is printed beside. The ratio needs as many free cores as there are workers: the load of the
machine is printed too.
"""

from __future__ import annotations

import json
import os
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import tyro

import interp
from interp.run import Workers

TARGET = 1.8
"""Two workers against one, where two cores are free."""


@dataclass(frozen=True)
class Scaling:
    """How many samples and rounds, how many workers, and what runs them."""

    samples: int = 512
    workers: int = 2
    where: tuple[Literal["processes", "ray"], ...] = ("processes", "ray")
    batch: int = 4
    rounds: int = 1


@dataclass(frozen=True)
class Measured:
    """A run: samples per second once all workers are at work, and the seconds before the first shard was stored."""

    rate: float
    start: float


def measured(options: Scaling, workers: Workers) -> Measured:
    """Runs the sweep in an empty folder and reads from the files when each shard was stored."""
    indicator = interp.indicators.Attention(relative_to=interp.GENERIC_PROMPT)
    data = interp.data.bundled("natural", n=options.samples)
    study = interp.LayerSweep(data=data, indicator=indicator, batch=options.batch)
    with tempfile.TemporaryDirectory() as out:
        began = time.time()
        study.run(out, workers=workers, progress=False)
        (folder,) = Path(out).iterdir()
        plan = json.loads((folder / "plan.json").read_text())["shards"]
        seals = sorted((folder / "shards").glob("*.json"), key=lambda file: file.stat().st_mtime)
        times = [file.stat().st_mtime for file in seals]
    n_samples = [sum(len(batch) for batch in plan[int(file.stem)]) for file in seals]
    skip = 2 * workers.n  # every worker has finished one, unless one is twice as fast as another
    return Measured(sum(n_samples[skip:]) / (times[-1] - times[skip - 1]), times[0] - began)


def main(options: Scaling) -> None:
    """Print samples per second and the ratio for each way to run workers."""
    print(f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f} before, {options.samples} samples")
    for where in options.where:
        # one worker is a process of the same kind, so that only their number differs
        one = Workers(1, address="local") if where == "ray" else Workers(1, devices=("cpu",))
        several = Workers(options.workers, address=one.address, devices=one.devices)
        for _ in range(options.rounds):
            single, many = measured(options, one), measured(options, several)
            print(
                f"{where}: 1 worker {single.rate:.1f} samples/s, {several.n} workers {many.rate:.1f} samples/s, "
                f"ratio {many.rate / single.rate:.2f} (target ≥ {TARGET} for 2); first shard after "
                f"{single.start:.0f} s and {many.start:.0f} s; load {os.getloadavg()[0]:.1f}",
                flush=True,
            )


if __name__ == "__main__":
    main(tyro.cli(Scaling))
