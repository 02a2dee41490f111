"""What a layer sweep costs beside the model and the processor, per sample: python benchmarks/host.py

A `LayerSweep` over 512 rendered scenes on a LLaVA so small that its passes take little. Host time is the CPU time of
the whole run, tables included, less two parts:

- the model's forward passes, with the tensor operations that hooks run inside them (the attention rows);
- the calls of transformers' processor and tokenizer.

Scenes are drawn when they are read; here they are drawn before, because that is work of this data set alone.

Three things come before the measured run: the scenes are rendered and their fingerprints computed, the model is wrapped
and its fingerprint computed, and a run of 8 samples with another model loads what Python loads once in a process.
A second run, with a new model, prints where the rest goes; its clock stands still inside the two parts above.
"""

from __future__ import annotations

import cProfile
import pstats
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any
from unittest.mock import patch

import numpy as np
import torch
import tyro
from reading import Options, build, processor

import interp

TARGET = 3.0
"""Milliseconds a sample."""


@dataclass(frozen=True)
class Host:
    """How many samples, whether attention is relative, how many lines of the profile to print (0: none)."""

    samples: int = 512
    relative: bool = True
    lines: int = 25
    layers: int = 8


class Clock:
    """CPU time of the process; it stands still inside the functions that it wraps."""

    def __init__(self) -> None:
        self._inside = 0.0
        self._stopped: float | None = None

    def now(self) -> float:
        """Seconds of CPU time outside the wrapped functions."""
        return time.process_time() - self._inside if self._stopped is None else self._stopped

    def wrapped(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """The function, during which the clock stands still."""

        def call(*args: Any, **kwargs: Any) -> Any:
            if self._stopped is not None:
                return function(*args, **kwargs)
            self._stopped = self.now()
            try:
                return function(*args, **kwargs)
            finally:
                self._inside, self._stopped = time.process_time() - self._stopped, None

        return call


PROCESSOR_CALLS = (
    "__call__",
    "apply_chat_template",
    "prepare_inputs_layout",
    "encode",
    "decode",
)
"""Methods of transformers' processor and tokenizer that are not host time."""


@contextmanager
def excluded(mllm: interp.Mllm, clock: Clock) -> Iterator[None]:
    """Stops the clock inside the model's forward and transformers' processor, for the block."""
    kinds = [type(mllm.processor), type(mllm.processor.tokenizer)]
    with ExitStack() as stack:
        for kind in kinds:
            for name in PROCESSOR_CALLS:
                if hasattr(kind, name):
                    stack.enter_context(patch.object(kind, name, clock.wrapped(getattr(kind, name))))
        stack.enter_context(patch.object(mllm.hf, "forward", clock.wrapped(mllm.hf.forward)))
        yield


def host_seconds(options: Host, n_samples: int, profile: cProfile.Profile | None, clock: Clock) -> float:
    """Host time of one sweep with a new model, in seconds of the clock."""
    model = build(Options(layers=options.layers, hidden=64, heads=4))
    mllm = interp.wrap(model, processor())
    scenes = interp.data.bundled("natural", n=n_samples)
    data = interp.data.Samples(one.replace(image=np.asarray(one.image)) for one in scenes)
    generic = interp.GENERIC_PROMPT if options.relative else None
    study = interp.LayerSweep(
        model=mllm, data=data, indicator=interp.indicators.Attention(relative_to=generic)
    )
    _ = mllm.fingerprint, data.fingerprint
    with tempfile.TemporaryDirectory() as out, excluded(mllm, clock), profile or nullcontext():
        began = clock.now()
        study.run(out, progress=False)
        return clock.now() - began


def main(options: Host) -> None:
    """Print host milliseconds a sample, and where they go."""
    torch.set_num_threads(1)
    torch.set_grad_enabled(False)
    clock = Clock()
    host_seconds(options, 8, None, clock)
    plain = host_seconds(options, options.samples, None, clock)
    if options.lines:
        profile = cProfile.Profile(clock.now)
        host_seconds(options, options.samples, profile, clock)
        pstats.Stats(profile).sort_stats("cumulative").print_stats(options.lines)
    print(f"host: {1000 * plain / options.samples:.2f} ms a sample, target ≤ {TARGET}")


if __name__ == "__main__":
    main(tyro.cli(Host))
