"""What the tests of removals share: tiny models of several families, one sample, masks, plain log-probabilities."""

from __future__ import annotations

from functools import cache

import numpy as np
import torch

import tests.tiny as small
from interp.conformance.tiny import tiny
from interp.inputs.sample import Sample
from interp.tracing import Mllm, wrap

FAMILIES = ("llava", "qwen2_5_vl", "gemma3", "paligemma", "qwen3_vl")
SAMPLE = Sample(small.picture(96, 80, seed=4), "where is the nodule in it?")
OTHER = Sample(small.picture(96, 80, seed=7), "is it red?")


@cache
def family(name: str) -> Mllm:
    return wrap(*tiny(name))


def masks(n: int, variants: int = 4) -> np.ndarray:
    """Random ones; the first takes nothing away, the second all."""
    found = np.random.default_rng(0).random((variants, n)) < 0.3
    found[0], found[1] = False, True
    return found


def log_p(logits: np.ndarray) -> np.ndarray:
    return torch.from_numpy(np.array(logits)).double().log_softmax(-1).numpy()
