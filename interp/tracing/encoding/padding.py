"""Padding: where each sample's own positions lie in the padded tensors of a pass, and how tensors are padded."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

__all__ = ["Layout", "alike", "joined_images", "left_padded", "sliced"]


@dataclass(frozen=True, eq=False)
class Layout:
    """Unpadded positions → padded rows and columns of the prompt's forward pass.

    Attributes:
        columns: for each sample, the key column of each of its positions.
        n_columns: keys of the pass, padding included.
        offset: columns before the first query row; 0 unless a prefix was run earlier.
    """

    columns: tuple[Int[np.ndarray, " _"], ...]
    n_columns: int
    offset: int = 0

    @classmethod
    def whole(cls, lengths: Sequence[int]) -> Layout:
        """Whole prompts in a left-padded batch."""
        longest = max(lengths)
        return cls(tuple(np.arange(longest - n, longest) for n in lengths), longest)

    @classmethod
    def suffix(cls, heads: Sequence[int], lengths: Sequence[int]) -> Layout:
        """Prompts whose first `heads` positions were run before; heads and rests are each left-padded."""
        longest_head = max(heads)
        rests = [n - head for n, head in zip(lengths, heads, strict=True)]
        total = longest_head + max(rests)
        columns = tuple(
            np.concatenate([np.arange(longest_head - head, longest_head), np.arange(total - rest, total)])
            for head, rest in zip(heads, rests, strict=True)
        )
        return cls(columns, total, longest_head)

    @property
    def n_samples(self) -> int:
        """Samples of the batch."""
        return len(self.columns)

    @property
    def n_queries(self) -> int:
        """Query rows of the pass, padding included."""
        return self.n_columns - self.offset

    @property
    def n_keys(self) -> int:
        """Keys of a layer, padding included."""
        return self.n_columns

    def keys(self, sample: int, positions: Int[np.ndarray, " key"]) -> Int[np.ndarray, " key"]:
        """The key columns of a sample's positions."""
        return self.columns[sample][positions]

    def rows(self, sample: int, positions: Int[np.ndarray, " row"]) -> Int[np.ndarray, " row"]:
        """The query rows of a sample's positions; negative for positions that were run before."""
        return self.columns[sample][positions] - self.offset


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
