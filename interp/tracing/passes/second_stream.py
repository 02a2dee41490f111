"""The inputs of the second stream that guides a trace's logits, and how the two are combined."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from interp.errors import ModelError, PromptError
from interp.tracing.encoding.batch import PER_TOKEN, Batch, Encoded, Images
from interp.tracing.passes.decoding import ClinicalContrast, Guidance, NoisedImage
from interp.tracing.passes.run import imageless_inputs
from interp.tracing.site import GENERATED
from interp.tracing.wrapped_model import WrappedModel

__all__ = ["combination", "second_inputs"]


def second_inputs(mllm: WrappedModel, batch: Batch, contrast: Guidance) -> dict[str, Tensor]:
    """The arguments of the second stream's first pass.

    Raises:
        PromptError: Findings that lack a sample, or that cannot stand behind a prompt.
        ModelError: An image without pixel values to put noise on, or more than the prompt alone on a server.
    """
    if isinstance(contrast, ClinicalContrast):
        return _whole(mllm, _with_findings(mllm, batch, contrast))
    if isinstance(contrast.against, NoisedImage):
        return _whole(mllm, _noised(mllm, batch, contrast.against))
    return imageless_inputs(mllm.hf, batch, getattr(mllm.adapter, "first_position", 0))


def combination(mllm: WrappedModel, batch: Batch, contrast: Guidance) -> Callable[[Tensor, Tensor], Tensor]:
    """How the logits of both streams become guided ones, for this batch."""
    if not isinstance(contrast, ClinicalContrast):
        return contrast
    tokenizer = mllm.processor.tokenizer
    biases = [contrast.biases(sample.id, tokenizer) for sample in batch.samples]
    alpha, beta = contrast.alpha, contrast.beta

    def combine(own: Tensor, clinical: Tensor) -> Tensor:
        """(1 − α)·s + α·c + β·b, of log-probabilities."""
        first, second = (one.log_softmax(dim=-1) for one in (own, clinical))
        masked = (first == -torch.inf) | (second == -torch.inf)
        guided = ((1 - alpha) * first + alpha * second).masked_fill(masked, -torch.inf)
        bias = torch.zeros_like(guided)
        for i, line in enumerate(biases):
            for token, value in line.items():
                bias[i, token] = value
        return guided + beta * bias

    return combine


def _whole(mllm: WrappedModel, batch: Batch) -> dict[str, Tensor]:
    if mllm.server is not None:
        raise ModelError(
            "on a server, a contrast is against the prompt without its image; noised images and findings need the "
            "model on this machine. Load it without remote=True."
        )
    return batch.inputs | {"position_ids": batch.positions}


def _noised(mllm: WrappedModel, batch: Batch, noise: NoisedImage) -> Batch:
    """The batch with noise on its pixel values."""
    pairs = zip(batch.samples, batch.singles, strict=True)
    singles = [_with_noise(single, noise, sample.id) for sample, single in pairs]
    return mllm.encoder.joined(batch.samples, batch.prompt, singles)


def _with_noise(single: Encoded, noise: NoisedImage, name: str) -> Encoded:
    pixels = {
        key: value
        for key, value in single.inputs.items()
        if key.startswith("pixel_values") and value.is_floating_point()
    }
    if not pixels:
        raise ModelError(
            f"sample {name} has no pixel values to put noise on. Use Contrast() against the prompt without its image."
        )
    inputs = {**single.inputs, **{key: noise(value, f"{name} {key}") for key, value in pixels.items()}}
    images = Images({key: value for key, value in inputs.items() if key not in PER_TOKEN})
    return replace(single, inputs=inputs, images=images)


def _with_findings(mllm: WrappedModel, batch: Batch, contrast: ClinicalContrast) -> Batch:
    """The batch with each sample's findings behind its prompt."""
    singles: list[Any] = []
    for sample, tokens in zip(batch.samples, batch.tokens, strict=True):
        if set(GENERATED) & set(tokens.spans):
            raise PromptError(
                "findings are added after the prompt, where this batch has a thought. Use a ClinicalContrast on "
                "samples without a given thought."
            )
        guide = contrast.guide(sample.id).replace("{", "{{").replace("}", "}}")
        prompt = replace(batch.prompt, template=f"{batch.prompt.template} {guide}")
        singles += mllm.encoder([sample], prompt).singles
    return mllm.encoder.joined(batch.samples, batch.prompt, singles)
