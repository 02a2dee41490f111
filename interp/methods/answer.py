"""What a method says about a sample, and what it did to say it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from jaxtyping import Float

from interp.tracing import Cost, Trace

__all__ = ["Answer", "answers"]


@dataclass(frozen=True, eq=False)
class Answer:
    """One sample's answer under a method.

    Attributes:
        text: What was generated.
        logits: float32 (token_id,) after the last prompt token, under the method. A contrast leaves −∞ where
            it rules a token out.
        cost: What the whole call took that gave it; the same for every answer of a batch, so count it once.
        details: What the method did to this sample, by convention under these names: "map", float (token,)
            over the image tokens; "kept", bool (token,); "crop", (x0, y0, x1, y1) in pixels; "confidence" and
            "weight", floats. Empty for the plain model.
    """

    text: str
    logits: Float[np.ndarray, " token_id"]
    cost: Cost
    details: Mapping[str, Any] = field(default_factory=dict)


def answers(trace: Trace, cost: Cost, details: Sequence[Mapping[str, Any]] = ()) -> list[Answer]:
    """Each sample's answer from the trace that generated it.

    Args:
        trace: A trace with generate=.
        cost: Of the whole call, the trace included.
        details: One mapping per sample, or none for any.
    """
    said = details or [{} for _ in trace.answers]
    return [
        Answer(text, logits, cost, found)
        for text, logits, found in zip(trace.answers, trace.logits.values, said, strict=True)
    ]
