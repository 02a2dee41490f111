"""The time to a first result in a new process, and what spends it: python benchmarks/cold_start.py

A process of its own imports `interp`, loads the bundled organism and traces one sample, and says how long each step
took. A second one runs under `python -X importtime`; the packages that took most of the imports are listed with the
step that imported them. Wall and CPU time; the fastest of `rounds` processes counts.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections import defaultdict
from dataclasses import dataclass

import tyro

STEPS = ("import interp", "load", "first trace", "second trace")

CODE = """
import json, sys, time
found, marks = {}, []

def step(name, run):
    wall, cpu, before = time.perf_counter(), time.process_time(), set(sys.modules)
    value = run()
    roots = sorted({one.partition(".")[0] for one in set(sys.modules) - before})
    found[name] = [time.perf_counter() - wall, time.process_time() - cpu, roots]
    return value

def imported():
    import interp
    return interp

interp = step("import interp", imported)
mllm = step("load", lambda: interp.load("organism"))
sample = interp.data.bundled("natural", n=1)[0]
rows = interp.Rows(interp.Site(queries="last", keys="image"))
step("first trace", lambda: mllm.trace([sample], reads=[rows]))
step("second trace", lambda: mllm.trace([sample], reads=[rows]))
print(json.dumps(found))
"""


@dataclass(frozen=True)
class ColdStart:
    """How often to start, and how many packages to list."""

    rounds: int = 3
    packages: int = 15


def started(*options: str) -> tuple[dict[str, tuple[float, float, list[str]]], str]:
    """Returns each step's wall seconds, CPU seconds and new packages in a new process, and its stderr."""
    done = subprocess.run([sys.executable, *options, "-c", CODE], check=True, capture_output=True, text=True)
    return json.loads(done.stdout.splitlines()[-1]), done.stderr


def own_times(report: str) -> dict[str, float]:
    """Returns the seconds that the modules of each package took themselves, from a report of `-X importtime`."""
    found: dict[str, float] = defaultdict(float)
    for line in report.splitlines():
        own, _, rest = line.removeprefix("import time:").partition("|")
        if line.startswith("import time:") and own.strip().isdigit():
            found[rest.rpartition("|")[2].strip().partition(".")[0]] += int(own) / 1e6
    return dict(found)


def main(options: ColdStart) -> None:
    """Print the steps' times, and the packages whose import takes most."""
    runs = [started()[0] for _ in range(options.rounds)]
    total = [0.0, 0.0]
    for name in STEPS:
        wall, cpu = min(run[name][0] for run in runs), min(run[name][1] for run in runs)
        if name != "second trace":
            total = [total[0] + wall, total[1] + cpu]
        print(f"{name:14} {wall:6.2f} s, {cpu:6.2f} s of CPU, {len(runs[0][name][2])} new packages")
    print(f"{'first result':14} {total[0]:6.2f} s, {total[1]:6.2f} s of CPU")
    steps, report = started("-X", "importtime")
    where = {package: name for name in reversed(STEPS) for package in steps[name][2]}
    times = own_times(report)
    print(f"imports: {sum(times.values()):.2f} s, measured with -X importtime, which slows them")
    for package, seconds in sorted(times.items(), key=lambda one: -one[1])[: options.packages]:
        print(f"  {package:20} {seconds:5.2f} s, by {where.get(package, 'the interpreter')}")


if __name__ == "__main__":
    main(tyro.cli(ColdStart))
