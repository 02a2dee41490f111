"""A benchmark on the planted model: every answer before and after is known."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from interp.data import Samples
from interp.study import Benchmark
from tests.study.planted import samples
from tests.study.planted_methods import Answering, Swap

MODALITIES = ("CT", "CT", "MR")


def divided(n: int = 12, name: str = "planted", start: int = 0) -> Samples:
    """Samples of which two in three are CT and one is MR; groups of two follow one another."""
    found = samples(n, name=name, start=start)
    return Samples(
        [one.replace(meta={"modality": MODALITIES[i % 3], "kind": "closed"}) for i, one in enumerate(found)],
        name,
    )


def benchmark(**changes: Any) -> Benchmark:
    base = Benchmark(data=divided(), model=Answering(), method=Swap(), batch=2, max_new_tokens=4)
    return replace(base, **changes)
