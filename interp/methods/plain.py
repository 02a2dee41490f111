"""The unedited model, for comparison."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from interp.indicators.indicator_checks import check_call
from interp.inputs.prompt import Prompt
from interp.methods.method import BATCH_SIZE, Answer, Samples, answers, n_tokens
from interp.tracing import Edit, Mllm

__all__ = ["Plain"]


@dataclass(frozen=True)
class Plain:
    """The unedited model's greedy answer, with which every method is compared."""

    name: ClassVar[str] = "Plain"

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
        """The answers to these samples, in their order, in micro-batches.

        Args:
            mllm: The model.
            samples: The samples, or a batch or prefix of them.
            prompt: The prompt around the question; by default `PAPER_PROMPT`, or that of the batch or prefix.
            max_new_tokens: How many tokens to generate at most, one or more.
            batch_size: Samples in one pass at most.
            progress: Whether to show a bar where there are several micro-batches.

        Raises:
            MethodError: `max_new_tokens` below 1.
            InterpError: Samples or prompts that cannot be encoded.
        """
        check_call(mllm, prompt)
        options = {"generate": n_tokens(max_new_tokens), "batch_size": batch_size, "progress": progress}
        trace = mllm.trace(samples, prompt=prompt, **options)
        return answers(trace, trace.cost)

    def repeat(self, mllm: Mllm, answers: Sequence[Answer]) -> list[Edit]:
        """The edits that gave these answers: none."""
        return []

    def to_dict(self) -> dict[str, Any]:
        """The method as JSON values."""
        return {"method": self.name}
