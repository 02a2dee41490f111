"""What a model gives when it is read, edited, continued and differentiated, to compare two ways of running it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

import tests.tiny as tiny
from interp.indicators import AttentionGradient, AttributionPatching, IntegratedGradients
from interp.inputs.sample import Sample
from interp.tracing import Knockout, Rows, Site

READS = [Rows(Site(queries="last"))]
EDITS = [
    Knockout(Site(layers=[0], queries="all", keys="image")),
    Knockout(Site(layers=[2], keys="image")),
]
INDICATORS = (AttentionGradient(), AttributionPatching(), IntegratedGradients(steps=2))


def numbers(mllm: Any, samples: Sequence[Sample] | None = None) -> dict[str, np.ndarray]:
    """Rows, edits, generation, prefix and gradients of a model."""
    samples = tiny.samples()[:2] if samples is None else samples
    plain = mllm.trace(samples, reads=READS, generate=2)
    edited = mllm.trace(samples, edits=EDITS)
    after = mllm.trace(mllm.prefix(samples), reads=READS)
    found = {"logits": plain.logits, "edited": edited.logits, "after": after.logits}
    found |= {f"rows {i}": plain[i].rows for i in range(len(samples))}
    for indicator in INDICATORS:
        found[type(indicator).__name__] = indicator(mllm, samples[:1])[0]
    return {name: np.asarray(value) for name, value in found.items()}


def alike(found: Mapping[str, np.ndarray], expected: Mapping[str, np.ndarray]) -> None:
    """Fails unless all numbers are equal up to rounding."""
    for name, value in expected.items():
        np.testing.assert_allclose(found[name], value, atol=2e-6, rtol=1e-4, err_msg=name)
