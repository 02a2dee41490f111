"""Whether both ways of running reads and edits agree: taps, and nnsight's view of the attention call."""

from __future__ import annotations

import numpy as np

from interp.conformance.editing import two_thirds
from interp.conformance.reading import relative
from interp.conformance.result import Measured
from interp.conformance.subject import Subject
from interp.tracing import Knockout, Rows, Site, Trace, image_mask

__all__ = ["executors"]

_STEPS = 3


def executors(subject: Subject) -> Measured:
    """Reads, edits in both modes and decode steps of a left-padded batch, by either executor."""
    hidden = image_mask(two_thirds(subject))
    reads = [Rows(Site(queries="after_image", keys="all")), Rows(Site(queries="last", keys="all"))]
    edits = [
        Knockout(Site(layers=[0], queries="after_image", keys=hidden)),
        Knockout(Site(heads=[(subject.mllm.n_layers - 1, 0)], queries="last", keys=hidden), "zero"),
    ]
    other = subject.mllm.using("source")
    worst, different = 0.0, 0
    for chosen in ([], edits):
        one, two = (
            m.trace(subject.batch, reads=reads, edits=chosen, generate=_STEPS) for m in (subject.mllm, other)
        )
        worst = max(worst, _difference(one, two))
        different += sum(a != b for a, b in zip(one.answers, two.answers, strict=True))
    return Measured(
        worst,
        "largest difference of a row (probability) or of the logits (over the largest)",
        subject.tolerance,
        f"reads, edits and {_STEPS} steps of {len(subject.samples)} prompts, left-padded"
        + (f"; {different} answers differ" if different else ""),
        holds=not different,
    )


def _difference(one: Trace, two: Trace) -> float:
    worst = relative(one.logits.values, two.logits.values)
    for a, b in zip(one, two, strict=True):
        for x, y in zip(a.reads, b.reads, strict=True):
            worst = max(worst, float(np.abs(x.values - y.values).max()))
    return worst
