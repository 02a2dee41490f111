"""ScalingVis and AdaptVis: sharpen or smooth the attention to the image by scaling its scores."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from jaxtyping import Float
from scipy.special import softmax

from interp.errors import MethodError
from interp.indicators.indicator_checks import check_call, check_number, check_whole
from interp.inputs.prompt import Prompt
from interp.methods.method import (
    BATCH_SIZE,
    Answer,
    EditedGeneration,
    Samples,
    answers,
    each_in_batches,
    n_tokens,
    shared_prefix,
)
from interp.tracing import Mllm, ScaleScores, Site, image_mask
from interp.tracing.passes.micro_batches import MicroBatch
from interp.tracing.passes.prefix_pass import meant_prompt

__all__ = ["AdaptVis", "ScalingVis"]


@dataclass(frozen=True)
class ScalingVis(EditedGeneration):
    """Image scores times a fixed weight.

    Before the softmax, in the prompt's last row, all layers and heads, the scaled score e of each image token
    becomes w·e. A weight above 1 makes attention to the image sharper, below 1 smoother. Rows of generated tokens are
    not edited, as in the source's code.

    Args:
        weight: w ≥ 0; 1 changes nothing. No single value is published: the code offers 0, 0.5, 0.8, 1.2, 1.5
            and 2, so choose it on a validation split.

    Raises:
        MethodError: A weight below 0.

    Source: arXiv 2503.01773 and its official code.
    """

    weight: float
    name: ClassVar[str] = "ScalingVis"

    def __post_init__(self) -> None:
        check_number("weight", self.weight, low=0.0, error=MethodError)

    def edits(self, mllm: Mllm) -> list[ScaleScores]:
        """The scaling, for `mllm.trace`; none when the weight is 1."""
        return [ScaleScores(Site(queries="last", keys="image"), self.weight)] if self.weight != 1 else []

    @property
    def details(self) -> Mapping[str, Any]:
        """The weight w, as "weight"."""
        return {"weight": float(self.weight)}

    def to_dict(self) -> dict[str, Any]:
        """The method as JSON values."""
        return {"method": self.name, "weight": self.weight}


@dataclass(frozen=True)
class AdaptVis:
    """Image scores times a weight that depends on the model's confidence in its first token.

    A first, unedited pass gives the confidence c: the probability of the most probable first token. Then the model
    answers under `ScalingVis`, with the weight w₁ (smoother) where c < threshold and w₂ (sharper) elsewhere.

    Args:
        unsure_weight: w₁ ≥ 0. The source uses 0.5, for some data sets 0.8.
        sure_weight: w₂ ≥ 0. The source uses 1.5, for some data sets 1.2 or 2.
        threshold: In [0, 1]. The source uses 0.4, for some data sets 0.3.
        decimals: Round c to this many decimals before the comparison. The source's code rounds to 2, so with its
            threshold 0.4 a c of 0.396 is not below it. None compares c itself, as in the source's text.

    Raises:
        MethodError: A parameter out of its range.

    Source: arXiv 2503.01773 and its official code. The source does not say which weights and threshold to use on other
    data. For the yes/no questions of VSR its code compares the largest logit instead of the probability; this class
    does not. Its code does not edit layers from 32 on; here every layer of a deeper model is edited.
    """

    unsure_weight: float = 0.5
    sure_weight: float = 1.5
    threshold: float = 0.4
    decimals: int | None = None
    name: ClassVar[str] = "AdaptVis"

    def __post_init__(self) -> None:
        check_number("unsure_weight", self.unsure_weight, low=0.0, error=MethodError)
        check_number("sure_weight", self.sure_weight, low=0.0, error=MethodError)
        check_number("threshold", self.threshold, low=0.0, high=1.0, error=MethodError)
        if self.decimals is not None:
            check_whole("decimals, where it is not None,", self.decimals, 0, MethodError)

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
        """The answers to these samples, in micro-batches: `details` hold "confidence", "weight", "n_tokens".

        Cost: one pass over the image, one over the text after it, and a generation that continues from the image.

        Args:
            mllm: The model.
            samples: The samples, or a batch or prefix of them.
            prompt: The prompt around the question; by default `PAPER_PROMPT`, or that of the batch or prefix.
            max_new_tokens: The most tokens to generate, one or more.
            batch_size: Samples in one pass at most.
            progress: Whether to show a bar where there are several micro-batches.

        Raises:
            MethodError: `max_new_tokens` below 1.
            InterpError: Samples or prompts that cannot be encoded.
        """
        check_call(mllm, prompt)
        generate = n_tokens(max_new_tokens)
        prompt = meant_prompt(samples, prompt)

        def together(own: Mllm, some: MicroBatch) -> list[Answer]:
            """Answers a micro-batch, scaled by the confidence of its first pass."""
            run, cost = shared_prefix(own, some.samples, prompt)
            first = own.trace(run, prompt=prompt)
            confidences = confidence(first.logits.values)
            weights = [self.weight(one) for one in confidences]
            edits = scalings(weights, [tokens.n for tokens in first.tokens])
            trace = own.trace(run, prompt=prompt, edits=edits, generate=generate)
            said = [
                {"confidence": float(c), "weight": w, "n_tokens": tokens.n}
                for c, w, tokens in zip(confidences, weights, first.tokens, strict=True)
            ]
            return answers(trace, cost + first.cost + trace.cost, said)

        return each_in_batches(mllm, samples, together, batch_size=batch_size, progress=progress)

    def repeat(self, mllm: Mllm, answers: Sequence[Answer]) -> list[ScaleScores]:
        """The edits that gave these answers, for another trace of the same batch."""
        return scalings(
            [one.details["weight"] for one in answers], [one.details["n_tokens"] for one in answers]
        )

    def weight(self, confidence: float) -> float:
        """The weight for a first token with that probability."""
        seen = float(confidence) if self.decimals is None else round(float(confidence), self.decimals)
        return float(self.unsure_weight if seen < self.threshold else self.sure_weight)

    def to_dict(self) -> dict[str, Any]:
        """The method as JSON values."""
        return {
            "method": self.name,
            "unsure_weight": self.unsure_weight,
            "sure_weight": self.sure_weight,
            "threshold": self.threshold,
            "decimals": self.decimals,
        }


def confidence(logits: Float[np.ndarray, "sample token_id"]) -> Float[np.ndarray, " sample"]:
    """The probability of each sample's most probable token, in (0, 1]."""
    return softmax(logits.astype(np.float64), axis=-1).max(axis=-1)


def scalings(weights: Sequence[float], n_tokens: Sequence[int]) -> list[ScaleScores]:
    """One edit per weight other than 1, on the image tokens of the samples that have this weight.

    Each sample's keys are in at most one of the edits, so one batch can have several weights.
    """
    edits = []
    for weight in sorted(set(weights) - {1.0}):
        masks = [np.full(n, own == weight) for own, n in zip(weights, n_tokens, strict=True)]
        edits.append(ScaleScores(Site(queries="last", keys=image_mask(masks)), weight))
    return edits
