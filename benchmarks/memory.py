"""The peak memory of a layer sweep by the number of samples: python benchmarks/memory.py

Each number of samples runs in a process of its own: a `LayerSweep` of relative attention over rendered scenes, on a
LLaVA of two layers whose passes take a millisecond, tables included. The peak is the process's largest
resident memory (VmHWM), the interpreter and its libraries included. Scenes are drawn when they are read: what would
grow is what a run keeps of them. The peak after `result.summary()`, whose frames hold every score, is printed too.
10,000 samples take minutes.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import tyro

TARGET = 1.2
"""The largest peak allowed, over that of the fewest samples."""


@dataclass(frozen=True)
class Memory:
    """How many samples."""

    samples: tuple[int, ...] = (500, 10_000)
    """Numbers of samples; the first one is what the others are compared with."""
    loaders: int = 0
    """Threads that prepare micro-batches ahead of the model."""
    one: bool = False
    """Run the first number only, in this process, and print its figures as JSON."""


def peak_mib() -> float:
    """Returns the largest resident memory of this process so far."""
    line = next(x for x in Path("/proc/self/status").read_text().splitlines() if x.startswith("VmHWM"))
    return int(line.split()[1]) / 1024


def sweep(options: Memory) -> dict[str, float]:
    """Returns the peak and the seconds of one sweep in this process."""
    import torch

    import interp
    from interp.conformance.tiny import tiny

    torch.set_num_threads(1)
    mllm = interp.wrap(*tiny("llava"))
    indicator = interp.indicators.Attention(relative_to=interp.GENERIC_PROMPT)
    data = interp.data.bundled("natural", n=options.samples[0])
    loaded, began = peak_mib(), time.perf_counter()
    with tempfile.TemporaryDirectory() as out:
        study = interp.LayerSweep(model=mllm, data=data, indicator=indicator)
        result = study.run(out, progress=False, loaders=options.loaders)
        ran = peak_mib()
        result.summary()
    seconds = time.perf_counter() - began
    return {"peak": ran, "summary": peak_mib(), "loaded": loaded, "seconds": seconds}


def measured(options: Memory, n: int) -> dict[str, float]:
    """Returns what `sweep` finds in a process of its own."""
    command = [sys.executable, __file__, "--samples", str(n), "--loaders", str(options.loaders), "--one"]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    return json.loads(done.stdout.splitlines()[-1])


def main(options: Memory) -> None:
    """Print the peak for each number of samples, and its ratio to the first one's."""
    if options.one:
        print(json.dumps(sweep(options)))
        return
    first = None
    for n in options.samples:
        found = measured(options, n)
        first = first or found
        print(
            f"{n} samples: peak {found['peak']:.0f} MiB ({found['loaded']:.0f} before the run), "
            f"{found['peak'] / first['peak']:.3f} × that of {options.samples[0]}, target ≤ {TARGET}; "
            f"after result.summary() {found['summary']:.0f} MiB; {found['seconds']:.0f} s"
        )


if __name__ == "__main__":
    main(tyro.cli(Memory))
