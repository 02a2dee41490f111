"""What editing attention costs, as multiples of the unedited model: python benchmarks/editing.py

The random LLaVA of benchmarks/reading.py (hidden 1024, 8 layers of 16 heads, 576 image tokens, 40 question words),
float32. Every way runs once per round, interleaved; a ratio is the median over rounds of (way / plain) within the
round. Passes over the prompt are compared with a plain sdpa forward; generated tokens with transformers'
`generate`, per step: the time from the first to the last logits of one answer, over the tokens between them.
`--clock cpu` counts processor time, which other jobs on the machine disturb less.
"""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Literal

import numpy as np
import torch
import tyro
from reading import Options as Model
from reading import build, processor
from rich.console import Console
from rich.table import Table

import interp

PLAIN, PLAIN_STEP = "plain sdpa forward", "plain generation"
TARGETS = {
    "Boost, last row, all layers": 1.05,
    "Boost, after-image rows, one layer": 1.05,
    "Boost, after-image rows, all layers": 1.15,
    "Knockout, after-image rows, all layers": 1.15,
    "Boost, every step": 1.10,
    "Knockout, every step": 1.10,
}
CLOCKS = {"wall": time.perf_counter, "cpu": time.process_time}
Run = Callable[[], float]
"""Runs a way once; returns its seconds."""


@dataclass(frozen=True)
class Options:
    """How large a model and how many rounds."""

    model: Model = field(default_factory=Model)
    rounds: int = 5
    steps: int = 16
    """Generated tokens whose time is taken, after the first."""
    clock: Literal["wall", "cpu"] = "wall"
    json: Path | None = None
    """Also write the figures here."""


def edits(layers: int) -> dict[str, list[interp.tracing.Edit]]:
    """Returns the edits of the prompt's pass by name."""
    half = interp.image_mask(np.arange(576) % 2 == 0)
    after = interp.Site(queries="after_image", keys=half)
    one = interp.Site(layers=[layers // 2], queries="after_image", keys=half)
    return {
        "no edit": [],
        "Boost, last row, all layers": [interp.Boost(interp.Site(keys=half), 0.5)],
        "Boost, after-image rows, one layer": [interp.Boost(one, 0.5)],
        "Boost, after-image rows, all layers": [interp.Boost(after, 0.5)],
        "Knockout, after-image rows, one layer": [interp.Knockout(one)],
        "Knockout, after-image rows, all layers": [interp.Knockout(after)],
        "Guide, after-image rows, all layers": [interp.Guide(after, 0.5)],
        "ScaleWeights, every row, all layers": [
            interp.ScaleWeights(interp.Site(queries="all", keys=half), 0.5)
        ],
    }


def step_edits() -> dict[str, list[interp.tracing.Edit]]:
    """Returns the edits of generated tokens by name."""
    half = interp.image_mask(np.arange(576) % 2 == 0)
    site = interp.Site(queries="last", keys=half)
    return {
        "no edit, our loop": [],
        "Boost, every step": [interp.Boost(site, 0.5, "all")],
        "Knockout, every step": [interp.Knockout(site, steps="all")],
        "Guide, every step": [interp.Guide(site, 0.5, "all")],
    }


class Subject:
    """The model twice, plain and wrapped, and one encoded sample."""

    def __init__(self, options: Options) -> None:
        pixels = np.random.default_rng(0).integers(0, 255, (336, 336, 3), dtype=np.uint8)
        sample = interp.Sample(image=pixels, question=" ".join(["circle"] * options.model.words))
        self.clock, self.steps = CLOCKS[options.clock], options.steps
        self.plain, hf = build(options.model), build(options.model)
        hf.generation_config.eos_token_id = []  # nothing ends an answer early
        self.mllm = interp.wrap(hf, processor())
        self.batch = self.mllm.encode([sample])
        self.inputs = {name: value for name, value in self.batch.inputs.items() if name != "position_ids"}
        self.stamps: list[float] = []
        for head in (self.plain.lm_head, hf.lm_head):
            head.register_forward_hook(lambda *_: self.stamps.append(self.clock()))

    def prompt(self, edits: list[interp.tracing.Edit] | None) -> float:
        """Returns the seconds of a pass over the prompt; None for the plain model."""
        began = self.clock()
        if edits is None:
            self.plain(**self.inputs, use_cache=False, logits_to_keep=1)
        else:
            self.mllm.trace(self.batch, edits=edits)
        return self.clock() - began

    def step(self, edits: list[interp.tracing.Edit] | None) -> float:
        """Returns the seconds of a generated token; None for transformers' own loop."""
        self.stamps.clear()
        n = 1 + self.steps
        if edits is None:
            self.plain.generate(**self.inputs, max_new_tokens=n, min_new_tokens=n, do_sample=False)
        else:
            self.mllm.trace(self.batch, edits=edits, generate=n)
        assert len(self.stamps) == n
        return (self.stamps[-1] - self.stamps[0]) / self.steps


def measure(options: Options) -> dict[str, list[float]]:
    """Returns name → seconds of each round: of a pass over the prompt, or of one generated token."""
    subject = Subject(options)
    runs: dict[str, Run] = {PLAIN: lambda: subject.prompt(None)}
    runs |= {name: partial(subject.prompt, found) for name, found in edits(options.model.layers).items()}
    runs[PLAIN_STEP] = lambda: subject.step(None)
    runs |= {name: partial(subject.step, found) for name, found in step_edits().items()}
    for run in runs.values():
        run()
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    names = list(runs)
    for turn in range(options.rounds):
        for name in names[turn % len(names) :] + names[: turn % len(names)]:
            seconds[name].append(runs[name]())
    return seconds


def main(options: Options) -> None:
    torch.set_num_threads(options.model.threads)
    torch.set_grad_enabled(False)
    seconds = measure(options)
    table = Table(title=f"torch {torch.__version__}, {options.model.threads} threads, {options.clock} time")
    for column in ("way", "milliseconds", "× plain", "single rounds", "target"):
        table.add_column(column, justify="left" if column == "way" else "right")
    record, plain = {}, PLAIN
    for name, found in seconds.items():
        plain = PLAIN_STEP if name == PLAIN_STEP else plain
        ratios = [a / b for a, b in zip(found, seconds[plain], strict=True)]
        ratio, middle = statistics.median(ratios), statistics.median(found)
        record[name] = {"seconds": middle, "ratio": ratio, "rounds": ratios}
        target = f"≤ {TARGETS[name]:.2f}" if name in TARGETS else ""
        span = f"{min(ratios):.2f}–{max(ratios):.2f}"
        table.add_row(name, f"{1000 * middle:.1f}", f"{ratio:.3f}", span, target)
    Console(width=120).print(table)
    if options.json:
        options.json.write_text(json.dumps(record, indent=1))


if __name__ == "__main__":
    main(tyro.cli(Options))
