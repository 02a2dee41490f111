"""What reading, editing and differentiating cost on a GPU: python benchmarks/gpu.py --sizes 7b 34b

LLaVAs of the sizes of LLaVA-1.5-7B and HuatuoGPT-Vision-34B with random weights (their values do not change the time),
one 336 × 336 image (576 tokens) and a question of 40 words, bfloat16. Every way runs once per round, interleaved. A
figure is the median over rounds, timed with CUDA events. Prints the Markdown table of docs/performance.md. Without a
GPU, `--device cpu --tiny` runs the same code on a model of a few thousand weights, to see that it works.
"""

from __future__ import annotations

import json
import platform
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import date
from pathlib import Path
from typing import Any, Literal

import nnsight
import numpy as np
import torch
import transformers
import tyro
from reading import processor
from transformers import CLIPVisionConfig, LlamaConfig, LlavaConfig, LlavaForConditionalGeneration

import interp
from interp import indicators
from interp.organism.parts import IMAGE_TOKEN_ID

CLIP_LARGE: dict[str, Any] = {
    "hidden_size": 1024,
    "intermediate_size": 4096,
    "num_hidden_layers": 24,
    "num_attention_heads": 16,
}
SIZES: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "7b": (
        CLIP_LARGE,
        {
            "hidden_size": 4096, "intermediate_size": 11008, "num_hidden_layers": 32, "num_attention_heads": 32,
            "num_key_value_heads": 32, "vocab_size": 32064,
        },
    ),
    "34b": (
        CLIP_LARGE,
        {
            "hidden_size": 7168, "intermediate_size": 20480, "num_hidden_layers": 60, "num_attention_heads": 56,
            "num_key_value_heads": 8, "vocab_size": 64064,
        },
    ),
    "tiny": (
        {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2},
        {
            "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 3, "num_attention_heads": 4,
            "num_key_value_heads": 2, "vocab_size": 512,
        },
    ),
}  # fmt: skip
"""Name → settings of the vision tower and of the language model."""
PLAIN, GENERATED = "plain forward", "plain generation"


@dataclass(frozen=True)
class Options:
    """Which models, where, and how often."""

    sizes: tuple[Literal["7b", "34b", "tiny"], ...] = ("7b", "34b")
    tiny: bool = False
    """Only the tiny model, on one thread, with at most 2 rounds, 8 samples and 4 tokens: to try the script."""
    device: str = "cuda"
    dtype: Literal["bfloat16", "float16", "float32"] = "bfloat16"
    attention: str = "sdpa"
    rounds: int = 9
    tokens: int = 32
    """Tokens to generate."""
    samples: int = 64
    """Samples of the sweep."""
    batch: int = 8
    json: Path | None = None
    """Also write the figures here."""


def build(size: str, options: Options) -> Any:
    """Returns a LLaVA of that size with random weights, made on the device."""
    vision, text = SIZES[size]
    config = LlavaConfig(
        vision_config=CLIPVisionConfig(**vision, image_size=336, patch_size=14),
        text_config=LlamaConfig(**text, max_position_embeddings=4096, pad_token_id=0, eos_token_id=2),
        image_token_index=IMAGE_TOKEN_ID,
        vision_feature_layer=-2,
        vision_feature_select_strategy="default",
    )
    torch.manual_seed(0)
    with torch.device(options.device):
        made = LlavaForConditionalGeneration._from_config(
            config, dtype=getattr(torch, options.dtype), attn_implementation=options.attention
        )
    return made.eval()


def ways(mllm: interp.Mllm, options: Options) -> dict[str, Callable[[], object]]:
    """Returns name → one run of it; those that begin with "generation" are compared with plain generation."""
    pixels = np.random.default_rng(0).integers(0, 255, (336, 336, 3), dtype=np.uint8)
    sample = interp.Sample(image=pixels, question=" ".join(["circle"] * 40))
    batch = mllm.encode([sample])
    rows = interp.Rows(interp.Site(queries="last", keys="image"))
    after = interp.Site(queries="after_image", keys="image")
    hide, boost = interp.Knockout(after), interp.Boost(interp.Site(), 0.5, steps="all")
    n, hf = options.tokens, mllm.hf
    relative = indicators.Attention(relative_to=interp.GENERIC_PROMPT)

    def plain() -> object:
        with torch.no_grad():
            return hf(**batch.inputs, use_cache=False, logits_to_keep=1)

    def generated() -> object:
        with torch.no_grad():
            return hf.generate(
                **batch.inputs, max_new_tokens=n, min_new_tokens=n, do_sample=False, use_cache=True
            )

    return {
        PLAIN: plain,
        "trace without reads": lambda: mllm.trace(batch),
        "rows, all layers × heads": lambda: mllm.trace(batch, reads=[rows]),
        "residual stream, all layers, last token": lambda: mllm.trace(batch, reads=[interp.Residual("all", "last")]),
        "relative map, image processing included": lambda: relative(mllm, [sample]),
        "Boost, last row, all layers": lambda: mllm.trace(batch, edits=[boost]),
        "Knockout, after-image rows, all layers": lambda: mllm.trace(batch, edits=[hide]),
        "ScaleWeights, after-image rows, all layers": lambda: mllm.trace(
            batch, edits=[interp.ScaleWeights(after, 0.5)]
        ),
        "AttentionGradient": lambda: indicators.AttentionGradient()(mllm, batch),
        "AttributionPatching": lambda: indicators.AttributionPatching()(mllm, batch),
        "InputGradient": lambda: indicators.InputGradient()(mllm, batch),
        "all 576 last-row knockouts": lambda: indicators.TokenKnockout()(mllm, batch),
        GENERATED: generated,
        "generation, no edit": lambda: mllm.trace(batch, generate=n),
        "generation, rows of every token": lambda: mllm.trace(batch, reads=[rows], generate=n),
        "generation, Boost at every token": lambda: mllm.trace(batch, edits=[boost], generate=n),
    }  # fmt: skip


def timed(run: Callable[[], object], device: torch.device) -> float:
    """Returns the milliseconds of one run, by the device's own clock where it has one."""
    if device.type != "cuda":
        start = time.perf_counter()
        run()
        return 1e3 * (time.perf_counter() - start)
    begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
    torch.cuda.synchronize(device)
    begin.record()
    run()
    end.record()
    torch.cuda.synchronize(device)
    return begin.elapsed_time(end)


def peak(run: Callable[[], object], device: torch.device) -> float | None:
    """Returns the most MiB that a run allocates above what was there; None without a GPU."""
    if device.type != "cuda":
        return None
    torch.cuda.synchronize(device)
    torch.cuda.reset_peak_memory_stats(device)
    before = torch.cuda.memory_allocated(device)
    run()
    torch.cuda.synchronize(device)
    return (torch.cuda.max_memory_allocated(device) - before) / 2**20


def measure(size: str, options: Options) -> dict[str, Any]:
    """Returns the figures of one model: name → milliseconds, ratio and memory; and the sweep's samples a second."""
    mllm = interp.wrap(build(size, options), processor())
    device = mllm.device
    runs = ways(mllm, options)
    skipped: dict[str, str] = {}
    memory: dict[str, float | None] = {}
    for name in list(runs):
        try:
            runs[name]()
            memory[name] = peak(runs[name], device)
        except torch.OutOfMemoryError:  # a 34B model leaves little room for a graph
            skipped[name] = "out of memory"
            del runs[name]
            torch.cuda.empty_cache()
    rounds: dict[str, list[float]] = {name: [] for name in runs}
    names = list(runs)
    for i in range(options.rounds):
        for name in names[i % len(names) :] + names[: i % len(names)]:
            rounds[name].append(timed(runs[name], device))
    figures = {name: figure(name, rounds, memory) for name in runs}
    return {"figures": figures, "skipped": skipped, "sweep": sweep(mllm, options)}


def figure(name: str, rounds: dict[str, list[float]], memory: dict[str, float | None]) -> dict[str, Any]:
    """Returns the median milliseconds of a way, its median ratio to its plain run within rounds, and its memory."""
    base = GENERATED if name.startswith("generation") else PLAIN
    ratios = [own / plain for own, plain in zip(rounds[name], rounds[base], strict=True)]
    return {
        "ms": statistics.median(rounds[name]),
        "ratio": statistics.median(ratios),
        "low": min(ratios),
        "high": max(ratios),
        "to": base,
        "mib": memory[name],
    }


def sweep(mllm: interp.Mllm, options: Options) -> dict[str, float]:
    """Returns the samples a second of plain batched passes, and of a layer sweep that writes its tables."""
    found = interp.data.bundled("natural")
    samples = found[: min(options.samples, len(found))]
    batches = [samples[i : i + options.batch] for i in range(0, len(samples), options.batch)]

    def passes() -> object:
        with torch.no_grad():
            for part in batches:
                mllm.hf(**mllm.encode(list(part)).inputs, use_cache=False, logits_to_keep=1)

    def swept() -> object:
        with tempfile.TemporaryDirectory() as folder:
            study = interp.LayerSweep(data=samples, model=mllm, batch=options.batch)
            return study.run(out=folder, progress=False)

    seconds = {}
    for name, run in (("encoding and plain passes", passes), ("layer sweep of relative attention", swept)):
        run()
        seconds[name] = len(samples) / (timed(run, mllm.device) / 1e3)
    return seconds


def about(options: Options) -> str:
    """Returns on what, with what and when it was measured."""
    cuda = options.device.startswith("cuda")
    device = (
        torch.cuda.get_device_name(options.device) if cuda else platform.processor() or platform.machine()
    )
    return (
        f"{device}, {options.dtype}, {options.attention}, torch {torch.__version__}, transformers "
        f"{transformers.__version__}, nnsight {nnsight.__version__}, Python {platform.python_version()}, "
        f"{options.rounds} rounds, {date.today().isoformat()}"
    )


def table(size: str, found: dict[str, Any]) -> str:
    """Returns the Markdown table of one model."""
    lines = [
        f"### {size}",
        "",
        "| way | ms | × plain | single rounds | MiB above the model |",
        "|---|---|---|---|---|",
    ]
    for name, own in found["figures"].items():
        mib = "" if own["mib"] is None else f"{own['mib']:.0f}"
        to = "" if own["to"] == PLAIN else f" {GENERATED}"
        lines.append(
            f"| {name} | {own['ms']:.1f} | {own['ratio']:.2f}{to} | {own['low']:.2f}–{own['high']:.2f} | {mib} |"
        )
    lines += [f"| {name} | {why} | | | |" for name, why in found["skipped"].items()]
    lines += ["", "| end to end | samples a second |", "|---|---|"]
    lines += [f"| {name} | {value:.1f} |" for name, value in found["sweep"].items()]
    return "\n".join(lines)


def main(options: Options) -> None:
    if options.device.startswith("cuda") and not torch.cuda.is_available():
        sys.exit("no CUDA device is here. Try the script with: python benchmarks/gpu.py --device cpu --tiny")
    sizes: tuple[str, ...] = options.sizes
    if options.tiny:
        torch.set_num_threads(1)  # on a busy machine two threads take a tiny model a hundred times as long
        few = {"rounds": min(options.rounds, 2), "samples": min(options.samples, 8)}
        sizes, options = ("tiny",), replace(options, tokens=min(options.tokens, 4), **few)
    print(about(options))
    found = {}
    for size in sizes:
        found[size] = measure(size, options)
        print(f"\n{table(size, found[size])}", flush=True)
        if options.device.startswith("cuda"):
            torch.cuda.empty_cache()
    if options.json is not None:
        options.json.write_text(json.dumps({"about": about(options), **found}, indent=1))


if __name__ == "__main__":
    main(tyro.cli(Options))
