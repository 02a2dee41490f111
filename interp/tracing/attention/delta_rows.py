"""Rows of a gated DeltaNet layer: how much of each token's value is in the output at a row.

The layer keeps a state S, (key dim, value dim), per head. With q and k of unit length, q scaled by 1/√d, decay g ≤ 0
and write strength β in [0, 1], token t does

    S ← e^{g_t} S,    S ← S + β_t k_t (v_t − Sᵀ k_t)ᵀ,    o_t = Sᵀ q_t.

So the output is linear in the values: o_r = Σ_{t ≤ r} w_{r,t} v_t. With x = q_r, going back from t = r,

    w_{r,t} = β_t k_tᵀ x,    x ← e^{g_t} (x − w_{r,t} k_t).

The weights are exact and signed, and need not sum to 1. `delta_weights` does some tokens at a time, by one triangular
system each, for the rows asked for only: never token × token.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

__all__ = ["DeltaCall", "delta_weights"]


CHUNK = 64
"""Tokens of one triangular system."""
CHUNK_BYTES = 32 * 2**20
"""About how much the systems of rows take that each have write strengths of their own."""


@dataclass(frozen=True, eq=False)
class DeltaCall:
    """What enters a layer's delta rule, as transformers' own functions prepare it.

    Attributes:
        queries: of unit length, times 1/√dim, float32; one for each value head.
        keys: of unit length, float32; one for each value head.
        values: float32.
        beta: the write strengths, in [0, 1].
        decay: the logarithms g ≤ 0 of what is left of the state at each token.
    """

    queries: Float[Tensor, "sample head query dim"]
    keys: Float[Tensor, "sample head key dim"]
    values: Float[Tensor, "sample head key value_dim"]
    beta: Float[Tensor, "sample head key"]
    decay: Float[Tensor, "sample head key"]

    @classmethod
    def of(
        cls,
        query: Float[Tensor, "sample token key_head dim"],
        key: Float[Tensor, "sample token key_head dim"],
        value: Float[Tensor, "sample token head value_dim"],
        g: Float[Tensor, "sample token head"],
        beta: Float[Tensor, "sample token head"],
        unit: bool,
    ) -> DeltaCall:
        """The call of a rule with these arguments; `unit` makes queries and keys of unit length (L2 with ε = 1e-6)."""
        each = value.shape[2] // key.shape[2]
        query, key = (one.repeat_interleave(each, dim=2) for one in (query, key))
        query, key, value, beta, g = (one.transpose(1, 2).float() for one in (query, key, value, beta, g))
        if unit:
            query, key = (one * torch.rsqrt((one * one).sum(-1, keepdim=True) + 1e-6) for one in (query, key))
        return cls(query * query.shape[-1] ** -0.5, key, value, beta, g)

    def weights(
        self,
        rows: Int[Tensor, "sample row"],
        heads: Int[Tensor, " chosen_head"],
        hidden: Bool[Tensor, "sample _ row key"] | None = None,
    ) -> Float[Tensor, "sample chosen_head row key"]:
        """The weights of some rows in some heads; a row's `hidden` tokens have their writes erased."""
        index = rows[:, None, :, None].expand(-1, len(heads), -1, self.queries.shape[-1])
        queries = self.queries[:, heads].gather(2, index)
        kept = (one[:, heads] for one in (self.keys, self.beta, self.decay))
        return delta_weights(queries, rows, *kept, hidden=hidden)

    def last(self, heads: Int[Tensor, " chosen_head"]) -> Float[Tensor, "sample chosen_head 1 key"]:
        """The weights of the only query, which is that of the last token."""
        n, _, n_keys = self.beta.shape
        row = torch.full((n, 1), n_keys - 1, device=self.beta.device)
        kept = (one[:, heads] for one in (self.keys, self.beta, self.decay))
        return delta_weights(self.queries[:, heads], row, *kept)


def delta_weights(
    queries: Float[Tensor, "sample head row dim"],
    rows: Int[Tensor, "sample row"],
    keys: Float[Tensor, "sample head key dim"],
    beta: Float[Tensor, "sample head key"],
    decay: Float[Tensor, "sample head key"],
    *,
    hidden: Bool[Tensor, "sample _ row key"] | None = None,
) -> Float[Tensor, "sample head row key"]:
    """The weight of each token's value in the output at each row: signed, 0 after the row, of any sum.

    Args:
        queries: of the rows, prepared (see `DeltaCall`).
        rows: which tokens they are of.
        keys: of every token, prepared.
        beta: their write strengths.
        decay: their log decays g ≤ 0.
        hidden: tokens whose write is erased (β = 0) for a row; the head axis is 1 where it does not matter.

    Source: Yang et al., "Gated Delta Networks", arXiv 2412.06464, equation 10, read backwards from the output.
    """
    if hidden is None:
        return _weights(queries, rows, keys, beta, decay)
    size = 4 * queries.shape[0] * queries.shape[1] * CHUNK * CHUNK
    parts = queries.shape[2]
    return torch.cat(
        [
            _weights(queries[:, :, part], rows[:, part], keys, beta, decay, hidden[:, :, part])
            for part in _slices(parts, max(1, CHUNK_BYTES // size))
        ],
        dim=2,
    )


def _slices(n: int, size: int) -> Iterator[slice]:
    return (slice(start, min(start + size, n)) for start in range(0, n, size))


def _weights(
    x: Tensor,
    rows: Tensor,
    keys: Tensor,
    beta: Tensor,
    decay: Tensor,
    hidden: Tensor | None = None,
) -> Float[Tensor, "sample head row key"]:
    """The weights, some tokens at a time from the last to the first; `x` is carried from one chunk to the next."""
    found = x.new_zeros(*x.shape[:3], keys.shape[2])
    for part in reversed(list(_slices(keys.shape[2], CHUNK))):
        strength = beta[:, :, None, part]
        if hidden is not None:
            strength = strength.masked_fill(hidden[..., part], 0.0)
        found[..., part], x = _chunk(x, rows - part.start, keys[:, :, part], strength, decay[:, :, part])
    return found


def _chunk(
    x: Float[Tensor, "sample head row dim"],
    last: Int[Tensor, "sample row"],
    keys: Float[Tensor, "sample head token dim"],
    beta: Float[Tensor, "sample head row_or_one token"],
    decay: Float[Tensor, "sample head token"],
) -> tuple[Float[Tensor, "sample head row token"], Float[Tensor, "sample head row dim"]]:
    """The weights of a chunk of tokens and the x that goes on to the tokens before it.

    A row before the chunk (`last` < 0) gets nothing from it. Weight t of a row is β_t k_tᵀ of
    e^{D(t, last)} x − Σ_{s > t} e^{D(t, s)} w_s k_s with D the decay between two tokens: a triangular system.
    """
    n = keys.shape[2]
    token = torch.arange(n, device=keys.device)
    sums = decay.cumsum(dim=-1)
    between = (
        (sums[:, :, None, :] - sums[:, :, :, None]).masked_fill(token[:, None] >= token, -torch.inf).exp()
    )
    overlap = (keys @ keys.transpose(-1, -2)) * between  # (sample, head, token t, token s > t)
    here = last.clamp(0, n - 1)[:, None].expand(-1, keys.shape[1], -1)
    to_last = sums.gather(2, here)[..., None]  # (sample, head, row, 1)
    sees = (token <= last[..., None])[:, None]
    reached = (to_last - sums[:, :, None]).masked_fill(~sees, -torch.inf).exp()
    given = beta * reached * (x @ keys.transpose(-1, -2))
    weights = _solved(beta, overlap, given)
    gone = torch.where(last[:, None, :, None] >= 0, to_last.exp() * x, x)
    return weights, gone - (weights * sums.exp()[:, :, None]) @ keys


def _solved(beta: Tensor, overlap: Tensor, given: Tensor) -> Float[Tensor, "sample head row token"]:
    """w of (1 + β ∘ overlap) w = given, by rows; one system for all rows where they share β."""
    if beta.shape[2] == 1:
        system = beta[:, :, 0, :, None] * overlap
        return torch.linalg.solve_triangular(
            system, given.transpose(-1, -2), upper=True, unitriangular=True
        ).transpose(-1, -2)
    system = beta[..., None] * overlap[:, :, None]
    return torch.linalg.solve_triangular(system, given[..., None], upper=True, unitriangular=True)[..., 0]
