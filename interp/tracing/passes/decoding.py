"""How answers are generated: the most likely tokens, tokens drawn with a seed, or logits guided by a second stream."""

from __future__ import annotations

import hashlib
import math
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from numbers import Integral, Real
from typing import Any, Literal, TypeAlias

import torch
from jaxtyping import Float, Int
from torch import Tensor

from interp.errors import ModelError, PromptError

__all__ = [
    "ClinicalContrast",
    "Contrast",
    "Decoding",
    "Draw",
    "Guidance",
    "NoisedImage",
    "plain_numbers",
    "real",
    "stream_seed",
]


N_STEPS = 1000
"""Steps of the diffusion schedule."""
GUIDE_THRESHOLD, DECAY, LEAST = 0.5, 0.95, 1e-6
"""Of CCD: from which probability on a finding is named, how its later words count, the bound of probabilities."""
VIEWS = ("Frontal", "Lateral")
Finding = tuple[str, float]


@dataclass(frozen=True)
class Decoding:
    """How each next token is chosen from the logits.

    Beam search is refused: reads and edits are of each sample's own rows, and beams would reorder them.

    Args:
        temperature: 0 takes the most likely token; t ≥ 0.001 draws from softmax(logits / t), and the trace needs a
            seed. Each sample draws from a stream of its own, seeded by the seed and the sample's id, so that
            its answer does not depend on the rest of its batch.
        top_k: Draw among the k most likely tokens only.
        top_p: Draw among the fewest most likely tokens that have at least this probability together, in (0, 1].
        contrast: Guidance by a second stream, a `Contrast` or a `ClinicalContrast`; None for none.
        beams: 1.

    Raises:
        PromptError: Values out of range, top_k or top_p with temperature 0, or beams other than 1.
    """

    temperature: float = 0.0
    top_k: int | None = None
    top_p: float | None = None
    contrast: Guidance | None = None
    beams: int = field(default=1, kw_only=True)

    def __post_init__(self) -> None:
        if isinstance(self.beams, bool) or not isinstance(self.beams, Integral) or self.beams != 1:
            raise PromptError(
                f"beam search is refused (beams={self.beams!r}): reads and edits are of each sample's own rows, "
                "and beams would reorder them. Use temperature=0 for the most likely token at each step, or "
                "temperature > 0 with a seed, several times."
            )
        if not real(self.temperature) or self.temperature < 0 or 0 < self.temperature < 1e-3:
            raise PromptError(
                f"temperature is 0 (the most likely token) or a number ≥ 0.001; got {self.temperature!r}."
            )
        if self.top_k is not None and (
            not isinstance(self.top_k, Integral) or isinstance(self.top_k, bool) or self.top_k < 1
        ):
            raise PromptError(f"top_k is a whole number ≥ 1, or None; got {self.top_k!r}.")
        if self.top_p is not None and not (real(self.top_p) and 0 < self.top_p <= 1):
            raise PromptError(f"top_p is a share in (0, 1], or None; got {self.top_p!r}.")
        if not self.temperature and (self.top_k, self.top_p) != (None, None):
            raise PromptError("top_k and top_p limit what is drawn from; give a temperature > 0 as well.")
        if self.contrast is not None and not isinstance(self.contrast, Contrast | ClinicalContrast):
            raise PromptError(f"contrast is an interp.Contrast or None; got {self.contrast!r}.")
        plain_numbers(self, temperature=float, top_k=int, top_p=float)

    def to_dict(self) -> dict[str, Any]:
        """The decoding as JSON values."""
        contrast = self.contrast
        return {
            "temperature": self.temperature,
            "top_k": self.top_k,
            "top_p": self.top_p,
            "contrast": None if contrast is None else contrast.to_dict(),
        }

    def probabilities(self, logits: Float[Tensor, "sample token_id"]) -> Float[Tensor, "sample token_id"]:
        """What tokens are drawn with at a temperature > 0, float64, renormalised over those that are left."""
        scaled = logits.double() / self.temperature
        if self.top_k is not None and self.top_k < scaled.shape[1]:
            least = scaled.topk(self.top_k, dim=-1).values[:, -1:]
            scaled = scaled.masked_fill(scaled < least, -torch.inf)
        if self.top_p is not None:
            ordered, order = scaled.softmax(dim=-1).sort(dim=-1, descending=True, stable=True)
            before = ordered.cumsum(dim=-1) - ordered
            late = torch.zeros_like(ordered, dtype=torch.bool).scatter(1, order, before >= self.top_p)
            scaled = scaled.masked_fill(late, -torch.inf)
        return scaled.softmax(dim=-1)


class Draw:
    """Chooses each sample's next token. Every sample has random numbers of its own, as many as steps."""

    def __init__(self, decoding: Decoding, seed: int | None, names: Sequence[str]) -> None:
        self.decoding = decoding
        self._seeds = [stream_seed(seed, name) for name in names] if decoding.temperature else []
        self._streams: list[torch.Generator] = []  # made when first drawn from, since they do not pickle

    def __call__(self, logits: Float[Tensor, "sample token_id"]) -> Int[Tensor, " sample"]:
        """The next tokens."""
        if not self.decoding.temperature:
            return logits.argmax(dim=-1)
        sums = self.decoding.probabilities(logits).cumsum(dim=-1)
        if bool(sums.isnan().any()):
            raise ModelError(
                "the logits are not numbers (NaN), so no token can be drawn. Try dtype='float32'."
            )
        self._streams = self._streams or [torch.Generator().manual_seed(one) for one in self._seeds]
        draws = [torch.rand(1, generator=stream, dtype=torch.float64) for stream in self._streams]
        places = torch.stack(draws).to(logits.device) * sums[:, -1:]
        # `right`: a draw of exactly 0 must not take a token of probability 0
        return torch.searchsorted(sums, places, right=True)[:, 0].clamp(max=logits.shape[1] - 1)


@dataclass(frozen=True)
class NoisedImage:
    """The image under Gaussian noise, which visual contrastive decoding (VCD) shows its second stream.

    Pixel values x, as the processor made them, become √ᾱ·x + √(1 − ᾱ)·ε, with ε standard normal and ᾱ the product of
    1 − β up to the step, of a sigmoid schedule of 1,000 steps: β from 1e-5 to 5e-3 over sigmoid(−6 … 6). At step 0 the
    image is nearly itself, at 999 nearly all noise. Each sample has noise of its own, seeded by the seed and its id, so
    that it does not depend on the batch; it stays the same at every generated token.

    Args:
        step: The step, 0 to 999.
        seed: Of the noise.

    Raises:
        PromptError: A step or a seed that is no whole number of its range.

    Source: arXiv 2311.16922 and its official code, whose evaluation scripts take step 500.
    """

    step: int = 500
    seed: int = 0

    def __post_init__(self) -> None:
        for name, most in (("step", N_STEPS - 1), ("seed", 2**63 - 1)):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, Integral) or not 0 <= int(value) <= most:
                raise PromptError(f"{name} is a whole number from 0 to {most}; got {value!r:.100}.")
        plain_numbers(self, step=int, seed=int)

    def __call__(self, pixels: Float[Tensor, ...], name: str) -> Float[Tensor, ...]:
        """The pixel values of the sample of this id, noised; float32."""
        betas = torch.linspace(-6, 6, N_STEPS).sigmoid() * (0.5e-2 - 1e-5) + 1e-5
        kept = (1 - betas).cumprod(dim=0)[self.step]
        generator = torch.Generator().manual_seed(stream_seed(self.seed, name))
        noise = torch.randn(pixels.shape, generator=generator)
        return kept.sqrt() * pixels.float() + (1 - kept).sqrt() * noise

    def to_dict(self) -> dict[str, Any]:
        """The noise as JSON values."""
        return {"noised_image": {"step": self.step, "seed": self.seed}}


@dataclass(frozen=True)
class Contrast:
    """Guidance against the model without the image, as PAI does it, or with a noised one, as VCD does it.

    At each step the logits s become γ·(s − u) + u, and −∞ where s < max s + ln(cutoff). u are the logits after
    the same prompt and generated tokens in a second stream without any edit: with the image tokens taken out (text
    around an image, such as tags, stays), or with a noised image. Each step costs a second pass, which is shorter
    without the image.

    VCD writes (1 + α)·s − α·u, which is the same with γ = 1 + α: `Contrast(2.0, 0.1, interp.NoisedImage(500))` is VCD
    with α = 1 and β = 0.1.

    Args:
        gamma: γ; 1 leaves s as it is but for the cutoff.
        cutoff: smallest probability a token may have, as a share of the most likely token's, in (0, 1]; None
            for no cutoff.
        against: "no image", or an `interp.NoisedImage`.

    Raises:
        PromptError: A gamma that is no finite number, a cutoff outside (0, 1], or another `against`.

    Source: arXiv 2407.21771 (PAI), arXiv 2311.16922 (VCD).
    """

    gamma: float = 1.1
    cutoff: float | None = 0.1
    against: Literal["no image"] | NoisedImage = "no image"

    def __post_init__(self) -> None:
        if not real(self.gamma):
            raise PromptError(f"gamma is a finite number; got {self.gamma!r}.")
        if self.cutoff is not None and not (real(self.cutoff) and 0 < self.cutoff <= 1):
            raise PromptError(f"cutoff is a share in (0, 1], or None; got {self.cutoff!r}.")
        known = isinstance(self.against, NoisedImage) or (
            isinstance(self.against, str) and self.against == "no image"
        )
        if not known:
            raise PromptError(f'against is "no image" or an interp.NoisedImage; got {self.against!r:.200}.')
        plain_numbers(self, gamma=float, cutoff=float)

    def __call__(
        self, with_image: Float[Tensor, "sample token_id"], without: Float[Tensor, "sample token_id"]
    ) -> Float[Tensor, "sample token_id"]:
        """The guided logits, from those with the image and those of the second stream."""
        guided = self.gamma * (with_image - without) + without
        guided = guided.masked_fill(
            with_image == -torch.inf, -torch.inf
        )  # masked in both, −∞ − −∞ is no number
        if self.cutoff is None:
            return guided
        least = with_image.amax(dim=-1, keepdim=True) + math.log(self.cutoff)
        return guided.masked_fill(with_image < least, -torch.inf)

    def to_dict(self) -> dict[str, Any]:
        """The guidance as JSON values; without `against` where that is "no image"."""
        found: dict[str, Any] = {"gamma": self.gamma, "cutoff": self.cutoff}
        return found if isinstance(self.against, str) else {**found, "against": self.against.to_dict()}


@dataclass(frozen=True)
class ClinicalContrast:
    """Guidance by findings of another model, as clinical contrastive decoding (CCD) does it.

    With s the log-probabilities after the prompt, c those after the prompt with the findings written behind it, and b a
    bias on the first tokens of the findings' words, the logits become (1 − α)·s + α·c + β·b. The findings with a
    probability of 0.5 or more are written after the prompt. For a finding of probability p whose tokens are numbered i
    from 0, each token that begins a word gets b = ln(q / (1 − q)) with q = p·0.95^i, clamped to ±ln γ; the finding is
    taken as it is written and in lower case, and of several biases of a token the one of the largest q counts. Both
    streams see the image, so a step costs two passes; the second is not edited.

    Args:
        findings: For each sample's id, label → probability in [0, 1], of a model for such images. The labels "Frontal"
            and "Lateral" are views, which are named apart. Each sample that is traced must be among them.
        alpha: α in [0, 1], the weight of the prompt with findings.
        beta: β in [0, 1], the weight of the bias.
        gamma: γ; the bias is at most ln γ in size. 1 or less does not clamp.

    Raises:
        PromptError: Values out of range, or findings that are no such mapping; when traced, a sample without any.

    Source: arXiv 2509.23379 and its official code (α 0.5, β 0.5, γ 10, bias "logit"). The code also forbids repeated
    runs of three tokens, which this does not, and takes labels of a DenseNet or of MedSigLIP, which you run.
    """

    findings: Any
    alpha: float = 0.5
    beta: float = 0.5
    gamma: float = 10.0

    def __post_init__(self) -> None:
        for name in ("alpha", "beta"):
            if not (real(getattr(self, name)) and 0 <= getattr(self, name) <= 1):
                raise PromptError(f"{name} is in [0, 1]; got {getattr(self, name)!r:.100}.")
        if not (real(self.gamma) and self.gamma > 0):
            raise PromptError(f"gamma is a finite number above 0; got {self.gamma!r:.100}.")
        object.__setattr__(self, "findings", _checked(self.findings))
        plain_numbers(self, alpha=float, beta=float, gamma=float)

    def of(self, name: str) -> tuple[Finding, ...]:
        """The findings of the sample of this id.

        Raises:
            PromptError: There are none.
        """
        for one, found in self.findings:
            if one == name:
                return found
        raise PromptError(
            f"ClinicalContrast has no findings of sample {name!r}. Give each sample's: findings={{sample.id: "
            "{label: probability}}."
        )

    def guide(self, name: str) -> str:
        """The text that is written after the prompt of the sample of this id, in the source's words."""
        likely = [label for label, p in self.of(name) if p >= GUIDE_THRESHOLD]
        views, labels = ([one for one in likely if (one in VIEWS) is seen] for seen in (True, False))
        if not likely:
            return "No clinical guidance based on current findings."
        said = f"Attention to the following clinical instructions: {'; '.join(labels)}." if labels else ""
        return f"{said} View type: {', '.join(views)}." if views else f"{said} "

    def biases(self, name: str, tokenizer: Any) -> dict[int, float]:
        """Token → bias, of the sample of this id."""
        weights: dict[int, float] = {}
        for label, p in self.of(name):
            for text in {label, label.lower()}:
                for token, weight in _word_starts(tokenizer, text.replace("_", " "), p).items():
                    if token not in weights or weight > weights[token]:
                        weights[token] = weight
        return {token: self._bias(weight) for token, weight in sorted(weights.items())}

    def _bias(self, weight: float) -> float:
        p = min(max(weight, LEAST), 1 - LEAST)
        bias = math.log(p / (1 - p))
        if self.gamma <= 1:
            return bias
        return max(-math.log(self.gamma), min(math.log(self.gamma), bias))

    def to_dict(self) -> dict[str, Any]:
        """The guidance as JSON values."""
        findings = {name: dict(found) for name, found in self.findings}
        own = {"findings": findings, "alpha": self.alpha, "beta": self.beta, "gamma": self.gamma}
        return {"clinical": own}


Guidance: TypeAlias = Contrast | ClinicalContrast


def _word_starts(tokenizer: Any, text: str, p: float) -> dict[int, float]:
    """The tokens of a text that begin a word, each with p·0.95^i of its place i, the first of those that repeat."""
    tokens = tokenizer.tokenize(text)
    found: dict[int, float] = {}
    starts = True
    for i, (token, number) in enumerate(zip(tokens, tokenizer.convert_tokens_to_ids(tokens), strict=True)):
        if starts or token.startswith(("Ġ", "▁")):
            found.setdefault(int(number), p * DECAY**i)
        starts = token in ("Ġ", "▁")
    return found


def _checked(findings: Any) -> tuple[tuple[str, tuple[Finding, ...]], ...]:
    if isinstance(findings, tuple):  # as they are kept, for a copy
        with suppress(TypeError, ValueError):
            findings = {name: dict(found) for name, found in findings}
    if not isinstance(findings, Mapping) or not findings:
        raise PromptError(
            f"findings are a mapping from a sample's id to {{label: probability}}; got {findings!r:.200}."
        )
    for name, own in findings.items():
        fits = isinstance(name, str) and isinstance(own, Mapping)
        if not fits or not all(isinstance(a, str) and a and real(p) and 0 <= p <= 1 for a, p in own.items()):
            raise PromptError(
                f"findings of a sample are label → probability in [0, 1]; got {own!r:.200} of {name!r:.100}."
            )
    return tuple(
        (name, tuple((label, float(p)) for label, p in own.items())) for name, own in sorted(findings.items())
    )


def stream_seed(seed: int | None, name: str) -> int:
    """The seed of a sample's own random numbers."""
    digest = hashlib.sha256(f"{seed}:{name}".encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


def real(value: Any) -> bool:
    """Whether a value is a finite number."""
    number = isinstance(value, Real) and not isinstance(value, bool)
    return number and abs(value) <= sys.float_info.max  # pyright: ignore[reportOperatorIssue]


def plain_numbers(owner: Any, **kinds: type) -> None:
    """Stores numbers as Python's own, which JSON can hold; numpy's are taken too."""
    for name, kind in kinds.items():
        value = getattr(owner, name)
        object.__setattr__(owner, name, None if value is None else kind(value))
