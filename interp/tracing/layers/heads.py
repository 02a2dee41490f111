"""Some heads of a layer, arranged so that heads which share a key-value head share one matrix product."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import torch
from jaxtyping import Float, Int
from torch import Tensor

__all__ = ["Heads"]


@dataclass(frozen=True, eq=False)
class Heads:
    """Some heads of a layer, arranged so that heads which share a key-value head share one matrix product.

    Attributes:
        chosen: the chosen heads, in the order given.
        counts: (query heads, key-value heads) of the layer.
        index: the chosen heads as a tensor.
        shape: (key-value heads, heads of each): how the arranged heads unflatten. Short groups repeat a head.
        key_value: the key-value heads of the arrangement, or None when they are all of them.
        arranged: the arranged heads among the layer's, flat; None when they are all of them, in order.
        order: the arranged heads among the chosen ones, flat; None when it is the same order.
        back: each chosen head's place in the flat arrangement; None when it is the same order.
    """

    chosen: tuple[int, ...]
    counts: tuple[int, int]
    index: Int[Tensor, " head"]
    shape: tuple[int, int]
    key_value: Int[Tensor, " key_value_head"] | None
    arranged: Int[Tensor, " arranged"] | None
    order: Int[Tensor, " arranged"] | None
    back: Int[Tensor, " head"] | None

    @classmethod
    def of(cls, heads: Sequence[int], n_heads: int, n_key_value_heads: int, device: torch.device) -> Heads:
        """The arrangement of `heads` in a layer of `n_heads` query heads; repeated heads are not allowed.

        It is made once for a device: its tensors come from the CPU, for which a GPU would have to wait in every layer.
        """
        with torch.inference_mode(False):  # autograd may keep it, whichever call comes first
            return _arranged(tuple(heads), n_heads, n_key_value_heads, device)

    @classmethod
    def _made(
        cls, heads: tuple[int, ...], n_heads: int, n_key_value_heads: int, device: torch.device
    ) -> Heads:
        share = n_heads // n_key_value_heads
        members: dict[int, list[int]] = {}
        for head in sorted(heads):
            members.setdefault(head // share, []).append(head)
        width = max(len(group) for group in members.values())
        flat = [h for group in members.values() for h in group + [group[-1]] * (width - len(group))]

        def unless(same: bool, values: Sequence[int]) -> Tensor | None:
            return None if same else torch.tensor(values, device=device)

        return cls(
            chosen=heads,
            counts=(n_heads, n_key_value_heads),
            index=torch.tensor(list(heads), device=device),
            shape=(len(members), width),
            key_value=unless(len(members) == n_key_value_heads, list(members)),
            arranged=unless(flat == list(range(n_heads)), flat),
            order=unless(flat == list(heads), [list(heads).index(head) for head in flat]),
            back=unless(flat == list(heads), [flat.index(head) for head in heads]),
        )

    def among(self, n_key_value_heads: int) -> Heads:
        """The same heads in a layer with so many key-value heads, of which layers of one model may differ (Gemma 4)."""
        if n_key_value_heads == self.counts[1]:
            return self
        return Heads.of(self.chosen, self.counts[0], n_key_value_heads, self.index.device)

    def queries(self, queries: Float[Tensor, "sample head query dim"]) -> Float[Tensor, "_ _ _ _ _"]:
        """The arranged heads' queries, (sample, key_value_head, group, query, dim), of all the layer's."""
        chosen = queries if self.arranged is None else queries[:, self.arranged]
        return chosen.unflatten(1, self.shape)

    def keys(self, keys: Float[Tensor, "sample all key dim"]) -> Float[Tensor, "sample some key dim"]:
        """The keys or values the arrangement needs; no copy when it needs every key-value head."""
        return keys if self.key_value is None else keys[:, self.key_value]

    def arrange(self, values: Float[Tensor, "sample head row _"]) -> Float[Tensor, "_ _ _ _ _"]:
        """(sample, key_value_head, group, row, …) from values of the chosen heads."""
        chosen = values if self.order is None else values[:, self.order]
        return chosen.unflatten(1, self.shape)

    def flat(self, arranged: Float[Tensor, "_ _ _ _ _"]) -> Float[Tensor, "sample head row _"]:
        """(sample, head, row, …) in the order the heads were given, from the arrangement."""
        values = arranged.flatten(1, 2)
        return values if self.back is None else values[:, self.back]


@lru_cache(maxsize=1024)
def _arranged(heads: tuple[int, ...], n_heads: int, n_key_value_heads: int, device: torch.device) -> Heads:
    return Heads._made(heads, n_heads, n_key_value_heads, device)
