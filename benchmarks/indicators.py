"""What indicators cost, as multiples of one plain forward pass: python benchmarks/indicators.py

The random LLaVA of benchmarks/reading.py (hidden 1024, 8 layers of 16 heads, N = 576 image tokens) and a question with
q = 40 rows after the image, float32. Every way runs once per round, interleaved; a ratio is the median over rounds of
(way / plain) within the round. Processor time by default, on one thread: other jobs disturb it least. Ways of very many
passes run a share of them, named in the table, and the rest is scaled up: fixed + (timed − fixed) · all / timed, fixed
being the encoding and the one unedited pass each of them begins with. Peak memory is the high-water mark of a process
that runs only that way, as a ratio to the plain one's.
"""

from __future__ import annotations

import json
import multiprocessing as mp
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
import tyro
from reading import Options as Model
from reading import build, processor
from rich.console import Console
from rich.table import Table

import interp
from interp.indicators import (
    Attention,
    AttentionGradient,
    AttributionPatching,
    HideTokens,
    InputGradient,
    IntegratedGradients,
    PaintPixels,
    ReplaceEmbeddings,
    SmoothGrad,
    TokenKnockout,
    ValueWeightedAttention,
)
from interp.indicators.occlusion import random_masks
from interp.tracing.variants.target_pass import KeptTarget

PLAIN, FIXED = "plain sdpa forward", "fixed: encoding, one pass"
ROWS, N = 40, 576
MEMORY = 3.0
CLOCKS = {"wall": time.perf_counter, "cpu": time.process_time}


@dataclass(frozen=True)
class Options:
    """How large a model and how many rounds."""

    model: Model = field(default_factory=lambda: Model(threads=1))
    rounds: int = 3
    timed: int = 64
    """Variants that are timed of the ways that have hundreds."""
    clock: Literal["wall", "cpu"] = "cpu"
    memory: bool = True
    only: tuple[str, ...] = ()
    """Ways whose names hold one of these; all by default. The plain pass always runs."""
    json: Path | None = None
    """Also write the figures here."""


@dataclass(frozen=True)
class Way:
    """A way to run: the indicator's whole work, or `timed` of its `all` passes."""

    run: Callable[[], object]
    timed: int = 1
    all: int = 1
    target: float | None = None

    def ratio(self, own: float, fixed: float, plain: float) -> float:
        """The cost in plain passes, scaled up."""
        if self.timed == self.all:
            return own / plain
        return (fixed + (own - fixed) * self.all / self.timed) / plain


class Subject:
    """The model wrapped, and as it is (`apart`), and a sample with just as many rows after its image as asked for."""

    def __init__(self, options: Options, *, apart: bool = True) -> None:
        pixels = np.random.default_rng(0).integers(0, 255, (336, 336, 3), dtype=np.uint8)
        self.mllm = interp.wrap(build(options.model), processor())
        self.hf = build(options.model) if apart else self.mllm.hf
        self.sample = interp.Sample(image=pixels, question="circle")
        words = 1 + ROWS - len(self._tokens().positions("after_image"))
        self.sample = self.sample.replace(question=" ".join(["circle"] * words))
        self.tokens = self._tokens()
        assert len(self.tokens.positions("after_image")) == ROWS
        assert self.tokens.n == N
        self.inputs = {**self.mllm.encode([self.sample]).inputs}

    def _tokens(self) -> interp.TokenMap:
        return self.mllm.encode([self.sample]).tokens[0]

    def plain(self) -> object:
        """One forward pass."""
        with torch.no_grad():
            return self.hf(**self.inputs, use_cache=False, logits_to_keep=1)

    def indicator(self, one: Any) -> Callable[[], object]:
        """One map of an indicator."""
        return lambda: one(self.mllm, [self.sample])

    def removal(self, one: Any, masks: np.ndarray) -> Callable[[], object]:
        """The scores of a removal."""
        return lambda: one.scores(self.mllm, self.sample, masks)

    def ways(self, timed: int) -> dict[str, Way]:
        """Name → way."""
        alone = np.eye(N, dtype=bool)
        spread = alone[:: N // timed][:timed]  # early tokens leave more to run again than late ones
        some = random_masks(self.tokens, timed, 3, 0.5, np.random.default_rng(0))
        every = 1.25 * (1 + N * ROWS / self.tokens.length)
        few = max(1, timed // 8)
        return {
            PLAIN: Way(self.plain),
            FIXED: Way(lambda: KeptTarget.of(self.mllm, self.sample, interp.PAPER_PROMPT, interp.Target())),
            "Attention": Way(self.indicator(Attention())),
            "ValueWeightedAttention": Way(self.indicator(ValueWeightedAttention())),
            "AttentionGradient": Way(self.indicator(AttentionGradient()), target=1.25),
            "AttributionPatching": Way(self.indicator(AttributionPatching()), target=1.5),
            "AttributionPatching, last row": Way(self.indicator(AttributionPatching(queries="last"))),
            "TokenKnockout, last row": Way(self.indicator(TokenKnockout(queries="last")), target=3.0),
            "TokenKnockout, all rows": Way(self.removal(HideTokens(), spread), timed, N, every),
            "RandomMasks, 500, knockout": Way(self.removal(HideTokens(), some), timed, 500),
            "EmbeddingReplacement": Way(self.removal(ReplaceEmbeddings(), spread[::8]), few, N),
            "Occlusion": Way(self.removal(PaintPixels(), spread[::8]), few, N),
            "InputGradient, pixels": Way(self.indicator(InputGradient())),
            "InputGradient, embeddings": Way(self.indicator(InputGradient("embeddings"))),
            "SmoothGrad, 16": Way(self.indicator(SmoothGrad(n=2)), 2, 16),
            "IntegratedGradients, 32": Way(self.indicator(IntegratedGradients(steps=4)), 4, 32),
        }


def chosen(options: Options, ways: dict[str, Way]) -> dict[str, Way]:
    """The ways asked for."""
    return {
        name: way
        for name, way in ways.items()
        if name in (PLAIN, FIXED) or not options.only or any(part in name for part in options.only)
    }


def measure_time(options: Options) -> dict[str, list[float]]:
    """Returns name → the ratio of each round."""
    ways = chosen(options, Subject(options).ways(options.timed))
    clock = CLOCKS[options.clock]
    ways[PLAIN].run()
    ratios: dict[str, list[float]] = {name: [] for name in ways}
    names = list(ways)
    for turn in range(options.rounds):
        seconds = {}
        for name in names[turn % len(names) :] + names[: turn % len(names)]:
            began = clock()
            ways[name].run()
            seconds[name] = clock() - began
        for name, way in ways.items():
            ratios[name].append(way.ratio(seconds[name], seconds[FIXED], seconds[PLAIN]))
        print(f"round {turn + 1}: plain {seconds[PLAIN]:.2f} s", flush=True)
    return ratios


def _high_water(name: str, options: Options, pipe: Any) -> None:
    torch.set_num_threads(options.model.threads)
    run = Subject(options, apart=False).ways(options.timed)[name].run  # one model in memory, its taps idle
    Path("/proc/self/clear_refs").write_text("5")  # resets the high-water mark
    run()
    line = next(x for x in Path("/proc/self/status").read_text().splitlines() if x.startswith("VmHWM"))
    pipe.send(int(line.split()[1]) / 1024)


def measure_memory(options: Options) -> dict[str, float]:
    """Returns name → MiB at the peak of one run, each way in a process of its own."""
    context, figures = mp.get_context("spawn"), {}
    few = replace(options, timed=min(options.timed, 64))
    for name in chosen(options, Subject(options, apart=False).ways(few.timed)):
        ours, theirs = context.Pipe()
        process = context.Process(target=_high_water, args=(name, few, theirs))
        process.start()
        figures[name] = ours.recv()
        process.join()
    return figures


def main(options: Options) -> None:
    torch.set_num_threads(options.model.threads)
    ratios = measure_time(options)
    memory = measure_memory(options) if options.memory else {}
    ways = Subject(options, apart=False).ways(options.timed)
    threads = f"{options.model.threads} thread{'s' * (options.model.threads > 1)}"
    table = Table(
        title=f"torch {torch.__version__}, {threads}, {options.clock} time, {options.rounds} rounds"
    )
    for column in ("way", "timed", "× plain", "rounds", "target", "", "peak × plain", f"≤ {MEMORY:g}"):
        table.add_column(column, justify="left" if column == "way" else "right")
    record = {}
    for name, found in ratios.items():
        way, middle = ways[name], statistics.median(found)
        peak = memory[name] / memory[PLAIN] if memory else None
        record[name] = {"ratio": middle, "rounds": found, "target": way.target, "peak_ratio": peak}
        verdict = "" if way.target is None else "met" if middle <= way.target else "missed"
        fits = "" if peak is None else "met" if peak <= MEMORY else "missed"
        table.add_row(
            name,
            "all" if way.timed == way.all else f"{way.timed} of {way.all}",
            f"{middle:.2f}",
            f"{min(found):.2f} … {max(found):.2f}",
            "" if way.target is None else f"≤ {way.target:.2f}",
            verdict,
            "" if peak is None else f"{peak:.2f}",
            fits,
        )
    Console(width=130).print(table)
    if options.json:
        options.json.write_text(json.dumps(record, indent=1))


if __name__ == "__main__":
    main(tyro.cli(Options))
