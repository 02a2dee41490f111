"""What a study costs beside the published loop, in CPU time: python benchmarks/throughput.py

The published loop runs two eager passes a sample with `output_attentions=True`, one with the question and one with the
generic prompt, one sample at a time. Ours is a `LayerSweep` over the same samples with relative attention, its tables
written to disk. Both include the processor. The model is that of `reading.py`. Loading it is not counted. Hashing its
weights is: a study does it once, however many samples it has, so its time is printed apart too. One run of each, after
one sample of each as a warm-up.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
import tyro
from reading import Options, build, processor

import interp

TARGETS = {4: 6.0, 1: 2.1}
SHAPES = ("circle", "square", "triangle", "star")


@dataclass(frozen=True)
class Throughput:
    """How many images and questions, on how large a model."""

    images: int = 2
    questions: tuple[int, ...] = (1, 4)
    """Questions an image; one table line each."""
    words: int = 40
    """Words of a question."""
    batch: int = 8
    threads: int = 1
    model: Options = field(default_factory=Options)


def scenes(options: Throughput, questions: int) -> list[interp.Sample]:
    """Returns samples of random images, `questions` different questions on each."""
    random = np.random.default_rng(0)
    found = []
    for _ in range(options.images):
        pixels = random.integers(0, 255, (336, 336, 3), dtype=np.uint8)
        for number in range(questions):
            words = [SHAPES[(number + i) % len(SHAPES)] for i in range(options.words)]
            found.append(interp.Sample(image=pixels, question=" ".join(words), boxes=[(40, 40, 120, 120)]))
    return found


def published_loop(model: Any, given: Any, samples: list[interp.Sample]) -> list[np.ndarray]:
    """Returns each sample's relative attention, (layer, token), from two eager passes."""
    found = []
    for sample in samples:
        image = sample.load()
        rows = []
        for prompt in (interp.PAPER_PROMPT, interp.GENERIC_PROMPT):
            text = given.apply_chat_template(prompt.messages(sample), add_generation_prompt=True)
            inputs = given(images=[image], text=[text], return_tensors="pt")
            out = model(**inputs, use_cache=False, logits_to_keep=1, output_attentions=True)
            seen = inputs["input_ids"][0] == model.config.image_token_id
            rows.append(torch.stack([a[0, :, -1, seen].mean(dim=0) for a in out.attentions]).numpy())
        found.append(rows[0] / rows[1])
    return found


def sweep(mllm: interp.Mllm, samples: list[interp.Sample], batch: int, out: str) -> Any:
    """Returns the result of a layer sweep of relative attention."""
    indicator = interp.indicators.Attention(relative_to=interp.GENERIC_PROMPT)
    study = interp.LayerSweep(model=mllm, data=interp.data.Samples(samples), indicator=indicator, batch=batch)
    return study.run(out, progress=False)


@contextmanager
def cpu_seconds(into: list[float]) -> Iterator[None]:
    """Appends the CPU time of the block, over all threads."""
    began = time.process_time()
    yield
    into.append(time.process_time() - began)


def taken(run: Callable[[list[interp.Sample]], Any], samples: list[interp.Sample]) -> float:
    """Returns the CPU time of one run, after a warm-up on one sample."""
    run(samples[:1])
    seconds: list[float] = []
    with cpu_seconds(seconds):
        run(samples)
    return seconds[0]


def check_agreement(mllm: interp.Mllm, model: Any, samples: list[interp.Sample]) -> None:
    """Raises unless both ways give the same maps."""
    indicator = interp.indicators.Attention(relative_to=interp.GENERIC_PROMPT)
    ours = [one.values for one in indicator(mllm, samples)]
    np.testing.assert_allclose(ours, published_loop(model, processor(), samples), rtol=1e-3)


def main(options: Throughput) -> None:
    """Print the CPU time of both ways and their ratio, with each number of questions an image."""
    torch.set_num_threads(options.threads)
    torch.set_grad_enabled(False)
    eager, own = build(options.model, "eager"), processor()
    mllm = interp.wrap(build(options.model), processor())
    hashing: list[float] = []
    with cpu_seconds(hashing):
        _ = mllm.fingerprint
    check_agreement(mllm, eager, scenes(options, 2)[:2])

    def ours(samples: list[interp.Sample]) -> None:
        with tempfile.TemporaryDirectory() as out:
            sweep(mllm, samples, options.batch, out)

    for questions in options.questions:
        samples = scenes(options, questions)
        slow = taken(lambda given: published_loop(eager, own, given), samples)
        fast = taken(ours, samples)
        target = f", target ≥ {TARGETS[questions]}" if questions in TARGETS else ""
        print(
            f"questions an image: {questions}, {len(samples)} samples: published loop {slow:.2f} s, "
            f"layer sweep {fast:.2f} s of CPU ({hashing[0]:.2f} s of it to hash the weights), "
            f"ratio {slow / fast:.2f}{target}"
        )


if __name__ == "__main__":
    main(tyro.cli(Throughput))
