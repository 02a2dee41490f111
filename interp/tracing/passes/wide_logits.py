"""Logits in float32 of a model in half precision: their differences are not lost to rounding."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

__all__ = ["is_half", "wide_logits"]

CHUNK = 2**24
"""Weights of the output layer that are held in float32 at once."""


def is_half(dtype: torch.dtype) -> bool:
    """Whether numbers of this dtype have fewer digits than float32's."""
    return dtype.is_floating_point and dtype.itemsize < 4


@contextmanager
def wide_logits(hf: Any) -> Iterator[None]:
    """For the block, the output layer's products are summed and kept in float32, not rounded to the model's dtype.

    A logit of 20 in bfloat16 is a multiple of 1/8, so differences of log-probabilities would be. What enters the output
    layer is the model's own. Models in float32, and output layers that are more than a matrix, are left as they are.
    """
    head = hf.get_output_embeddings()
    if type(head) is not nn.Linear or not is_half(head.weight.dtype):
        yield
        return
    handle = head.register_forward_hook(_widened)
    try:
        yield
    finally:
        handle.remove()


def _widened(head: nn.Module, given: tuple[Any, ...], output: Tensor) -> Tensor:
    hidden, weight = given[0], head.weight
    if not isinstance(weight, Tensor) or hidden.dtype != weight.dtype or hidden.device != weight.device:
        return output  # under autocast, or with weights that are elsewhere
    rows, step = hidden.float(), max(1, CHUNK // weight.shape[1])
    logits = torch.cat([rows @ part.float().T for part in weight.split(step)], dim=-1)
    return logits if not isinstance(head.bias, Tensor) else logits + head.bias.float()
