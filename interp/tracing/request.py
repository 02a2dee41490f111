"""Reads and edits of one batch in the samples' own positions: checked, and not yet tied to any tensor."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Int

from interp.errors import EditError, SiteError
from interp.tokens import TokenMap
from interp.tracing.edits import Knockout, Stage, check_order
from interp.tracing.reads import Rows
from interp.tracing.sight import Sight
from interp.tracing.site import Selector, select

__all__ = ["Hidden", "Request", "Selection", "resolve"]

Places = tuple[Int[np.ndarray, " _"], ...]
"""One array of unpadded positions per sample."""


@dataclass(frozen=True, eq=False)
class Selection:
    """What one `Rows` covers.

    Attributes:
        heads: the heads of each layer, both in the order asked for.
        pairs: the (layer, head) pairs asked for, in order; None when heads were not given as pairs.
        reduce: whether heads are averaged.
        queries: each sample's rows.
        keys: each sample's columns.
        decodes: whether each generated token has such a row too.
    """

    heads: dict[int, tuple[int, ...]]
    pairs: tuple[tuple[int, int], ...] | None
    reduce: bool
    queries: Places
    keys: Places
    decodes: bool


@dataclass(frozen=True, eq=False)
class Hidden:
    """What one `Knockout` hides. Rows of the prompt that see none of the keys are left out.

    `decodes`: whether the row of each generated token is among its rows.
    """

    stage: Stage
    heads: dict[int, tuple[int, ...]]
    queries: Places
    keys: Places
    decodes: bool


@dataclass(frozen=True, eq=False)
class Request:
    """All reads and edits of a batch."""

    selections: tuple[Selection, ...]
    hidden: tuple[Hidden, ...]

    def first_row(self, sample: int) -> int | None:
        """The earliest position whose row is read or edited in a sample, or None."""
        rows = [part.queries[sample] for part in (*self.selections, *self.hidden)]
        return min((int(at[0]) for at in rows if len(at)), default=None)


def resolve(
    reads: Sequence[Rows],
    edits: Sequence[Knockout],
    tokens: Sequence[TokenMap],
    *,
    n_layers: int,
    n_heads: int,
    sight: Sight = Sight(),  # noqa: B008 - frozen
) -> Request:
    """The request of a batch.

    Raises:
        SiteError: A layer, head, group or position that is not there, or a read of nothing.
        EditError: Edits out of order, or a row left without keys under "renormalise".
    """
    check_order(edits)
    selections = tuple(_selection(read, tokens, n_layers, n_heads) for read in reads)
    found = [_hidden(edit, tokens, n_layers, n_heads, sight) for edit in edits]
    hidden = tuple(h for h in found if any(len(rows) for rows in h.queries) or h.decodes)
    for sample, own in enumerate(tokens):
        _refuse_rows_without_keys([h for h in hidden if h.stage == "scores"], sample, own, sight)
    return Request(selections, hidden)


def _places(selectors: Sequence[Selector], tokens: Sequence[TokenMap]) -> Places:
    if not selectors:
        return tuple(np.empty(0, np.int64) for _ in tokens)
    return tuple(select(selectors, sample, i, len(tokens)) for i, sample in enumerate(tokens))


def _selection(read: Rows, tokens: Sequence[TokenMap], n_layers: int, n_heads: int) -> Selection:
    if not isinstance(read, Rows):
        raise SiteError(f"reads= takes reads such as interp.Rows(site); got {read!r}.")
    site = read.site
    heads = site.resolve(n_layers, n_heads)
    queries, keys = (_places(groups, tokens) for groups in site.groups)
    for name, groups, samples in zip(("queries", "keys"), site.groups, (queries, keys), strict=True):
        for i, at in enumerate(samples):
            if not len(at):
                raise SiteError(
                    f"{name}={groups!r} selects nothing in sample {i} of the batch, which has "
                    f"{tokens[i].length} tokens, {tokens[i].n} of them image tokens. A read needs at least "
                    "one."
                )
    decodes = site.queries == ("last",)
    return Selection(heads, site.pairs, read.reduce == "head", queries, keys, decodes)


def _hidden(edit: Knockout, tokens: Sequence[TokenMap], n_layers: int, n_heads: int, sight: Sight) -> Hidden:
    heads = edit.site.resolve(n_layers, n_heads)
    keys = _places(edit.site.groups[1], tokens)
    rows = _places(edit.prefill_queries, tokens)
    far = [sight.horizon(own) for own in tokens]
    seeing = tuple(
        q[last[q] >= k[0]] if len(k) else q[:0] for q, k, last in zip(rows, keys, far, strict=True)
    )
    return Hidden(edit.stage, heads, seeing, keys, edit.decodes and any(len(k) for k in keys))


def _refuse_rows_without_keys(hidden: Sequence[Hidden], sample: int, tokens: TokenMap, sight: Sight) -> None:
    """Refuse a row of the prompt with every key it can see hidden. Rows always see themselves."""
    if not any(len(np.intersect1d(h.queries[sample], g.keys[sample])) for h in hidden for g in hidden):
        return
    checked = set()
    for layer in sorted({layer for h in hidden for layer in h.heads}):
        for head in sorted({head for h in hidden for head in h.heads.get(layer, ())}):
            here = tuple(i for i, h in enumerate(hidden) if head in h.heads.get(layer, ()))
            case = (here, sight.windows[layer] if sight.windows else None)
            if case in checked:
                continue
            checked.add(case)
            found = _row_without_keys([hidden[i] for i in here], sample, tokens, sight, layer)
            if found is not None:
                row, first, last = found
                raise EditError(
                    f"in sample {sample} of the batch, layer {layer}, head {head}, the row at position {row} "
                    f"would have every key hidden ({first} … {last}), and nothing is left to renormalise. "
                    'Leave it a key, or use Knockout(…, mode="zero"), which makes such a row zero.'
                )


def _row_without_keys(
    hidden: Sequence[Hidden], sample: int, tokens: TokenMap, sight: Sight, layer: int
) -> tuple[int, int, int] | None:
    """The first such row, and the first and last key it sees."""
    for row in np.unique(np.concatenate([h.queries[sample] for h in hidden])):
        keys = np.concatenate([h.keys[sample] for h in hidden if row in h.queries[sample]])
        if row not in keys:
            continue
        seen = sight.seen(tokens, int(row), layer)
        if np.isin(seen, keys).all():
            return int(row), int(seen[0]), int(seen[-1])
    return None
