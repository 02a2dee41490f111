"""The memory that reading a video takes, beside eager attention.

    python benchmarks/video_memory.py

Each way is a process of its own: its peak during the call, over the peak of the loaded model. A random Qwen2-VL of 8
layers of 8 heads (hidden size 256), on frames of 448×448 pixels: 256 tokens for each pair of frames.
"""

from __future__ import annotations

import resource
import subprocess
import sys
import time
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import transformers
import tyro

import interp
from interp.conformance.tiny import kit
from interp.conformance.tiny.qwen_vl import qwen2_vl_config, qwen2_vl_processor

WAYS = ("plain forward", "rows of all layers and heads", "eager, output_attentions")


@dataclass(frozen=True)
class Options:
    """What to measure.

    Attributes:
        frames: Numbers of frames.
        ways: Some of "plain forward", "rows of all layers and heads", "eager, output_attentions".
        alone: Measure here, in this process; used by the script itself.
    """

    frames: tuple[int, ...] = (4, 16)
    ways: tuple[str, ...] = WAYS
    alone: bool = False


def build(attention: str) -> interp.Mllm:
    """The model; the tower stays tiny, so that the decoder is what is measured."""
    config: Any = qwen2_vl_config()
    sizes = {"hidden_size": 256, "intermediate_size": 512, "num_hidden_layers": 8, "num_attention_heads": 8}
    for name, value in sizes.items():
        setattr(config.text_config, name, value)
    config.text_config.rope_parameters["mrope_section"] = [4, 6, 6]
    config.text_config.layer_types = ["full_attention"] * 8
    config.vision_config.hidden_size = 256
    processor = qwen2_vl_processor()
    processor.video_processor.size = {"shortest_edge": 448**2, "longest_edge": 448**2}
    return interp.wrap(kit.build(transformers.Qwen2VLForConditionalGeneration, config, attention), processor)


def peak() -> float:
    """The largest resident set of this process so far, in MB (Linux counts kibibytes)."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def measured(way: str, n: int) -> str:
    """A row of the table."""
    mllm = build("eager" if way.startswith("eager") else "sdpa")
    shown = np.random.default_rng(0).integers(0, 255, (n, 448, 448, 3), dtype=np.uint8)
    batch = mllm.encode(interp.Sample(video=shown, fps=2.0, question="where is the nodule ?"))
    embedded = mllm.embeddings(batch)
    del embedded
    before, start = peak(), time.perf_counter()
    reads = [interp.Rows(interp.Site(queries="last", keys="image"))] if way.startswith("rows") else []
    if way.startswith("eager"):
        with torch.no_grad():
            mllm.hf(**batch.inputs, output_attentions=True)
    else:
        mllm.trace(batch, reads=reads)
    took = time.perf_counter() - start
    return f"| {n} | {batch.tokens[0].length} | {way} | {peak() - before:.0f} | {took:.2f} |"


def main(options: Options) -> None:
    if options.alone:
        print(measured(options.ways[0], options.frames[0]))
        return
    print("| frames | tokens | way | MB more | seconds |\n|---|---|---|---|---|")
    for n in options.frames:
        for way in options.ways:
            own = ["--alone", "--frames", str(n), "--ways", way]
            done = subprocess.run(
                [sys.executable, __file__, *own], check=True, capture_output=True, text=True
            )
            print(done.stdout.strip().splitlines()[-1], flush=True)


if __name__ == "__main__":
    main(tyro.cli(Options))
