"""What a layer sweep costs beside the model and the processor, per sample: python benchmarks/host.py

A `LayerSweep` over 256 rendered scenes under cProfile, on a LLaVA so small that its passes take little. Host time is
CPU time of the whole run, tables and result included, less what is spent inside the model's own forward passes and
inside transformers' processor and tokenizer calls. The model is wrapped, and the data's fingerprints are computed,
before: both happen once. The largest entries of what remains are printed too.
"""

from __future__ import annotations

import cProfile
import pstats
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any
from unittest.mock import patch

import torch
import tyro
from reading import Options, build, processor

import interp

TARGET = 4.0
"""Milliseconds a sample."""


@dataclass(frozen=True)
class Host:
    """How many samples, whether attention is relative, how many lines of the profile to print."""

    samples: int = 256
    relative: bool = True
    lines: int = 25
    layers: int = 8


class Clock:
    """CPU time spent inside functions that it wraps; nested calls count once."""

    def __init__(self) -> None:
        self.seconds = 0.0
        self._depth = 0

    def timed(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """The function, timed."""

        def call(*args: Any, **kwargs: Any) -> Any:
            began = time.process_time()
            self._depth += 1
            try:
                return function(*args, **kwargs)
            finally:
                self._depth -= 1
                if not self._depth:
                    self.seconds += time.process_time() - began

        return call


@contextmanager
def excluded(mllm: interp.Mllm, clock: Clock) -> Iterator[None]:
    """Times the model's forward and transformers' processor for the block."""
    kinds = [type(mllm.processor), type(mllm.processor.tokenizer)]
    with ExitStack() as stack:
        for kind in kinds:
            for name in ("__call__", "apply_chat_template"):
                if hasattr(kind, name):
                    stack.enter_context(patch.object(kind, name, clock.timed(getattr(kind, name))))
        stack.enter_context(patch.object(mllm.hf, "forward", clock.timed(mllm.hf.forward)))
        yield


def main(options: Host) -> None:
    """Print host milliseconds a sample, and where they go."""
    torch.set_num_threads(1)
    torch.set_grad_enabled(False)
    model = build(Options(layers=options.layers, hidden=64, heads=4))
    mllm = interp.wrap(model, processor())
    data = interp.data.bundled("natural", n=options.samples)
    generic = interp.GENERIC_PROMPT if options.relative else None
    study = interp.LayerSweep(
        model=mllm, data=data, indicator=interp.indicators.Attention(relative_to=generic)
    )
    _ = mllm.fingerprint, data.fingerprint
    clock, profile = Clock(), cProfile.Profile(time.process_time)
    with tempfile.TemporaryDirectory() as out, excluded(mllm, clock):
        began = time.process_time()
        study.run(out, progress=False)
        plain = time.process_time() - began - clock.seconds
    clock.seconds = 0.0
    with tempfile.TemporaryDirectory() as out, excluded(mllm, clock), profile:
        study.run(out, progress=False)
    pstats.Stats(profile).sort_stats("cumulative").print_stats("interp|pandas|pyarrow|xarray", options.lines)
    print(f"host: {1000 * plain / options.samples:.2f} ms a sample, target ≤ {TARGET}")


if __name__ == "__main__":
    main(tyro.cli(Host))
