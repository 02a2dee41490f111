"""What variants of a prompt change: image tokens replaced in the residual stream, and keys hidden from rows."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from interp.inputs.tokens import TokenMap
from interp.tracing.attention.shared_keys import HiddenCells

__all__ = ["Replaced", "hidden_keys", "of_image"]


@dataclass(frozen=True, eq=False)
class Replaced:
    """Image tokens that hold other values in a residual stream, in each variant others.

    Attributes:
        chosen: (variant, token), which of the sample's image tokens.
        fill: (1 or variant, token or 1, hidden), their values: the same in each variant, or each its own.
    """

    chosen: Bool[Tensor, "variant token"]
    fill: Float[Tensor, "_ _ hidden"]

    def with_none(self) -> Replaced:
        """The same with one more variant, which replaces nothing."""
        return Replaced(torch.cat([self.chosen, self.chosen.new_zeros(1, self.chosen.shape[1])]), self.fill)

    def in_stream(
        self,
        stream: Float[Tensor, "_ row hidden"],
        columns: Int[Tensor, " token"],
        upon: Float[Tensor, "_ row hidden"] | None = None,
    ) -> Float[Tensor, "variant row hidden"]:
        """The stream of each variant.

        Args:
            stream: of each variant, or of all.
            columns: its rows that are image tokens.
            upon: what the values are added to; by default they stand alone.
        """
        device, columns = stream.device, columns.to(stream.device)
        chosen, fill = self.chosen.to(device), self.fill.to(device, stream.dtype)
        rows = stream.expand(len(chosen), -1, -1).clone()
        given = fill if upon is None else upon.to(device)[:, columns] + fill
        rows[:, columns] = torch.where(chosen[..., None], given, rows[:, columns])
        return rows


def of_image(tokens: TokenMap) -> Int[Tensor, " token"]:
    """The positions of a sample's image tokens."""
    return torch.from_numpy(tokens.image.copy())


def hidden_keys(
    tokens: TokenMap, keys: Bool[Tensor, "variant key"], rows: int, stop: int, layers: Collection[int]
) -> dict[int, HiddenCells]:
    """Keys hidden from every row from `rows` on, in some layers, for variants that run from row `stop` on."""
    late = torch.arange(stop, tokens.length, device=keys.device) >= rows
    cells = HiddenCells(late.expand(len(keys), -1), keys)
    return dict.fromkeys(layers, cells)
