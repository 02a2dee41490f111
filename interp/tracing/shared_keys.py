"""Attention of many variants of one prompt side by side: keys before them shared, each with keys of its own hidden."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from interp.tracing.attention import attend, visible
from interp.tracing.attention_call import AttentionFunction, Call

__all__ = ["Fan"]

CHUNK_BYTES = 16 * 2**20
"""No more than about this many bytes of scores are held at once where attention is written out."""
TOGETHER = 128
"""Rows that go through fused attention as one sequence: enough to be worth joining the shared keys to theirs."""


@dataclass(frozen=True, eq=False)
class Fan:
    """The work of one layer when the rows of a pass are variants of the same tokens.

    Attributes:
        prefix: keys and values before the pass's own, (1, key_value_head, key, dim), shared by every variant and read
            where they lie; None when the pass is of whole prompts.
        hidden: which keys each variant's rows must not see, those of the prefix first; None for none. A row must be
            left a key of its own to see.
        first: the first row of the pass that must not.
    """

    prefix: tuple[Tensor, Tensor] | None
    hidden: Bool[Tensor, "variant key"] | None = None
    first: int = 0

    def __call__(
        self, original: AttentionFunction, call: Call, kwargs: dict[str, Any]
    ) -> tuple[Tensor, Tensor | None]:
        """The attention's output."""
        if self.prefix is not None:
            return self._shared(call), None
        if self.hidden is None:
            return original(call.module, call.queries, call.keys[0], call.values[0], call.mask, **kwargs)
        how: dict[str, Any] = {"heads": call.all_heads, "scaling": call.scaling, "softcap": call.softcap}
        return attend(call.queries, call.keys, call.values, self._seen(call), **how, causal=call.causal), None

    def _seen(self, call: Call) -> Tensor:
        """What each variant's rows of a whole prompt see, (variant, 1 or head, row, key)."""
        assert self.hidden is not None
        n, _, n_rows, _ = call.queries.shape
        rows = torch.arange(n_rows, device=call.queries.device)
        seen = visible(
            call.mask, rows.expand(n, -1), n_queries=n_rows, n_keys=call.n_keys, causal=call.causal
        )
        closed = self.hidden[:, None, None, :] & (rows >= self.first)[:, None]
        if seen is None:
            return ~closed
        return seen & ~closed if seen.dtype == torch.bool else seen.masked_fill(closed, -torch.inf)

    def _shared(self, call: Call) -> Float[Tensor, "variant row head dim"]:
        """The output over the shared keys and each variant's own, a few variants at a time."""
        n, _, n_rows, _ = call.queries.shape
        one = torch.arange(n_rows, device=call.queries.device)[None]
        mask = call.mask if call.mask is None else call.mask[:1]
        seen = visible(mask, one, n_queries=n_rows, n_keys=call.n_keys, causal=call.causal)
        if call.softcap is None and (seen is None or (seen.dtype == torch.bool and seen.shape[1] == 1)):
            parts = _chunks(n, max(1, TOGETHER // n_rows))
            return torch.cat([self._fused(call, seen, part) for part in parts]).transpose(1, 2).contiguous()
        size = 4 * call.queries.shape[1] * n_rows * call.n_keys
        parts = _chunks(n, max(1, CHUNK_BYTES // size))
        return torch.cat([self._part(call, seen, part) for part in parts]).transpose(1, 2).contiguous()

    def _fused(self, call: Call, seen: Tensor | None, part: slice) -> Float[Tensor, "variant head row dim"]:
        """A chunk's output by torch's fused attention: its variants as one sequence behind the shared keys."""
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

    def _joint(self, call: Call, seen: Tensor | None, part: slice) -> Bool[Tensor, "joint_row joint_key"]:
        """What each row of a chunk sees of the shared keys, then of every variant's: of others' nothing."""
        n, rows, shared = len(call.queries[part]), call.queries.shape[2], call.keys[0].shape[2]
        device = call.queries.device
        one = torch.ones(rows, call.n_keys, dtype=torch.bool, device=device) if seen is None else seen[0, 0]
        each = one.expand(n, -1, -1)
        if self.hidden is not None:
            late = torch.arange(rows, device=device)[:, None] >= self.first
            each = each & ~(self.hidden[part, None] & late)
        own = torch.eye(n, dtype=torch.bool, device=device)[:, None, :, None] & each[:, :, None, shared:]
        return torch.cat([each[..., :shared], own.flatten(2)], dim=2).flatten(0, 1)

    def _part(self, call: Call, seen: Tensor | None, part: slice) -> Float[Tensor, "variant head row dim"]:
        """A chunk's output written out: the softmax over shared and own keys from those over each alone."""
        heads = call.all_heads
        queries = heads.queries(call.queries[part].float() * call.scaling)  # (variant, kv, group, row, dim)
        n, kv, group, rows, dim = queries.shape
        n_shared = call.keys[0].shape[2]
        flat = queries.transpose(0, 1).reshape(kv, n * group * rows, dim)
        shared = _capped(flat @ call.keys[0][0].float().transpose(-1, -2), call.softcap)
        shared = self._closed(shared.view(kv, n, group, rows, n_shared), seen, part)
        own = _capped(
            queries.flatten(2, 3) @ call.keys[1][part].float().transpose(-1, -2), call.softcap
        ).unflatten(2, (group, rows))
        own = _masked(own, None if seen is None else seen[..., n_shared:])
        top = shared.amax(dim=-1)
        spread = torch.softmax(shared, dim=-1)
        mass = (top - spread.amax(dim=-1).log()).transpose(0, 1)  # log Σ exp over the shared keys
        both = torch.logaddexp(mass, own.logsumexp(dim=-1))
        values, mine = call.values[0][0], call.values[1][part]
        given = (spread.view(kv, -1, n_shared).to(values.dtype) @ values).view(kv, n, group, rows, -1)
        added = ((own - both[..., None]).exp().to(mine.dtype).flatten(2, 3) @ mine).unflatten(
            2, (group, rows)
        )
        share = (mass - both).exp()[..., None].to(values.dtype)
        return (given.transpose(0, 1) * share + added).flatten(1, 2)

    def _closed(
        self, scores: Float[Tensor, "key_value_head variant group row key"], seen: Tensor | None, part: slice
    ) -> Float[Tensor, "key_value_head variant group row key"]:
        """Scores against the shared keys, those that are not seen at the least finite value."""
        n_shared, rows = scores.shape[-1], scores.shape[-2]
        within = None if seen is None else seen[..., :n_shared]
        if within is not None and within.dtype != torch.bool:
            scores, within = _masked(scores.transpose(0, 1), within).transpose(0, 1), None
        closed = None if within is None else ~within.view(1, rows, n_shared)
        if self.hidden is not None:
            late = torch.arange(rows, device=scores.device)[:, None] >= self.first
            mine = self.hidden[part, None, :n_shared] & late
            closed = mine if closed is None else closed | mine
        if closed is None:
            return scores
        return scores.masked_fill_(closed[None, :, None], torch.finfo(scores.dtype).min)


def _chunks(n: int, size: int) -> Iterator[slice]:
    """Slices of n variants, `size` each."""
    return (slice(start, min(start + size, n)) for start in range(0, n, size))


def _capped(scores: Tensor, softcap: float | None) -> Tensor:
    return scores if softcap is None else softcap * torch.tanh(scores / softcap)


def _masked(scores: Float[Tensor, "variant key_value_head group row key"], seen: Tensor | None) -> Tensor:
    """Scores under a mask (1, 1 or head, row, key), bool or additive."""
    if seen is None:
        return scores
    shape = scores.shape[1:3] if seen.shape[1] > 1 else (1, 1)
    seen = seen.unflatten(1, shape)
    if seen.dtype != torch.bool:
        return scores + seen.float().clamp(min=torch.finfo(torch.float32).min / 2)
    return scores.masked_fill(~seen, torch.finfo(scores.dtype).min)
