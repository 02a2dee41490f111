"""Where each sample's own positions lie in the padded tensors of one forward pass."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Int

__all__ = ["Layout"]


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
