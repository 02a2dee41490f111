"""What a method says about a sample, and what it did to say it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Protocol, TypeAlias, runtime_checkable

import numpy as np
from jaxtyping import Float

from interp.inputs.prompt import PAPER_PROMPT, Prompt
from interp.inputs.sample import Sample
from interp.tracing import Batch, Cost, Mllm, Prefix, Trace
from interp.tracing.encode import as_samples

__all__ = ["Answer", "Method", "Samples", "answers", "shared_prefix"]


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


Samples: TypeAlias = Sample | Iterable[Sample] | Batch | Prefix
"""One batch: samples, encoded or not, or a prefix already run, whose cost is not counted again."""


@runtime_checkable
class Method(Protocol):
    """A way to answer questions on images. A frozen dataclass, so that it compares and serialises.

    Attributes:
        name: What tables call it, the same for every parameter: a class attribute.
    """

    name: ClassVar[str]

    def answer(
        self,
        mllm: Mllm,
        samples: Sample | Iterable[Sample],
        *,
        prompt: Prompt = PAPER_PROMPT,
        max_new_tokens: int = 16,
    ) -> list[Answer]:
        """The answers to these samples, in their order, run as one batch.

        Args:
            mllm: The model.
            samples: One batch; what fits in memory is the caller's choice.
            prompt: How the question is put.
            max_new_tokens: How many tokens to generate at most.
        """
        ...

    def to_dict(self) -> dict[str, Any]:
        """Everything its results depend on, as JSON values: part of a study's hash."""
        ...


def shared_prefix(mllm: Mllm, samples: Samples, *prompts: Prompt) -> tuple[list[Sample] | Prefix, Cost]:
    """What to run each of the prompts on, and what it took so far.

    That is the samples' prefix where one pass over the images serves every prompt: one prompt alone, or prompts
    that begin with the same system message and the images. Else it is the samples. A prefix that is given was
    paid for by its maker.
    """
    if isinstance(samples, Prefix):
        return samples, Cost()
    listed = _listed(samples)
    first, *others = prompts
    if any(
        not (p.image_first and first.image_first) or p.system != first.system for p in others if p != first
    ):
        return listed, Cost()
    prefix = mllm.prefix(listed, prompt=first)
    return prefix, prefix.cost


def _listed(samples: Samples) -> list[Sample]:
    if isinstance(samples, Batch | Prefix):
        return list(samples.samples)
    return list(as_samples(samples))
