"""Whether gradients that reach a row of attention are eager's."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor

from interp.conformance.result import Measured
from interp.conformance.subject import Subject
from interp.tracing import Mllm

__all__ = ["row_gradients"]


def row_gradients(subject: Subject) -> Measured:
    """The gradient of the top log-probability with respect to each layer's last row, through the door."""
    worst = 0.0
    with _differentiable(subject.mllm.hf):
        for i in range(len(subject.samples)):
            found = _through_the_door(subject.mllm, subject.plain(i))
            expected = _in_eager(subject, subject.plain(i))
            for one, other in zip(found, expected, strict=True):
                scale = float(other.abs().max())
                worst = max(worst, float((one - other).abs().max()) / scale if scale else np.nan)
    detail = f"every layer, last row, {len(subject.samples)} prompts"
    what = "largest difference over a layer's largest gradient"
    return Measured(worst, what, 5 * subject.tolerance, detail)


def _through_the_door(mllm: Mllm, inputs: Mapping[str, Tensor]) -> list[Tensor]:
    """(head, key) of each layer."""
    with mllm.tap(queries="last"), mllm.nn.trace(**inputs, use_cache=False):
        kept = []
        for layer in mllm.layers:
            rows = layer.self_attn.pattern.output
            layer.self_attn.pattern.output = rows * 1  # a copy is spliced in, so the logits depend on it
            kept.append(rows)
        top = mllm.nn.output.logits[0, -1].float().log_softmax(-1).max()
        gradients: Any = list(torch.autograd.grad(top, kept))
        found = gradients.save()
    return [one[0, :, 0].float() for one in found]


def _in_eager(subject: Subject, inputs: Mapping[str, Tensor]) -> list[Tensor]:
    weights: list[Tensor] = []
    with subject.eager.hooked(lambda _, one: weights.append(one)):
        logits = subject.eager.hf(**inputs, use_cache=False).logits
    top = logits[0, -1].float().log_softmax(-1).max()
    return [one[0, :, -1].float() for one in torch.autograd.grad(top, weights)]


@contextmanager
def _differentiable(hf: Any) -> Iterator[None]:
    """Gradients reach every row for the block, also in a model whose weights are frozen."""
    weight = hf.get_input_embeddings().weight
    before = weight.requires_grad
    weight.requires_grad_(True)
    try:
        yield
    finally:
        weight.requires_grad_(before)
