"""What every method is: a value that answers a batch of samples."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, ClassVar, Protocol, TypeAlias, runtime_checkable

from interp.methods.answer import Answer
from interp.prompt import PAPER_PROMPT, Prompt
from interp.sample import Sample
from interp.tracing import Batch, Mllm, Prefix

__all__ = ["Method", "Samples"]

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
