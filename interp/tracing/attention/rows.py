"""Rows of attention from queries, keys and a mask: pure tensor arithmetic, shared by every executor.

Shapes follow transformers' attention interface: queries (sample, head, query, dim), keys and values
(sample, key_value_head, key, dim). Keys and values come as segments that follow each other along `key`, so a
shared image prefix is read where it lies instead of being joined to every suffix. A segment of fewer lines than
there are samples serves equally many samples with each line, in order.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from interp.tracing.layers.heads import Heads

__all__ = ["attend", "row_outputs", "row_probabilities", "row_scores", "select_rows", "visible"]

CHUNK_BYTES = 64 * 2**20
"""`attend` holds no more than about this many bytes of scores at once."""


def _product(
    left: Float[Tensor, "sample head group query inner"], right: Float[Tensor, "line head inner outer"]
) -> Float[Tensor, "sample head group query outer"]:
    """Returns left @ right for every head, in one matrix product per line and head; no copy of `right`.

    With fewer lines than samples, line i serves samples i·n/lines … (i + 1)·n/lines − 1.
    """
    n, heads, group, rows, inner = left.shape
    lines = right.shape[0]
    if lines == n:
        return (left.flatten(2, 3) @ right).unflatten(2, (group, rows))
    each = n // lines
    turned = left.unflatten(0, (lines, each)).transpose(1, 2)
    flat = turned.reshape(lines, heads, each * group * rows, inner) @ right
    return flat.view(lines, heads, each, group, rows, -1).transpose(1, 2).flatten(0, 1)


def select_rows(
    queries: Float[Tensor, "sample head query dim"], rows: Int[Tensor, "sample row"]
) -> Float[Tensor, "sample head row dim"]:
    """Returns the chosen query rows of each sample."""
    index = rows[:, None, :, None].expand(-1, queries.shape[1], -1, queries.shape[3])
    return queries.gather(2, index)


def row_scores(
    queries: Float[Tensor, "sample head row dim"],
    keys: Sequence[Float[Tensor, "_ _ _ dim"]],
    *,
    heads: Heads,
    scaling: float,
    softcap: float | None = None,
) -> Float[Tensor, "sample chosen_head row key"]:
    """Returns q·kᵀ·scaling for the chosen heads, float32, soft-capped where the model does, before any mask.

    Args:
        queries: the rows' queries, all heads of the layer.
        keys: key segments, together every key in order; no key is repeated for grouped-query attention.
        heads: which heads to compute.
        scaling: the model's scale of the product.
        softcap: c in c·tanh(score / c), or None.
    """
    grouped = heads.queries(queries.float() * scaling)
    parts = [_product(grouped, heads.keys(k).float().transpose(-1, -2)) for k in keys]
    scores = heads.flat(parts[0] if len(parts) == 1 else torch.cat(parts, dim=-1))
    return scores if softcap is None else softcap * torch.tanh(scores / softcap)


def visible(
    mask: Tensor | None, rows: Int[Tensor, "sample row"], *, n_queries: int, n_keys: int, causal: bool
) -> Tensor | None:
    """Returns what the rows may attend to, (sample, 1 or head, row, key): bool, additive, or None for all.

    `mask` is what the model passed to its attention: None (causal, queries are the last of the keys), bool or
    additive (sample, head, query, key), or the (sample, key) padding mask of flash attention.
    """
    if mask is not None and mask.ndim == 4:
        full = mask[..., :n_keys].expand(rows.shape[0], -1, -1, -1)
        index = rows[:, None, :, None].expand(-1, full.shape[1], -1, n_keys)
        return full.gather(2, index)
    columns = torch.arange(n_keys, device=rows.device)
    seen = None
    if causal and n_queries > 1:
        seen = (columns <= rows[..., None] + (n_keys - n_queries))[:, None]
    if mask is not None:
        padding = mask[:, None, None, :n_keys].bool()
        seen = padding if seen is None else seen & padding
    return seen


def row_probabilities(
    scores: Float[Tensor, "sample head row key"],
    seen: Tensor | None,
    hidden: Bool[Tensor, "_ _ row key"] | None = None,
) -> Float[Tensor, "sample head row key"]:
    """Returns the float32 softmax over keys that are seen and not hidden; 0 throughout where none is left."""
    if seen is not None and seen.dtype != torch.bool:
        scores, seen = scores + seen.float(), None
    closed = hidden if seen is None else ~seen if hidden is None else ~seen | hidden
    if closed is None:
        return scores.softmax(dim=-1)
    probabilities = scores.masked_fill(closed, -torch.inf).softmax(dim=-1)
    return probabilities.masked_fill(closed.all(dim=-1, keepdim=True), 0.0)


def row_outputs(
    probabilities: Float[Tensor, "sample head row key"],
    values: Sequence[Float[Tensor, "_ _ _ dim"]],
    *,
    heads: Heads,
) -> Float[Tensor, "sample head row dim"]:
    """Returns Σ_key p·v for the chosen heads, in the values' dtype. `values` are segments, as keys are."""
    grouped = heads.arrange(probabilities.to(values[0].dtype))
    output: Tensor | None = None
    start = 0
    for segment in values:
        stop = start + segment.shape[2]
        part = _product(grouped[..., start:stop], heads.keys(segment))
        output = part if output is None else output + part
        start = stop
    assert output is not None
    return heads.flat(output)


def attend(
    queries: Float[Tensor, "sample head query dim"],
    keys: Sequence[Float[Tensor, "_ _ _ dim"]],
    values: Sequence[Float[Tensor, "_ _ _ value_dim"]],
    mask: Tensor | None,
    *,
    heads: Heads,
    scaling: float,
    softcap: float | None = None,
    causal: bool = True,
    erased: Bool[Tensor, "sample head_or_one query key"] | None = None,
) -> Float[Tensor, "sample query head value_dim"]:
    """Returns attention over key segments, in the layout transformers expects of an attention function.

    For a suffix's few rows against a long shared prefix. Rows are taken in chunks of about `CHUNK_BYTES`. Weights
    `erased` are 0 after the softmax.
    """
    n, n_heads, n_queries, _ = queries.shape
    n_keys = sum(k.shape[2] for k in keys)
    step = max(1, CHUNK_BYTES // (4 * n * n_heads * n_keys))
    outputs = []
    for start in range(0, n_queries, step):
        stop = min(start + step, n_queries)
        scores = row_scores(queries[:, :, start:stop], keys, heads=heads, scaling=scaling, softcap=softcap)
        if mask is not None and mask.ndim == 4:
            seen = mask[:, :, start:stop, :n_keys]
        else:
            chunk = torch.arange(start, stop, device=queries.device).expand(n, -1)
            seen = visible(mask, chunk, n_queries=n_queries, n_keys=n_keys, causal=causal)
        weights = row_probabilities(scores, seen)
        if erased is not None:
            weights = weights.masked_fill(erased[:, :, start:stop], 0.0)
        outputs.append(row_outputs(weights, values, heads=heads))
    return torch.cat(outputs, dim=2).transpose(1, 2).contiguous()
