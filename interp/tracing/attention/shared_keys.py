"""Attention of many variants of one prompt in one batch: they share the prompt's keys, and each hides some cells."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from interp.tracing.attention.rows import AttentionFunction, Call, attend, visible

__all__ = ["HiddenCells", "SharedKeys"]

CHUNK_BYTES = 16 * 2**20
"""About the largest number of bytes of scores in memory at once, where the scores are computed explicitly."""
TOGETHER = 128
"""The largest number of rows that go through fused attention as one sequence. With fewer rows, copying the shared keys
next to the rows' own keys would take too much of the time."""

Cells = Bool[Tensor, "variant head_or_one row key"]


@dataclass(frozen=True, eq=False)
class HiddenCells:
    """The cells that the variants of a pass hide in one layer: each variant hides some keys from some queries in some
    heads.

    Attributes:
        queries: (variant, row), True for the rows of the pass from which keys are hidden.
        keys: (variant, key), True for the hidden keys, over all keys of the prompt. Each row must still see a key,
            unless `zero` is True.
        heads: (variant, head), True for the heads in which keys are hidden; None for every head.
        zero: True: weights become 0 after the softmax, so the row loses their mass. False: scores become −∞ before the
            softmax.
    """

    queries: Bool[Tensor, "variant row"]
    keys: Bool[Tensor, "variant key"]
    heads: Bool[Tensor, "variant head"] | None = None
    zero: bool = False

    def with_none(self) -> HiddenCells:
        """The same with one more variant, which hides nothing, at the end."""
        queries, keys = (
            torch.cat([one, one.new_zeros(1, one.shape[1])]) for one in (self.queries, self.keys)
        )
        heads = None if self.heads is None else torch.cat([self.heads, self.heads[:1]])
        return HiddenCells(queries, keys, heads, self.zero)

    def on(self, device: torch.device) -> HiddenCells:
        """The same, for a layer that runs on that device."""
        heads = None if self.heads is None else self.heads.to(device)
        return HiddenCells(self.queries.to(device), self.keys.to(device), heads, self.zero)

    def cells(self, part: slice) -> Cells:
        """The hidden cells of some variants."""
        cells = (self.queries[part, :, None] & self.keys[part, None, :])[:, None]
        return cells if self.heads is None else cells & self.heads[part, :, None, None]


@dataclass(frozen=True, eq=False)
class SharedKeys:
    """The attention of one layer in a pass whose rows are variants of the same tokens.

    Attributes:
        prefix: keys and values before those of the pass, (1, key_value_head, key, dim). All variants share them, and
            they are not copied for each. None for a pass over whole prompts.
        hidden: the cells that the variants hide; None if they hide none.
    """

    prefix: tuple[Tensor, Tensor] | None
    hidden: HiddenCells | None = None

    def __call__(
        self, original: AttentionFunction, call: Call, kwargs: dict[str, Any]
    ) -> tuple[Tensor, Tensor | None]:
        """The attention's output."""
        if self.prefix is not None:
            return self._shared(call), None
        if self.hidden is None:
            return original(call.module, call.queries, call.keys[0], call.values[0], call.mask, **kwargs)
        return self.of_whole_prompts(call, self.hidden), None

    def of_whole_prompts(self, call: Call, hidden: HiddenCells) -> Float[Tensor, "variant row head dim"]:
        """The attention's output in a pass over whole prompts, without shared keys."""
        n, n_heads, n_rows, _ = call.queries.shape
        size = (1 if hidden.heads is None else n_heads) * n_rows * call.n_keys
        parts = _chunks(n, max(1, CHUNK_BYTES // size))
        return torch.cat([self._whole(call, hidden, part) for part in parts])

    def _whole(self, call: Call, hidden: HiddenCells, part: slice) -> Float[Tensor, "variant row head dim"]:
        """The output for some variants of a whole prompt."""
        own = call.of_samples(part)
        n, _, n_rows, _ = own.queries.shape
        rows = torch.arange(n_rows, device=own.queries.device).expand(n, -1)
        seen = visible(own.mask, rows, n_queries=n_rows, n_keys=own.n_keys, causal=own.causal)
        cells, erased = hidden.cells(part), None
        if hidden.zero:
            erased = cells
        elif seen is None:
            seen = ~cells
        else:
            seen = seen & ~cells if seen.dtype == torch.bool else seen.masked_fill(cells, -torch.inf)
        return attend(own, seen, erased=erased)

    def _shared(self, call: Call) -> Float[Tensor, "variant row head dim"]:
        """The output over the shared keys and each variant's own keys, computed for a few variants at a time."""
        n, n_heads, n_rows, _ = call.queries.shape
        one = torch.arange(n_rows, device=call.queries.device)[None]
        mask = call.mask if call.mask is None else call.mask[:1]
        seen = visible(mask, one, n_queries=n_rows, n_keys=call.n_keys, causal=call.causal)
        plain = seen is None or (seen.dtype == torch.bool and seen.shape[1] == 1)
        if plain and call.softcap is None and (self.hidden is None or not self.hidden.zero):
            parts = _chunks(n, max(1, TOGETHER // n_rows))
            return torch.cat([self._fused(call, seen, part) for part in parts]).transpose(1, 2).contiguous()
        size = 4 * n_heads * n_rows * call.n_keys
        parts = _chunks(n, max(1, CHUNK_BYTES // size))
        return torch.cat([self._part(call, seen, part) for part in parts]).transpose(1, 2).contiguous()

    def _fused(self, call: Call, seen: Tensor | None, part: slice) -> Float[Tensor, "variant head row dim"]:
        """The output for a chunk, from torch's fused attention; its variants are one sequence after the shared keys."""
        queries = call.queries[part].transpose(0, 1)
        n_heads, n, rows, dim = queries.shape
        keys, values = (
            torch.cat([shared[0], own[part].transpose(0, 1).flatten(1, 2)], dim=1)[None]
            for shared, own in (call.keys, call.values)
        )
        output = torch.nn.functional.scaled_dot_product_attention(
            queries.reshape(1, n_heads, n * rows, dim),
            keys,
            values,
            attn_mask=self._joint(call, seen, part),
            scale=call.scaling,
            enable_gqa=n_heads != keys.shape[1],
        )
        return output.view(n_heads, n, rows, -1).transpose(0, 1)

    def _joint(
        self, call: Call, seen: Tensor | None, part: slice
    ) -> Bool[Tensor, "*head joint_row joint_key"]:
        """Which keys each row of a chunk sees: shared keys and its own variant's, but none of other variants."""
        n, rows, shared = len(call.queries[part]), call.queries.shape[2], call.keys[0].shape[2]
        device = call.queries.device
        one = torch.ones(rows, call.n_keys, dtype=torch.bool, device=device) if seen is None else seen[0, 0]
        each = one.expand(n, 1, -1, -1)
        if self.hidden is not None:
            each = each & ~self.hidden.cells(part)
        alone = torch.eye(n, dtype=torch.bool, device=device)[:, None, None, :, None]
        own = alone & each[:, :, :, None, shared:]
        joint = torch.cat([each[..., :shared], own.flatten(3)], dim=3).transpose(0, 1).flatten(1, 2)
        return joint[0] if len(joint) == 1 else joint

    def _part(self, call: Call, seen: Tensor | None, part: slice) -> Float[Tensor, "variant head row dim"]:
        """The output for a chunk, computed explicitly.

        The softmax over all keys is combined from the softmax over the shared keys and that over the variant's own.
        """
        heads = call.all_heads
        queries = heads.queries(call.queries[part].float() * call.scaling)  # (variant, kv, group, row, dim)
        n, kv, group, rows, dim = queries.shape
        n_shared = call.keys[0].shape[2]
        flat = queries.transpose(0, 1).reshape(kv, n * group * rows, dim)
        shared = _capped(flat @ call.keys[0][0].float().transpose(-1, -2), call.softcap)
        shared = shared.view(kv, n, group, rows, n_shared).transpose(0, 1)  # (variant, kv, group, row, key)
        own = _capped(
            queries.flatten(2, 3) @ call.keys[1][part].float().transpose(-1, -2), call.softcap
        ).unflatten(2, (group, rows))
        shared = _masked(shared, None if seen is None else seen[..., :n_shared])
        own = _masked(own, None if seen is None else seen[..., n_shared:])
        cells = None if self.hidden is None else _grouped(self.hidden.cells(part), kv, group)
        if cells is not None and self.hidden is not None and not self.hidden.zero:
            least = torch.finfo(shared.dtype).min
            shared = shared.masked_fill_(cells[..., :n_shared], least)
            own = own.masked_fill(cells[..., n_shared:], least)
        top = shared.amax(dim=-1)
        spread = torch.softmax(shared, dim=-1)
        mass = top - spread.amax(dim=-1).log()  # log Σ exp over the shared keys
        both = torch.logaddexp(mass, own.logsumexp(dim=-1))
        weights = (own - both[..., None]).exp()
        if cells is not None and self.hidden is not None and self.hidden.zero:
            spread = spread.masked_fill(cells[..., :n_shared], 0.0)
            weights = weights.masked_fill(cells[..., n_shared:], 0.0)
        values, mine = call.values[0][0], call.values[1][part]
        given = spread.transpose(0, 1).reshape(kv, -1, n_shared).to(values.dtype) @ values
        added = (weights.to(mine.dtype).flatten(2, 3) @ mine).unflatten(2, (group, rows))
        share = (mass - both).exp()[..., None].to(values.dtype)
        return (given.view(kv, n, group, rows, -1).transpose(0, 1) * share + added).flatten(1, 2)


def _grouped(cells: Cells, kv: int, group: int) -> Bool[Tensor, "variant _ _ row key"]:
    """The cells with the heads split into (key-value head, group), or (1, 1) if they are the same for every head."""
    return cells.unflatten(1, (kv, group) if cells.shape[1] > 1 else (1, 1))


def _chunks(n: int, size: int) -> Iterator[slice]:
    """Slices of `size` variants, of n in all; the last slice may be smaller."""
    return (slice(start, min(start + size, n)) for start in range(0, n, size))


def _capped(scores: Tensor, softcap: float | None) -> Tensor:
    return scores if softcap is None else softcap * torch.tanh(scores / softcap)


def _masked(scores: Float[Tensor, "variant key_value_head group row key"], seen: Tensor | None) -> Tensor:
    """The scores with a mask (1, 1 or head, row, key) applied, which is boolean or additive."""
    if seen is None:
        return scores
    shape = scores.shape[1:3] if seen.shape[1] > 1 else (1, 1)
    seen = seen.unflatten(1, shape)
    if seen.dtype != torch.bool:
        return scores + seen.float().clamp(min=torch.finfo(torch.float32).min / 2)
    return scores.masked_fill(~seen, torch.finfo(scores.dtype).min)
