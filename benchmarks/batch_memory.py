"""The memory that many samples take, as one batch and in micro-batches.

    python benchmarks/batch_memory.py

Each measurement is a process of its own: its peak during the call, over the peak after a call with one sample. The
organism, on rendered scenes.
"""

from __future__ import annotations

import resource
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import tyro

import interp
from interp.indicators import Attention, AttentionGradient, InputGradient


@dataclass(frozen=True)
class Options:
    """What to measure.

    Attributes:
        n: Samples.
        sizes: Batch sizes; 0 is all samples as one batch.
        calls: Some of "trace", "relative map", "attention gradient", "pixel gradient".
        alone: Measure here, in this process; used by the script itself.
    """

    n: int = 256
    sizes: tuple[int, ...] = (0, 8)
    calls: tuple[str, ...] = ("trace", "relative map", "attention gradient", "pixel gradient")
    alone: bool = False


def call_of(mllm: interp.Mllm, name: str) -> Callable[..., Any]:
    """The call of that name, which takes samples and options."""
    rows = interp.Rows(interp.Site(queries="last", keys="image"))
    look = {"relative map": Attention(relative_to=interp.GENERIC_PROMPT), "attention gradient": AttentionGradient(),
            "pixel gradient": InputGradient()}  # fmt: skip
    if name == "trace":
        return lambda samples, **options: mllm.trace(samples, reads=[rows], **options)
    return lambda samples, **options: look[name](mllm, samples, **options)


def peak() -> float:
    """The largest resident set of this process so far, in MB (Linux counts kibibytes)."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def measured(name: str, n: int, size: int) -> str:
    """A row of the table."""
    mllm, samples = interp.load("organism"), list(interp.data.bundled("natural", n=n))
    call = call_of(mllm, name)
    call(samples[:1])
    before, start = peak(), time.process_time()
    found = call(samples, batch_size=size or n, progress=False)
    took, more = time.process_time() - start, peak() - before
    return f"| {name} | {size or n} | {more:.0f} | {took:.1f} | {found.cost.forwards} |"


def main(options: Options) -> None:
    if options.alone:
        print(measured(options.calls[0], options.n, options.sizes[0]))
        return
    print("| call | batch size | MB more | CPU seconds | passes |\n|---|---|---|---|---|")
    for name in options.calls:
        for size in options.sizes:
            own = ["--alone", "--n", str(options.n), "--sizes", str(size), "--calls", name]
            done = subprocess.run(
                [sys.executable, __file__, *own], check=True, capture_output=True, text=True
            )
            print(done.stdout.strip().splitlines()[-1], flush=True)


if __name__ == "__main__":
    main(tyro.cli(Options))
