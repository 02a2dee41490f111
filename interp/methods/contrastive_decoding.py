"""Contrastive decoding: VCD guides logits away from a noised image's, CCD towards another model's findings."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from interp.errors import MethodError, PromptError
from interp.indicators.indicator_checks import check_number
from interp.methods.method import EditedGeneration
from interp.tracing import ClinicalContrast, Contrast, Decoding, NoisedImage

__all__ = ["CCD", "VCD"]


@dataclass(frozen=True)
class VCD(EditedGeneration):
    """Visual contrastive decoding: subtracts what a noised image makes likely too, which comes from language alone.

    With s the logits, and u those after the same prompt and generated tokens on the noised image, each step's logits
    become (1 + α)·s − α·u, and −∞ where s < max s + ln β. The noise is `interp.NoisedImage`.

    Args:
        alpha: α ≥ 0; with 0 only the cutoff acts.
        cutoff: β in (0, 1]: the smallest probability, relative to the most probable token's, that is not excluded.
        step: The diffusion step of the noise, 0 to 999.
        seed: The seed of the noise; each sample draws its own noise.

    Raises:
        MethodError: A parameter out of its range.

    Source: arXiv 2311.16922 and its official code, whose evaluation scripts take α 1, β 0.1 and step 500. The source
    draws tokens; here decoding is greedy. It draws the noise anew for each sample, without a seed.
    """

    alpha: float = 1.0
    cutoff: float = 0.1
    step: int = 500
    seed: int = 0
    name: ClassVar[str] = "VCD"

    def __post_init__(self) -> None:
        check_number("alpha", self.alpha, low=0.0, error=MethodError)
        try:
            _ = self.decoding
        except PromptError as error:
            raise MethodError(str(error)) from error

    @property
    def decoding(self) -> Decoding:
        """Greedy decoding under the guidance, for `mllm.trace`."""
        noise = NoisedImage(self.step, self.seed)
        return Decoding(contrast=Contrast(gamma=1 + self.alpha, cutoff=self.cutoff, against=noise))

    def to_dict(self) -> dict[str, Any]:
        """The method as JSON values."""
        own = {"alpha": self.alpha, "cutoff": self.cutoff, "step": self.step, "seed": self.seed}
        return {"method": self.name, **own}


@dataclass(frozen=True)
class CCD(EditedGeneration):
    """Clinical contrastive decoding: findings of a specialised classifier steer the words of the answer.

    With s the log-probabilities after the prompt, c those after the prompt followed by the findings, and b a bias on
    the findings' first tokens, each step's logits become (1 − α)·s + α·c + β·b. `interp.ClinicalContrast` defines the
    added text and b. You bring the classifier: the method takes its probabilities.

    Args:
        findings: A mapping from each sample's id to its findings, label → probability in [0, 1].
        alpha: α in [0, 1], the weight of the prompt with the findings.
        beta: β in [0, 1], the weight of the bias.
        gamma: γ; the bias is at most ln γ in size.

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

    def to_dict(self) -> dict[str, Any]:
        """The method as JSON values."""
        findings = {name: dict(found) for name, found in self.findings}
        own = {"findings": findings, "alpha": self.alpha, "beta": self.beta, "gamma": self.gamma}
        return {"method": self.name, **own}
