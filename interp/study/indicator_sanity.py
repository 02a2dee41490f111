"""Does a map depend on what the model learned, and on what it is asked? A good map changes with both."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from interp.data import Samples
from interp.prompt import Target
from interp.sample import Sample
from interp.study.indicator_checks import ALL
from interp.tracing.randomised import randomised

__all__ = ["asked_otherwise", "fixed_targets", "other_questions", "shuffled", "stage_name"]


def stage_name(share: float | str) -> str:
    """What tables call a stage of shuffled weights."""
    return "all weights" if share == ALL else f"top {100 * float(share):.0f} % of layers"


def shuffled(mllm: Any, share: float | str, seed: int) -> Any:
    """The copy of the model for a stage."""
    if share == ALL:
        return randomised(mllm, everything=True, seed=seed)
    return randomised(mllm, float(share), seed=seed)


def fixed_targets(mllm: Any, samples: Sequence[Sample], prompt: Any, target: Target) -> list[Target]:
    """The target of each sample as an answer that does not change with the model.

    "greedy" is what the model itself would say; a copy with other weights would say something else, and its map of
    that would differ for that reason alone. An empty answer stays "greedy".
    """
    if target.spec != "greedy":
        return [target] * len(samples)
    n = int(getattr(target, "tokens", 1))
    said = mllm.trace(samples, prompt=prompt, generate=n).answers
    return [Target(text, reduce=target.reduce) if text.strip() else target for text in said]


def other_questions(data: Samples, usable: Sequence[bool], seed: int) -> tuple[int | None, ...]:
    """For every sample the index of one with another question; None where all ask the same.

    The usable samples stand in a ring in random order, and each takes the question of the next that asks otherwise.
    """
    able = [index for index in range(len(data)) if usable[index]]
    ring = np.random.default_rng(seed).permutation(able).tolist() if able else []
    found: list[int | None] = [None] * len(data)
    for place, index in enumerate(ring):
        later = (ring[(place + step) % len(ring)] for step in range(1, len(ring)))
        found[index] = next((one for one in later if data[one].question != data[index].question), None)
    return tuple(found)


def asked_otherwise(sample: Sample, other: Sample) -> Sample:
    """The sample's image with another sample's question, options and answer; boxes stay."""
    return sample.replace(question=other.question, options=other.options, answer=other.answer, id=sample.id)
