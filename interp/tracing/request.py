"""Reads and edits of one batch in the samples' own positions: checked, and not yet tied to any tensor."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

from interp.errors import EditError, SiteError
from interp.tokens import TokenMap
from interp.tracing.edits import AttentionEdit, Edit, Knockout, check_order
from interp.tracing.patches import PatchResidual, PatchRows
from interp.tracing.reads import Read, Residual, Rows
from interp.tracing.sight import Sight
from interp.tracing.site import Selector, select

__all__ = ["Applied", "Request", "Selection", "StreamPatch", "StreamSelection", "resolve"]

Places = tuple[Int[np.ndarray, " _"], ...]
"""One array of unpadded positions per sample."""

LayerValues = dict[int, Float[np.ndarray, "..."]]
"""Given values of each layer; the first axis is the step."""


@dataclass(frozen=True, eq=False)
class Selection:
    """What one `Rows` covers.

    Attributes:
        heads: the heads of each layer, both in the order asked for.
        pairs: the (layer, head) pairs asked for, in order; None when heads were not given as pairs.
        reduce: whether heads are averaged.
        queries: each sample's rows in the prompt.
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
class StreamSelection:
    """What one `Residual` covers: layers in the order asked for, each sample's positions in the prompt."""

    layers: tuple[int, ...]
    queries: Places
    decodes: bool


@dataclass(frozen=True, eq=False)
class Applied:
    """What one edit of attention changes.

    Attributes:
        edit: the edit.
        heads: the heads of each layer.
        queries: each sample's rows in the prompt; those that see none of the keys are left out.
        keys: each sample's columns.
        decodes: whether the row of each generated token is among its rows.
        values: of a `PatchRows`, each sample's (step, head, query, key) by layer.
    """

    edit: AttentionEdit
    heads: dict[int, tuple[int, ...]]
    queries: Places
    keys: Places
    decodes: bool
    values: tuple[LayerValues, ...] | None = None

    @property
    def hides(self) -> bool:
        """Whether it only takes keys out of what rows see."""
        return isinstance(self.edit, Knockout) and self.edit.stage == "scores"


@dataclass(frozen=True, eq=False)
class StreamPatch:
    """What one `PatchResidual` changes: each sample's (step, position, hidden) by layer."""

    queries: Places
    decodes: bool
    values: tuple[LayerValues, ...]


@dataclass(frozen=True, eq=False)
class Request:
    """All reads and edits of a batch."""

    selections: tuple[Selection | StreamSelection, ...] = ()
    applied: tuple[Applied, ...] = ()
    patches: tuple[StreamPatch, ...] = ()

    def first_row(self, sample: int) -> int | None:
        """The earliest position that is read or edited in a sample, or None."""
        rows = [part.queries[sample] for part in (*self.selections, *self.applied, *self.patches)]
        return min((int(at[0]) for at in rows if len(at)), default=None)


def resolve(
    reads: Sequence[Read],
    edits: Sequence[Edit],
    tokens: Sequence[TokenMap],
    *,
    n_layers: int,
    n_heads: int,
    sight: Sight = Sight(),  # noqa: B008 - frozen
) -> Request:
    """The request of a batch.

    Raises:
        SiteError: A layer, head, group or position that is not there, or a read of nothing.
        EditError: Edits out of order, values that do not fit, or a row left without keys under "renormalise".
    """
    check_order(edits)
    selections = tuple(_selection(read, tokens, n_layers, n_heads) for read in reads)
    on_rows = [edit for edit in edits if isinstance(edit, AttentionEdit)]
    found = [_applied(edit, tokens, n_layers, n_heads, sight) for edit in on_rows]
    applied = tuple(
        a for a in found if not a.edit.idle and (a.decodes or any(len(rows) for rows in a.queries))
    )
    for sample, own in enumerate(tokens):
        _refuse_rows_without_keys([a for a in applied if a.hides], sample, own, sight)
    patches = tuple(_patch(edit, tokens, n_layers) for edit in edits if isinstance(edit, PatchResidual))
    return Request(selections, applied, patches)


def _places(selectors: Sequence[Selector], tokens: Sequence[TokenMap]) -> Places:
    if not selectors:
        return tuple(np.empty(0, np.int64) for _ in tokens)
    return tuple(select(selectors, sample, i, len(tokens)) for i, sample in enumerate(tokens))


def _selection(
    read: Read, tokens: Sequence[TokenMap], n_layers: int, n_heads: int
) -> Selection | StreamSelection:
    if not isinstance(read, Rows | Residual):
        raise SiteError(f"reads= takes reads such as interp.Rows(site); got {read!r}.")
    site = read.site
    groups = site.groups[0]
    if "answer" in groups and len(groups) > 1:
        raise SiteError(
            f'queries={groups!r} mixes rows of the prompt with those of generated tokens ("answer"), which come '
            "one at a time. Make it two reads."
        )
    queries = _places(() if groups == ("answer",) else groups, tokens)
    keys = _places(site.groups[1], tokens)
    decodes = groups in (("last",), ("answer",))
    named = [("keys", site.groups[1], keys)] if isinstance(read, Rows) else []
    for name, chosen, samples in [*named, *([] if groups == ("answer",) else [("queries", groups, queries)])]:
        for i, at in enumerate(samples):
            if not len(at):
                raise SiteError(
                    f"{name}={chosen!r} selects nothing in sample {i} of the batch, which has "
                    f"{tokens[i].length} tokens, {tokens[i].n} of them image tokens. A read needs at least "
                    "one."
                )
    heads = site.resolve(n_layers, n_heads)
    if isinstance(read, Residual):
        return StreamSelection(tuple(heads), queries, decodes)
    return Selection(heads, site.pairs, read.reduce == "head", queries, keys, decodes)


def _applied(
    edit: AttentionEdit, tokens: Sequence[TokenMap], n_layers: int, n_heads: int, sight: Sight
) -> Applied:
    heads = edit.site.resolve(n_layers, n_heads)
    keys = _places(edit.site.groups[1], tokens)
    rows = _places(edit.prefill_queries, tokens)
    decodes = edit.decodes and any(len(k) for k in keys)
    if isinstance(edit, PatchRows):
        read = _places(edit.site.groups[0], tokens)
        values = tuple(_row_values(edit, heads, sample, read, keys) for sample, _ in enumerate(tokens))
        return Applied(edit, heads, rows, keys, decodes, values)
    far = [sight.horizon(own) for own in tokens]
    seeing = tuple(
        q[last[q] >= k[0]] if len(k) else q[:0] for q, k, last in zip(rows, keys, far, strict=True)
    )
    return Applied(edit, heads, seeing, keys, decodes)


def _row_values(
    edit: PatchRows, heads: dict[int, tuple[int, ...]], sample: int, queries: Places, keys: Places
) -> LayerValues:
    """The values of one sample by layer, (step, head, query, key)."""
    given = edit.values.of_sample(sample, len(keys))
    given = given[None] if edit.steps == "prefill" else given
    pairs = edit.site.pairs
    n_heads = len(next(iter(heads.values())))
    rows = (len(queries[sample]), len(keys[sample]))
    wanted = (len(pairs), *rows) if pairs is not None else (len(heads), n_heads, *rows)
    if given.shape[1:] != wanted:
        dims = "(head, query, key)" if pairs is not None else "(layer, head, query, key)"
        raise EditError(
            f"in sample {sample} of the batch the site has {wanted}, {dims}; the values of PatchRows have "
            f"{given.shape[1:]}. Read them with Rows of the same site."
        )
    if pairs is None:
        return {layer: given[:, i] for i, layer in enumerate(heads)}
    return {layer: given[:, [pairs.index((layer, head)) for head in own]] for layer, own in heads.items()}


def _patch(edit: PatchResidual, tokens: Sequence[TokenMap], n_layers: int) -> StreamPatch:
    layers = tuple(edit.site.resolve(n_layers, 1))
    groups = edit.site.groups[0]
    queries = _places(groups, tokens)
    values = []
    for sample, at in enumerate(queries):
        given = edit.values.of_sample(sample, len(tokens))
        given = given[None] if edit.steps == "prefill" else given
        if given.shape[1:3] != (len(layers), len(at)):
            raise EditError(
                f"in sample {sample} of the batch PatchResidual names {len(layers)} layers and {len(at)} "
                f"positions; its values have {given.shape[1:3]}. Read them with Residual of the same layers "
                "and positions."
            )
        values.append({layer: given[:, i] for i, layer in enumerate(layers)})
    widths = {one[layer].shape[2] for one in values for layer in layers}
    if len(widths) > 1:
        raise EditError(
            f"every sample's values hold vectors of one size; got {sorted(widths)}. Read them from one model."
        )
    in_prompt = tuple(at if edit.steps != "decode" else at[:0] for at in queries)
    return StreamPatch(in_prompt, edit.steps != "prefill", tuple(values))


def _refuse_rows_without_keys(hidden: Sequence[Applied], sample: int, tokens: TokenMap, sight: Sight) -> None:
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
    hidden: Sequence[Applied], sample: int, tokens: TokenMap, sight: Sight, layer: int
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
