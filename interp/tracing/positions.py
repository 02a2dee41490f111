"""The positions a model gives its tokens, computed on whole prompts."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor

__all__ = ["position_ids", "sliced"]


def position_ids(hf: Any, inputs: Mapping[str, Tensor], first: int = 0) -> Tensor:
    """(sample, position); or (axis, sample, position) for models that turn image tokens along several axes.

    Padding does not count. They are passed explicitly with every forward pass: what transformers would work
    out alone depends on what the model ran before.

    Args:
        hf: the transformers model.
        inputs: a whole batch, with `attention_mask`.
        first: the position of a prompt's first token.
    """
    index = getattr(getattr(hf, "model", hf), "get_rope_index", None)
    if index is not None and "image_grid_thw" in inputs:
        known = inspect.signature(index).parameters
        return index(**{name: value for name, value in inputs.items() if name in known})[0]
    return (inputs["attention_mask"].cumsum(-1) - 1).clamp(min=0) + first


def sliced(
    values: Int[Tensor, "*axis sample position"], starts: Sequence[int], stops: Sequence[int], fill: int = 0
) -> Int[Tensor, "*axis sample longest"]:
    """Columns starts[i] to stops[i] of each sample i, padded on the left with `fill` to the longest."""
    width = max(stop - start for start, stop in zip(starts, stops, strict=True))
    lines = [
        torch.nn.functional.pad(values[..., i, start:stop], (width - (stop - start), 0), value=fill)
        for i, (start, stop) in enumerate(zip(starts, stops, strict=True))
    ]
    return torch.stack(lines, dim=-2)
