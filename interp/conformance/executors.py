"""Whether both ways of running reads and edits agree: taps, and nnsight's view of the attention call."""

from __future__ import annotations

from interp.conformance.agreement import Agreement
from interp.conformance.editing import two_thirds
from interp.conformance.result import Measured
from interp.conformance.subject import Subject
from interp.tracing import Knockout, Rows, Site, image_mask

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
    found = Agreement(subject)
    for chosen in ([], edits):
        one, two = (
            m.trace(subject.batch, reads=reads, edits=chosen, generate=_STEPS) for m in (subject.mllm, other)
        )
        for i, (a, b) in enumerate(zip(one, two, strict=True)):
            found.logits(one.logits.values[i], two.logits.values[i])
            for x, y in zip(a.reads, b.reads, strict=True):
                for step in range(min(len(x), len(y))):
                    found.rows(x.values[step], y.values[step])
            found.wrong += [] if a.answer == b.answer else [f"{a.answer!r}, by source {b.answer!r}"]
    return found.measured(f"reads, edits and {_STEPS} steps of {len(subject.samples)} prompts, left-padded")
