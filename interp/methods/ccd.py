"""CCD: guide logits by another model's findings, behind the prompt and on the tokens of their words."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from interp.errors import MethodError, PromptError
from interp.inputs.prompt import Prompt
from interp.methods.method import BATCH_SIZE, Answer, Samples, generated
from interp.tracing import ClinicalContrast, Decoding, Edit, Mllm

__all__ = ["CCD"]


@dataclass(frozen=True)
class CCD:
    """Clinical contrastive decoding: findings of a specialised classifier steer the words of the answer.

    With s the log-probabilities after the prompt, c those after the prompt with the findings behind it and b a bias on
    the findings' first tokens, each step's logits become (1 − α)·s + α·c + β·b. `interp.ClinicalContrast` says what
    stands behind the prompt and what b is. The classifier is yours: the method takes its probabilities.

    Args:
        findings: For each sample's id, label → probability in [0, 1].
        alpha: α in [0, 1].
        beta: β in [0, 1].
        gamma: γ: the bias is at most ln γ in size.

    Raises:
        MethodError: A parameter out of its range, or findings that are no such mapping.

    Source: arXiv 2509.23379 and its official code (α 0.5, β 0.5, γ 10), made for reports of chest X-rays. The code also
    forbids repeated runs of three tokens; this class does not.
    """

    findings: Any
    alpha: float = 0.5
    beta: float = 0.5
    gamma: float = 10.0
    name: ClassVar[str] = "CCD"

    def __post_init__(self) -> None:
        try:
            contrast = ClinicalContrast(self.findings, self.alpha, self.beta, self.gamma)
        except PromptError as error:
            raise MethodError(str(error)) from error
        object.__setattr__(self, "findings", contrast.findings)

    @property
    def decoding(self) -> Decoding:
        """Greedy decoding under the guidance, for `mllm.trace`."""
        return Decoding(contrast=ClinicalContrast(self.findings, self.alpha, self.beta, self.gamma))

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

        Cost: a generation after the prompt and one after the prompt with findings. `logits` are the guided ones.

        Args:
            mllm: The model.
            samples: The samples, or a batch or prefix of them.
            prompt: The prompt around the question; by default `PAPER_PROMPT`, or that of the batch or prefix.
            max_new_tokens: How many tokens to generate at most.
            batch_size: Samples in one pass at most.
            progress: Whether to show a bar where there are several micro-batches.

        Raises:
            MethodError: `max_new_tokens` below 1.
            InterpError: Samples or prompts that cannot be encoded, or that have no findings.
        """
        return generated(
            mllm,
            samples,
            prompt=prompt,
            max_new_tokens=max_new_tokens,
            batch_size=batch_size,
            progress=progress,
            decoding=self.decoding,
        )

    def repeat(self, mllm: Mllm, answers: Sequence[Answer]) -> list[Edit]:
        """No edits: the model's own attention gave these answers."""
        return []

    def to_dict(self) -> dict[str, Any]:
        """The method as JSON values."""
        findings = {name: dict(found) for name, found in self.findings}
        own = {"findings": findings, "alpha": self.alpha, "beta": self.beta, "gamma": self.gamma}
        return {"method": self.name, **own}
