"""How many threads a model runs on: one for small models, which more would only make wait for each other."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

__all__ = ["SMALL", "suitable_threads"]

SMALL = 50_000_000
"""Parameters below which a second thread costs more than it brings: on a busy machine with two cores an
organism of 1.8 million took 28 times as long on two threads as on one."""


@contextmanager
def suitable_threads(mllm: Any) -> Iterator[None]:
    """One torch thread while a small model runs on a CPU; otherwise as many as there were.

    It also makes a small model's bytes independent of the number of cores.
    """
    import torch

    before = torch.get_num_threads()
    parameters = getattr(getattr(mllm, "hf", None), "parameters", None)
    small = parameters is not None and sum(weight.numel() for weight in parameters()) < SMALL
    if small and str(mllm.device).startswith("cpu"):
        torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
