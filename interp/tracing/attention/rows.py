"""One call of a layer's attention: its rows computed, edited and put back. Pure tensor arithmetic for every executor.

Shapes follow transformers' attention interface: queries (sample, head, query, dim), keys and values
(sample, key_value_head, key, dim). Keys and values come as segments that follow each other along `key`, so that a
shared image prefix is read where it lies and is not copied for every suffix. A segment of fewer lines than there are
samples serves equally many samples with each line, in order. `Heads` arranges the heads that share a key-value head for
one matrix product.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any, Protocol, runtime_checkable

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn.attention.flex_attention import BlockMask, create_mask

from interp.tracing.attention.edit_cells import At, Change

__all__ = [
    "AttentionFunction",
    "Block",
    "Call",
    "Heads",
    "Work",
    "any_of",
    "attend",
    "only_visible",
    "row_outputs",
    "row_probabilities",
    "row_scores",
    "select_rows",
    "visible",
]


AttentionFunction = Callable[..., tuple[Tensor, Tensor | None]]


@dataclass(frozen=True, eq=False)
class Call:
    """One call of a layer's attention. Keys and values are segments: a shared prefix first, if there is."""

    module: nn.Module
    queries: Float[Tensor, "sample head query dim"]
    keys: tuple[Float[Tensor, "_ key_value_head _ _"], ...]
    values: tuple[Float[Tensor, "_ key_value_head _ _"], ...]
    mask: Tensor | None
    scaling: float
    softcap: float | None
    causal: bool

    @classmethod
    def of(
        cls,
        module: nn.Module,
        tensors: Sequence[Tensor],
        mask: Any,
        kwargs: Mapping[str, Any],
        prefix: tuple[Tensor, Tensor] | None = None,
    ) -> Call:
        """The call of an attention function with queries, keys and values, as transformers makes it.

        `mask`: what the model passed; flex attention's block masks and sliding windows that flash attention gets
        apart from the mask become (sample, head, query, key) masks. `prefix`: keys and values that come before.
        """
        query, key, value = tensors
        scaling, causal = kwargs.get("scaling"), kwargs.get("is_causal")
        made = cls(
            module=module,
            queries=query,
            keys=(key,) if prefix is None else (prefix[0], key),
            values=(value,) if prefix is None else (prefix[1], value),
            mask=_dense(mask) if isinstance(mask, BlockMask) else mask,
            scaling=query.shape[-1] ** -0.5 if scaling is None else scaling,
            softcap=kwargs.get("softcap"),
            causal=getattr(module, "is_causal", True) if causal is None else causal,
        )
        return made._windowed(kwargs.get("sliding_window"))

    def _windowed(self, window: int | None) -> Call:
        """The call with a mask that holds the layer's sliding window, where that is not in its mask already."""
        in_mask = self.mask is not None and self.mask.ndim == 4
        if window is None or in_mask or self.n_keys <= window:
            return self
        n, _, n_queries, _ = self.queries.shape
        rows = torch.arange(n_queries, device=self.queries.device).expand(n, -1)
        seen = visible(self.mask, rows, n_queries=n_queries, n_keys=self.n_keys, causal=self.causal)
        ago = (rows[..., None] + self.n_keys - n_queries) - torch.arange(self.n_keys, device=rows.device)
        near = (ago.abs() < window)[:, None]
        return replace(self, mask=near if seen is None else near & seen)

    def on_lines(self, lines: Int[Tensor, " sample"]) -> Call:
        """The call with the first segment's lines as the samples have them."""
        keys, values = ((one[0][lines], *one[1:]) for one in (self.keys, self.values))
        return replace(self, keys=keys, values=values)

    def of_samples(self, some: slice) -> Call:
        """The call of some of its samples."""
        shared = self.mask is None or self.mask.shape[0] < len(self.queries)
        return replace(
            self,
            queries=self.queries[some],
            keys=tuple(one[some] for one in self.keys),
            values=tuple(one[some] for one in self.values),
            mask=self.mask if shared or self.mask is None else self.mask[some],
        )

    def dense_mask(self) -> Tensor:
        """What every row sees, (sample, head or 1, query, key): booleans, or numbers that are added to scores."""
        n, _, n_queries, _ = self.queries.shape
        rows = torch.arange(n_queries, device=self.queries.device).expand(n, -1)
        seen = visible(self.mask, rows, n_queries=n_queries, n_keys=self.n_keys, causal=self.causal)
        if seen is None:
            return torch.ones(n, 1, n_queries, self.n_keys, dtype=torch.bool, device=rows.device)
        return seen.expand(n, -1, -1, -1)

    @property
    def all_heads(self) -> Heads:
        """Every head of the layer."""
        n = self.queries.shape[1]
        return Heads.of(range(n), n, self.keys[0].shape[1], self.queries.device)

    def heads_of(self, block: Block) -> Heads:
        """The block's heads, as this layer groups them."""
        return block.heads.among(self.keys[0].shape[1])

    @property
    def n_keys(self) -> int:
        """Keys of all segments."""
        return sum(k.shape[2] for k in self.keys)

    def probabilities(
        self, block: Block, changes: Sequence[Change] = (), step: int = 0
    ) -> Float[Tensor, "sample chosen_head row key"]:
        """The block's rows of attention under the changes."""
        wide = any(change.edit.all_heads for change in changes)
        rows, heads = block.rows, self.all_heads if wide else self.heads_of(block)
        at = At(rows, heads.index, self.n_keys, step)
        queries = select_rows(self.queries, rows)
        scores = row_scores(queries, self.keys, heads=heads, scaling=self.scaling, softcap=self.softcap)
        seen = visible(
            self.mask, rows, n_queries=self.queries.shape[2], n_keys=self.n_keys, causal=self.causal
        )
        if seen is not None and seen.shape[1] > 1:
            seen = seen[:, heads.index]
        for change in changes:
            if change.edit.stage == "scores" and not change.hides:
                scores = change(scores, at)
        hidden = any_of([change.cells.at(at) for change in changes if change.hides])
        probabilities = row_probabilities(scores, seen, hidden)
        for change in changes:
            if change.edit.stage == "probabilities":
                probabilities = only_visible(change(probabilities, at), seen)
        return probabilities[:, block.heads.index] if wide else probabilities

    def splice(
        self,
        output: Float[Tensor, "sample query head dim"],
        block: Block,
        probabilities: Float[Tensor, "sample chosen_head row key"],
        before: Float[Tensor, "sample chosen_head row key"] | None = None,
    ) -> Float[Tensor, "sample query head dim"]:
        """The attention's output with the block's rows recomputed from probabilities; the rest as it is.

        Rows whose probabilities are those of `before` are left as they are too.
        """
        new = row_outputs(probabilities, self.values, heads=self.heads_of(block)).to(output.dtype)
        sample, place = block.cells
        at = (sample[:, None], block.rows[sample, place][:, None], block.heads.index[None, :])
        values = new[sample, :, place]
        if before is not None:
            changed = (probabilities != before).any(dim=-1)[sample, :, place]
            values = torch.where(changed[..., None], values, output[at])
        output = output.clone() if output.requires_grad else output
        output[at] = values
        return output


def _dense(mask: Any) -> Bool[Tensor, "sample head query key"]:
    """A block mask of flex attention written out; once for all layers."""
    found = vars(mask).get("interp_dense")
    if found is None:
        device = mask.kv_num_blocks.device
        found = create_mask(mask.mask_mod, *mask.shape, device=device)
        mask.interp_dense = found
    return found


def only_visible(
    probabilities: Float[Tensor, "sample head row key"], seen: Tensor | None
) -> Float[Tensor, "sample head row key"]:
    """Probabilities with 0 at keys that rows cannot see; `seen` as `visible` gives it."""
    if seen is None:
        return probabilities
    closed = ~seen if seen.dtype == torch.bool else seen < torch.finfo(seen.dtype).min / 2
    return probabilities.masked_fill(closed, 0.0)


def any_of(masks: Sequence[Bool[Tensor, "_ _ row key"]]) -> Bool[Tensor, "_ _ row key"] | None:
    """The union of masks; None for none."""
    found = None
    for mask in masks:
        found = mask if found is None else found | mask
    return found


@runtime_checkable
class Work(Protocol):
    """What an attention module does while it is armed."""

    def __call__(
        self, original: AttentionFunction, call: Call, kwargs: dict[str, Any]
    ) -> tuple[Tensor, Tensor | None]:
        """The attention's output and weights."""
        ...


@dataclass(frozen=True, eq=False)
class Block:
    """Some rows of each sample × some heads.

    Attributes:
        rows: query rows; samples with fewer rows than the widest repeat one.
        cells: (sample, place among its rows) of every row that is not such a repetition.
        heads: the heads.
    """

    rows: Int[Tensor, "sample row"]
    cells: tuple[Int[Tensor, " cell"], Int[Tensor, " cell"]]
    heads: Heads


CHUNK_BYTES = 64 * 2**20
"""`attend` holds no more than about this many bytes of scores at once."""


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
    call: Call, mask: Tensor | None, *, erased: Bool[Tensor, "sample head_or_one query key"] | None = None
) -> Float[Tensor, "sample query head value_dim"]:
    """Returns a call's attention under a mask, in the layout transformers expects of an attention function.

    For a suffix's few rows against a long shared prefix. Rows are taken in chunks of about `CHUNK_BYTES`. Weights
    `erased` are 0 after the softmax.
    """
    queries, heads, n_keys = call.queries, call.all_heads, call.n_keys
    n, n_heads, n_queries, _ = queries.shape
    step = max(1, CHUNK_BYTES // (4 * n * n_heads * n_keys))
    outputs = []
    for start in range(0, n_queries, step):
        stop = min(start + step, n_queries)
        some = queries[:, :, start:stop]
        scores = row_scores(some, call.keys, heads=heads, scaling=call.scaling, softcap=call.softcap)
        if mask is not None and mask.ndim == 4:
            seen = mask[:, :, start:stop, :n_keys]
        else:
            chunk = torch.arange(start, stop, device=queries.device).expand(n, -1)
            seen = visible(mask, chunk, n_queries=n_queries, n_keys=n_keys, causal=call.causal)
        weights = row_probabilities(scores, seen)
        if erased is not None:
            weights = weights.masked_fill(erased[:, :, start:stop], 0.0)
        outputs.append(row_outputs(weights, call.values, heads=heads))
    return torch.cat(outputs, dim=2).transpose(1, 2).contiguous()
