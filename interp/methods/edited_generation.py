"""What methods have in common whose answer is one generation under the same edits for every sample."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from interp.indicators.indicator_checks import check_call
from interp.inputs.prompt import Prompt
from interp.methods.method import BATCH_SIZE, Answer, Samples, answers, n_tokens
from interp.tracing import Decoding, Edit, Mllm

__all__ = ["EditedGeneration"]


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
        """What `Answer.details` of each sample hold."""
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
            max_new_tokens: How many tokens to generate at most, one or more.
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
