"""An edit in one layer and one kind of pass: which cells of attention it changes, and to what."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from interp.tracing.edits import AttentionEdit, Knockout

__all__ = ["At", "Cells", "Change", "Live", "Patch"]


@dataclass(frozen=True, eq=False)
class At:
    """Which rows, heads and keys some values of attention are of, and in which step (0 is the prompt)."""

    rows: Int[Tensor, "sample row"]
    heads: Int[Tensor, " chosen_head"]
    n_keys: int
    step: int = 0


class Live:
    """Which samples' rows an edit of some generated tokens applies to: those whose latest token is of its stage.

    Attributes:
        stage: "reasoning" or "answer".
        queries: (sample, 1), changed in place as tokens come.
        awake: whether any sample's row is among them.
    """

    def __init__(self, stage: str, queries: Bool[Tensor, "sample query"]) -> None:
        self.stage, self.queries, self.awake = stage, queries.clone(), False
        self._all = queries

    def follow(self, reasoning: Sequence[bool]) -> None:
        """Takes in whether each sample's latest token is one of its thought."""
        chosen = [inside == (self.stage == "reasoning") for inside in reasoning]
        self.awake = any(chosen)
        self.queries.copy_(self._all & torch.tensor(chosen, device=self._all.device)[:, None])


@dataclass(frozen=True, eq=False)
class Cells:
    """Rows and columns of a site in one layer and pass, padded. None for `heads` means every head.

    Columns beyond `keys`, those of generated tokens, are not among them. `live` changes `queries` from token to token
    where only some generated tokens have such rows.
    """

    heads: Bool[Tensor, " head"] | None
    queries: Bool[Tensor, "sample query"]
    keys: Bool[Tensor, "sample key"]
    live: Live | None = None

    def at(self, at: At) -> Bool[Tensor, "sample _ row all_keys"]:
        """The cells in a block of rows and heads; the head axis is 1 when it does not matter."""
        cells = self.queries.gather(1, at.rows)[:, None, :, None] & self.columns(at.n_keys)
        return cells if self.heads is None else cells & self.heads[at.heads][None, :, None, None]

    def everywhere(self, n_keys: int) -> Bool[Tensor, "sample 1 query all_keys"]:
        """The cells of every row of the pass, whatever the head."""
        return self.queries[:, None, :, None] & self.columns(n_keys)

    def columns(self, n_keys: int) -> Bool[Tensor, "sample 1 1 all_keys"]:
        """The columns, of a pass with `n_keys` keys."""
        missing = n_keys - self.keys.shape[1]
        return torch.nn.functional.pad(self.keys, (0, missing))[:, None, None, :]


@dataclass(frozen=True, eq=False)
class Patch:
    """Given values of a layer, and where each of its rows, heads and columns is among them.

    Attributes:
        values: padded to the most queries and keys of any sample.
        heads: each head's place, 0 for those that have none.
        queries: each padded row's place.
        keys: each padded column's place.
        n_steps: how many steps each sample has values for.
    """

    values: Float[Tensor, "step sample place_head place_query place_key"]
    heads: Int[Tensor, " head"]
    queries: Int[Tensor, "sample query"]
    keys: Int[Tensor, "sample key"]
    n_steps: Int[Tensor, " sample"]

    def at(self, at: At) -> Float[Tensor, "sample chosen_head row all_keys"]:
        """The values of a block; of no meaning outside the patch's cells."""
        keys = torch.nn.functional.pad(self.keys, (0, at.n_keys - self.keys.shape[1]))
        sample = torch.arange(len(keys), device=keys.device)[:, None, None, None]
        heads = self.heads[at.heads][None, :, None, None]
        rows = self.queries.gather(1, at.rows)[:, None, :, None]
        step = min(at.step, len(self.values) - 1)
        return self.values[step][sample, heads, rows, keys[:, None, None, :]]


@dataclass(frozen=True, eq=False)
class Change:
    """An edit of one layer in one kind of pass."""

    edit: AttentionEdit
    cells: Cells
    patch: Patch | None = None

    @property
    def awake(self) -> bool:
        """Whether it applies to any row of the pass that is being run."""
        return self.cells.live is None or self.cells.live.awake

    @property
    def hides(self) -> bool:
        """Whether it only takes keys out of what rows see."""
        return isinstance(self.edit, Knockout) and self.edit.stage == "scores"

    def __call__(
        self, values: Float[Tensor, "sample head row key"], at: At
    ) -> Float[Tensor, "sample head row key"]:
        """The values of its stage, changed in its cells."""
        cells = self.cells.at(at)
        if self.patch is None:
            return torch.where(cells, self.edit.on(values, cells), values)
        given = self.patch.n_steps > at.step
        return torch.where(cells & given[:, None, None, None], self.patch.at(at), values)
