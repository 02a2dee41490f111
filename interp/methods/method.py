"""The interface of methods, which are values that answer samples, and the answer that they give.

`EditedGeneration` is the base of methods whose answer is one generation under the same edits for every sample. `Plain`
is the unedited model, for comparison.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import reduce
from numbers import Integral
from operator import add
from typing import Any, ClassVar, Protocol, TypeVar, runtime_checkable

import numpy as np
from jaxtyping import Float

from interp.errors import MethodError
from interp.indicators.indicator_checks import check_call
from interp.inputs.prompt import Prompt
from interp.inputs.sample import Sample
from interp.inputs.sample_list import as_samples
from interp.tracing import Batch, Cost, Decoding, Edit, Mllm, Prefix, Trace
from interp.tracing.passes.micro_batches import BATCH_SIZE, MicroBatch, in_batches, in_order
from interp.tracing.passes.prefix_pass import Samples

__all__ = [
    "BATCH_SIZE",
    "Answer",
    "EditedGeneration",
    "Method",
    "Plain",
    "Samples",
    "answers",
    "each_in_batches",
    "n_tokens",
    "shared_prefix",
]


@runtime_checkable
class Method(Protocol):
    """A way to answer questions on images. A frozen dataclass, so that it compares and serialises.

    Attributes:
        name: The name in tables, the same for all parameters: a class attribute.
    """

    name: ClassVar[str]

    def answer(
        self,
        mllm: Mllm,
        samples: Samples,
        *,
        prompt: Prompt | None = None,
        max_new_tokens: int = 16,
        batch_size: int = BATCH_SIZE,
        progress: bool = True,
    ) -> list[Answer]:
        """The answers to these samples, in their order, in micro-batches. Answers do not depend on each other.

        Args:
            mllm: The model.
            samples: The samples, or a batch or prefix of them.
            prompt: The prompt around the question; by default `PAPER_PROMPT`, or that of the batch or prefix.
            max_new_tokens: The most tokens to generate, one or more.
            batch_size: Samples in one pass at most.
            progress: Whether to show a bar where there are several micro-batches.
        """
        ...

    def to_dict(self) -> dict[str, Any]:
        """Everything the results depend on, as JSON values: part of a study's hash."""
        ...


@dataclass(frozen=True, eq=False)
class Answer:
    """One sample's answer under a method.

    Attributes:
        text: The generated text.
        logits: float32 (token_id,) after the last prompt token, under the method. A contrast gives −∞ where it
            excludes a token.
        cost: The cost of the whole call; the same for every answer of the call, so count it once.
        details: What the method did to this sample, by convention under these names: "map", float (token,) over the
            image tokens; "kept", bool (token,); "crop", (x0, y0, x1, y1) in pixels; "confidence" and "weight", floats.
            Empty for the plain model.
    """

    text: str | None
    logits: Float[np.ndarray, " token_id"]
    cost: Cost
    details: Mapping[str, Any] = field(default_factory=dict)


def answers(trace: Trace, cost: Cost, details: Sequence[Mapping[str, Any]] = ()) -> list[Answer]:
    """Each sample's answer from the trace that generated it.

    Args:
        trace: A trace with generate=.
        cost: The cost of the whole call, including the trace.
        details: One mapping per sample; empty where no sample has details.
    """
    said = details or [{} for _ in trace.answers]
    return [
        Answer(text, logits, cost, found)
        for text, logits, found in zip(trace.answers, trace.logits.values, said, strict=True)
    ]


@runtime_checkable
class _Billed(Protocol):
    """A result for one sample that holds the cost of the whole call."""

    @property
    def cost(self) -> Cost:
        """The cost."""
        ...


Found = TypeVar("Found", bound=_Billed)


def each_in_batches(
    mllm: Mllm,
    samples: Samples,
    together: Callable[[Mllm, MicroBatch], list[Found]],
    *,
    batch_size: int,
    progress: bool,
) -> list[Found]:
    """The results of `together` for all samples, in their order, each with the cost of the whole call."""
    parts = in_batches(mllm, samples, together, batch_size=batch_size, progress=progress)
    if len(parts) == 1:
        return parts[0][1]
    cost = reduce(add, (found[0].cost for _, found in parts))
    each: list[Any] = in_order(parts)
    return [replace(one, cost=cost) for one in each]


def shared_prefix(
    mllm: Mllm, samples: Samples, *prompts: Prompt
) -> tuple[tuple[Sample, ...] | Batch | Prefix, Cost]:
    """The prefix or samples to run each of the prompts on, and its cost so far.

    It is the samples' prefix if one pass over the images serves every prompt: for a single prompt, and for prompts that
    begin with the same system message and the images. Otherwise it is the samples. The cost of a prefix that was passed
    is not counted again.
    """
    if isinstance(samples, Prefix):
        return samples, Cost()
    listed = samples if isinstance(samples, Batch) else as_samples(samples)
    first, *others = prompts
    if any(
        not (p.image_first and first.image_first) or p.system != first.system for p in others if p != first
    ):
        return listed, Cost()
    prefix = mllm.prefix(listed, prompt=first)
    return prefix, prefix.cost


def n_tokens(max_new_tokens: Any) -> int:
    """The checked maximum number of tokens to generate.

    Raises:
        MethodError: Not a whole number of at least 1.
    """
    if isinstance(max_new_tokens, bool) or not isinstance(max_new_tokens, Integral) or max_new_tokens < 1:
        raise MethodError(
            "max_new_tokens is a whole number of at least 1, because an answer has at least one token; got "
            f"{max_new_tokens!r}."
        )
    return int(max_new_tokens)


class EditedGeneration:
    """A method that answers by one generation, under edits and a decoding that do not depend on the sample."""

    def edits(self, mllm: Mllm) -> Sequence[Edit]:
        """The edits, for `mllm.trace`; none unless the method has some."""
        return []

    @property
    def decoding(self) -> Decoding:
        """How tokens are chosen, for `mllm.trace`; greedily unless the method says otherwise."""
        return Decoding()

    @property
    def details(self) -> Mapping[str, Any]:
        """The `Answer.details` of each sample."""
        return {}

    def answer(
        self,
        mllm: Mllm,
        samples: Samples,
        *,
        prompt: Prompt | None = None,
        max_new_tokens: int = 16,
        batch_size: int = BATCH_SIZE,
        progress: bool = True,
    ) -> list[Answer]:
        """The answers to these samples, in their order, in micro-batches. Cost: one generation.

        A contrast costs a second one. `Answer.logits` are those after edits and contrast.

        Args:
            mllm: The model.
            samples: The samples, or a batch or prefix of them.
            prompt: The prompt around the question; by default `PAPER_PROMPT`, or that of the batch or prefix.
            max_new_tokens: The most tokens to generate, one or more.
            batch_size: Samples in one pass at most.
            progress: Whether to show a bar where there are several micro-batches.

        Raises:
            SiteError: Layers the model does not have.
            MethodError: `max_new_tokens` below 1.
            InterpError: Samples or prompts that cannot be encoded.
        """
        check_call(mllm, prompt)
        generate = n_tokens(max_new_tokens)
        options = {"decoding": self.decoding, "batch_size": batch_size, "progress": progress}
        trace = mllm.trace(samples, prompt=prompt, edits=self.edits(mllm), generate=generate, **options)
        return answers(trace, trace.cost, [dict(self.details) for _ in trace])

    def repeat(self, mllm: Mllm, answers: Sequence[Answer]) -> Sequence[Edit]:
        """The edits that gave these answers, for another trace of the same batch."""
        return self.edits(mllm)


@dataclass(frozen=True)
class Plain(EditedGeneration):
    """The unedited model's greedy answer, with which every method is compared."""

    name: ClassVar[str] = "Plain"

    def to_dict(self) -> dict[str, Any]:
        """The method as JSON values."""
        return {"method": self.name}
