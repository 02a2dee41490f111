"""Tensors of several samples as one: padded on the left along positions, at the end along everything else."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Int
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

__all__ = ["alike", "joined_images", "left_padded", "sliced"]


def left_padded(lines: Sequence[Tensor], fill: int) -> Tensor:
    """(line, longest, …) from tensors (n, …), padded on the left."""
    return pad_sequence(list(lines), batch_first=True, padding_value=fill, padding_side="left")


def joined_images(values: Sequence[Tensor]) -> Tensor:
    """The values along their first axis; shorter other axes are filled up with zeros at their end.

    That is how processors join images of different sizes or numbers of tiles; the models are told the true
    sizes.
    """
    return torch.cat(alike(values))


def alike(values: Sequence[Tensor]) -> list[Tensor]:
    """The values, their axes but the first filled up with zeros to the widest."""
    widest = [max(value.shape[d] for value in values) for d in range(1, values[0].ndim)]
    pad = torch.nn.functional.pad
    filled = []
    for value in values:
        missing = [w - n for w, n in zip(widest, value.shape[1:], strict=True)]
        filled.append(pad(value, [n for m in reversed(missing) for n in (0, m)]) if any(missing) else value)
    return filled


def sliced(
    values: Int[Tensor, "*axis sample position"], starts: Sequence[int], stops: Sequence[int], fill: int = 0
) -> Int[Tensor, "*axis sample longest"]:
    """Columns starts[i] to stops[i] of each sample i, padded on the left with `fill` to the longest."""
    samples = values.movedim(0, -1) if values.ndim == 3 else values
    lines = [one[start:stop] for one, start, stop in zip(samples, starts, stops, strict=True)]
    padded = left_padded(lines, fill)
    return padded.movedim(-1, 0) if values.ndim == 3 else padded
