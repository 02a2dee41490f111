"""What reading attention costs, as multiples of one plain forward pass: python benchmarks/reading.py

A random LLaVA (hidden 1024, 8 layers of 16 heads, 24×24 = 576 image tokens), float32. Every way runs once per
round, interleaved, so that a slow moment of the machine falls on all of them; the ratio is the median over rounds
of (way / plain) within the round. Peak memory is the high-water mark of a process that runs only that way, above
the loaded model and as a ratio to the plain one's.
"""

from __future__ import annotations

import json
import multiprocessing as mp
import platform
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nnsight
import numpy as np
import torch
import tyro
from rich.console import Console
from rich.table import Table
from transformers import CLIPVisionConfig, LlamaConfig, LlavaConfig, LlavaForConditionalGeneration

import interp
from interp.organism.parts import IMAGE_TOKEN_ID, VOCABULARY_SIZE, build_processor

TARGETS = {
    "rows, all layers × heads": (1.03, 1.03),
    "relative map (prefix, two suffixes)": (1.25, None),
}
PLAIN = "plain sdpa forward"


@dataclass(frozen=True)
class Options:
    """How large a model and how many rounds."""

    rounds: int = 9
    layers: int = 8
    hidden: int = 1024
    heads: int = 16
    words: int = 40
    """Words of the question."""
    threads: int = 2
    memory: bool = True
    json: Path | None = None
    """Also write the figures here."""


def build(options: Options, attention: str = "sdpa") -> Any:
    """Returns a random LLaVA of the asked size; the same weights for the same options."""
    torch.manual_seed(0)
    config = LlavaConfig(
        vision_config=CLIPVisionConfig(
            hidden_size=128, intermediate_size=256, num_hidden_layers=2, num_attention_heads=4,
            image_size=336, patch_size=14,
        ),
        text_config=LlamaConfig(
            vocab_size=VOCABULARY_SIZE, hidden_size=options.hidden, intermediate_size=options.hidden * 43 // 16,
            num_hidden_layers=options.layers, num_attention_heads=options.heads,
            num_key_value_heads=options.heads, max_position_embeddings=4096, pad_token_id=0,
        ),
        image_token_index=IMAGE_TOKEN_ID, vision_feature_layer=-2, vision_feature_select_strategy="default",
    )  # fmt: skip
    return LlavaForConditionalGeneration._from_config(config, attn_implementation=attention).eval()


def processor() -> Any:
    """Returns the organism's processor, set to 336 pixels in patches of 14."""
    made = build_processor()
    made.patch_size = 14
    made.image_processor.size = {"shortest_edge": 336}
    made.image_processor.crop_size = {"height": 336, "width": 336}
    return made


def ways(options: Options) -> dict[str, Callable[[], Callable[[], object]]]:
    """Returns name → a function that sets the way up and returns one run of it."""
    pixels = np.random.default_rng(0).integers(0, 255, (336, 336, 3), dtype=np.uint8)
    words = " ".join(["circle"] * options.words)
    sample = interp.Sample(image=pixels, question=words)
    rows = interp.Rows(interp.Site(queries="last", keys="image"))

    def mllm() -> interp.Mllm:
        return interp.wrap(build(options), processor())

    def inputs() -> dict[str, torch.Tensor]:
        return mllm().encode([sample]).inputs

    def plain() -> Callable[[], object]:
        model, given = build(options), inputs()
        return lambda: model(**given, use_cache=False, logits_to_keep=1)

    def ours() -> Callable[[], object]:
        wrapped = mllm()
        batch = wrapped.encode([sample])
        return lambda: wrapped.trace(batch, reads=[rows])

    def relative() -> Callable[[], object]:
        wrapped, indicator = mllm(), interp.indicators.Attention(relative_to=interp.GENERIC_PROMPT)
        return lambda: indicator(wrapped, [sample])

    def eager() -> Callable[[], object]:
        model, given = build(options, "eager"), inputs()

        def run() -> object:
            out = model(**given, use_cache=False, logits_to_keep=1, output_attentions=True)
            return [a[:, :, -1].clone() for a in out.attentions]

        return run

    def nnsight_eager() -> Callable[[], object]:
        wrapped, given = (
            nnsight.TransformersModel(
                build(options, "eager"), task="image-text-to-text", processor=processor()
            ),
            inputs(),
        )
        layers = wrapped.model.language_model.layers

        def run() -> object:
            with wrapped.trace(**given, use_cache=False, logits_to_keep=1):
                saved = nnsight.save([])
                for layer in layers:
                    saved.append(layer.self_attn.output[1][:, :, -1])
            return saved

        return run

    return {
        PLAIN: plain,
        "rows, all layers × heads": ours,
        "relative map (prefix, two suffixes)": relative,
        "transformers eager, output_attentions": eager,
        "nnsight on an eager model": nnsight_eager,
    }


def measure_time(options: Options) -> dict[str, list[float]]:
    """Returns name → seconds per round, every way once per round in a rotating order."""
    runs = {name: make() for name, make in ways(options).items()}
    for run in runs.values():
        run()
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    names = list(runs)
    for turn in range(options.rounds):
        for name in names[turn % len(names) :] + names[: turn % len(names)]:
            began = time.perf_counter()
            runs[name]()
            seconds[name].append(time.perf_counter() - began)
    return seconds


def _high_water(name: str, options: Options, pipe: Any) -> None:
    torch.set_num_threads(options.threads)
    torch.set_grad_enabled(False)
    run = ways(options)[name]()
    status = Path("/proc/self/status")

    def field(key: str) -> float:
        line = next(line for line in status.read_text().splitlines() if line.startswith(key))
        return int(line.split()[1]) / 1024

    before = field("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # resets the high-water mark
    run()
    pipe.send((before, field("VmHWM")))


def measure_memory(options: Options) -> dict[str, tuple[float, float]]:
    """Returns name → (MiB resident once loaded, MiB at the peak of one run), each way in a process of its own."""
    figures = {}
    context = mp.get_context("spawn")
    for name in ways(options):
        ours, theirs = context.Pipe()
        process = context.Process(target=_high_water, args=(name, options, theirs))
        process.start()
        figures[name] = ours.recv()
        process.join()
    return figures


def main(options: Options) -> None:
    torch.set_num_threads(options.threads)
    torch.set_grad_enabled(False)
    memory = measure_memory(options) if options.memory else {}
    seconds = measure_time(options)
    table = Table(
        title=f"torch {torch.__version__}, {options.threads} threads, {platform.processor() or 'CPU'}"
    )
    for column in ("way", "seconds", "× plain", "target", "peak MiB over loaded", "peak × plain", "target"):
        table.add_column(column, justify="left" if column == "way" else "right")
    record = {}
    for name, taken in seconds.items():
        ratio = statistics.median(a / b for a, b in zip(taken, seconds[PLAIN], strict=True))
        time_target, memory_target = TARGETS.get(name, (None, None))
        grown = peak = None
        if memory:
            before, high = memory[name]
            grown, peak = high - before, high / memory[PLAIN][1]
        record[name] = {
            "seconds": statistics.median(taken),
            "ratio": ratio,
            "grown_mib": grown,
            "peak_ratio": peak,
        }
        show = [f"{statistics.median(taken):.3f}", f"{ratio:.3f}", f"≤ {time_target}" if time_target else ""]
        show += [f"{grown:.0f}" if grown is not None else "", f"{peak:.3f}" if peak is not None else ""]
        table.add_row(name, *show, f"≤ {memory_target}" if memory_target else "")
    Console(width=130).print(table)
    if options.json:
        options.json.write_text(json.dumps(record, indent=1))


if __name__ == "__main__":
    main(tyro.cli(Options))
