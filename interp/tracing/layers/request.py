"""What the reads and edits of a batch cover, in the samples' own positions.

`resolve` checks reads and edits against a batch and gives its `Request`. Knockouts that leave a row without a key are
refused, because a softmax has no value there.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import numpy as np
from jaxtyping import Float, Int
from torch import Tensor

from interp.errors import EditError, SiteError
from interp.inputs.text import count
from interp.inputs.tokens import TokenMap
from interp.tracing.activation_edits import AblateHeads, AddResidual, FeatureEdit, PatchResidual, PatchRows
from interp.tracing.edits import AttentionEdit, Edit, Knockout, check_order
from interp.tracing.layers.decoder_layers import Decoder
from interp.tracing.layers.visibility import Visibility
from interp.tracing.layers.vision_request import (
    Tower,
    VisionEdit,
    VisionSelection,
    vision_edits,
    vision_selection,
)
from interp.tracing.reads import MLP, Experts, Read, Residual, Rows, of_tower
from interp.tracing.site import GENERATED, LayerKind, Selector, Site, select_each

__all__ = [
    "Applied",
    "HeadAblation",
    "Hidden",
    "LayerValues",
    "Places",
    "Request",
    "Selection",
    "StreamChange",
    "StreamPatch",
    "StreamSelection",
    "ablation_of",
    "refuse_rows_without_image",
    "refuse_rows_without_keys",
    "resolve",
]


Places = tuple[Int[np.ndarray, " _"], ...]
"""One array of unpadded positions per sample."""

LayerValues = dict[int, Float[np.ndarray, "..."]]
"""Given values of each layer; the first axis is the step."""


@dataclass(frozen=True, eq=False)
class Selection:
    """What one `Rows` covers.

    Attributes:
        heads: the heads of each layer, both in the order of the site.
        pairs: the site's (layer, head) pairs, in order; None when heads were not given as pairs.
        reduce: whether heads are averaged.
        queries: each sample's rows in the prompt.
        keys: each sample's columns.
        decodes: whether each generated token has such a row too.
        kind: what the layers are; the columns of "cross" are those of the image's keys.
        stage: "reasoning" or "answer" where only generated tokens of that kind are meant.
    """

    heads: dict[int, tuple[int, ...]]
    pairs: tuple[tuple[int, int], ...] | None
    reduce: bool
    queries: Places
    keys: Places
    decodes: bool
    kind: LayerKind = "attention"
    stage: str | None = None


@dataclass(frozen=True, eq=False)
class StreamSelection:
    """What one `Residual`, `MLP` or `Experts` covers: layers in the order given, each sample's positions in the prompt.

    `name` is the array's: "residual", "mlp_input", "mlp_output" or "experts".
    """

    layers: tuple[int, ...]
    queries: Places
    decodes: bool
    name: str = "residual"
    stage: str | None = None


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
        kind: as of a `Selection`.
    """

    edit: AttentionEdit
    heads: dict[int, tuple[int, ...]]
    queries: Places
    keys: Places
    decodes: bool
    values: tuple[LayerValues, ...] | None = None
    kind: LayerKind = "attention"

    @property
    def hides(self) -> bool:
        """Whether it only takes keys out of what rows see."""
        return isinstance(self.edit, Knockout) and self.edit.stage == "scores"

    def hidden(self, sample: int, length: int | None = None) -> Hidden:
        """What it hides in a sample. With the prompt's length, its last row stands for those of generated tokens."""
        rows, last = self.queries[sample], [] if length is None or not self.decodes else [length - 1]
        return Hidden(
            self.heads, np.union1d(rows, last).astype(np.int64) if last else rows, self.keys[sample]
        )


@dataclass(frozen=True, eq=False)
class StreamPatch:
    """What one `PatchResidual` or `AddResidual` changes.

    Attributes:
        queries: each sample's positions in the prompt.
        decodes: whether each generated token is changed too.
        values: each sample's (step, position, hidden) by layer; of a sum, (hidden,).
        adds: whether the values are added to what is there, the same in every step.
    """

    queries: Places
    decodes: bool
    values: tuple[LayerValues, ...]
    adds: bool = False
    name: ClassVar[str] = "residual"

    @property
    def layers(self) -> tuple[int, ...]:
        """The layers after which it changes the stream."""
        return tuple(self.values[0])


@dataclass(frozen=True, eq=False)
class StreamChange:
    """What one edit through features changes: the stream after a layer, or what its MLP adds, as a function of itself.

    Attributes:
        queries: each sample's positions in the prompt.
        decodes: whether each generated token is changed too.
        layer: the layer.
        change: the new values of some positions, (cell, hidden), from theirs; at an MLP, from its input there too.
        n_hidden: how many values a position must have.
        name: "residual", or "mlp_output".
    """

    queries: Places
    decodes: bool
    layer: int
    change: Callable[..., Float[Tensor, "cell hidden"]]
    n_hidden: int
    name: str = "residual"

    @property
    def layers(self) -> tuple[int, ...]:
        """The only layer."""
        return (self.layer,)


@dataclass(frozen=True, eq=False)
class HeadAblation:
    """What one `AblateHeads` changes.

    Attributes:
        heads: the heads of each layer.
        queries: each sample's rows in the prompt.
        decodes: whether the row of each generated token is among its rows.
        values: (head, dim) by layer, of each sample or one for all; None for zeros.
    """

    heads: dict[int, tuple[int, ...]]
    queries: Places
    decodes: bool
    values: tuple[LayerValues, ...] | None = None


@dataclass(frozen=True, eq=False)
class Request:
    """All reads and edits of a batch. `n_cross`: keys of a cross-attention layer, the same in all its samples."""

    selections: tuple[Selection | StreamSelection | VisionSelection, ...] = ()
    applied: tuple[Applied, ...] = ()
    patches: tuple[StreamPatch | StreamChange, ...] = ()
    ablations: tuple[HeadAblation, ...] = ()
    vision_edits: tuple[VisionEdit, ...] = ()
    tower: Tower | None = None
    n_cross: int = 0

    def first_row(self, sample: int) -> int | None:
        """The earliest position read or edited in a sample, or None; 0 for the vision tower and DeltaNet layers."""
        linear = any(getattr(part, "kind", None) == "linear" for part in (*self.selections, *self.applied))
        if linear or self.tower is not None:
            return 0
        parts = (*self.selections, *self.applied, *self.patches, *self.ablations)
        rows = [part.queries[sample] for part in parts]
        return min((int(at[0]) for at in rows if len(at)), default=None)


class Hidden(NamedTuple):
    """What one knockout hides in a sample: the heads of each layer, the rows, and their keys."""

    heads: Mapping[int, tuple[int, ...]]
    rows: Int[np.ndarray, " row"]
    keys: Int[np.ndarray, " key"]


def refuse_rows_without_keys(
    hidden: Sequence[Hidden], sample: int, tokens: TokenMap, visibility: Visibility
) -> None:
    """Refuse a row of the prompt with every key it can see hidden. Rows always see themselves."""
    if not any(len(np.intersect1d(h.rows, g.keys)) for h in hidden for g in hidden):
        return
    checked = set()
    for layer in sorted({layer for h in hidden for layer in h.heads}):
        for head in sorted({head for h in hidden for head in h.heads.get(layer, ())}):
            here = tuple(i for i, h in enumerate(hidden) if head in h.heads.get(layer, ()))
            case = (here, visibility.limits[layer] if visibility.limits else None)
            if case in checked:
                continue
            checked.add(case)
            found = _row_without_keys([hidden[i] for i in here], tokens, visibility, layer)
            if found is not None:
                row, first, last = found
                raise EditError(
                    f"in sample {sample} of the batch, layer {layer}, head {head}, the row at position {row} "
                    f"would have every key hidden ({first} … {last}), and no key is left to get its weight. "
                    'Keep a key visible, or use Knockout(…, mode="zero"), which makes such a row zero.'
                )


def _row_without_keys(
    hidden: Sequence[Hidden], tokens: TokenMap, visibility: Visibility, layer: int
) -> tuple[int, int, int] | None:
    """The first such row, and the first and last key it sees."""
    for row in np.unique(np.concatenate([h.rows for h in hidden])):
        keys = np.concatenate([h.keys for h in hidden if row in h.rows])
        if row not in keys:
            continue
        seen = visibility.seen(tokens, int(row), layer)
        if np.isin(seen, keys).all():
            return int(row), int(seen[0]), int(seen[-1])
    return None


def refuse_rows_without_image(hidden: Sequence[Hidden], sample: int, tokens: TokenMap) -> None:
    """Refuse a row of cross-attention layers, of the prompt or generated, with every key it can see hidden."""
    if tokens.cross is None or not hidden:
        return
    for layer in sorted({layer for one in hidden for layer in one.heads}):
        for head in sorted({head for one in hidden for head in one.heads.get(layer, ())}):
            here = [i for i, one in enumerate(hidden) if head in one.heads.get(layer, ())]
            for row in np.unique(np.concatenate([hidden[i].rows for i in here])):
                keys = np.concatenate([hidden[i].keys for i in here if row in hidden[i].rows])
                if np.isin(tokens.cross.seen(int(row)), keys).all():
                    raise EditError(
                        f"in sample {sample} of the batch, layer {layer}, head {head}, the row at position {row} would "
                        "have every key of the image hidden, class tokens too, and no key is left to get its weight: a "
                        'cross-attention layer has no other keys. Use Knockout(…, mode="zero"), which makes such a row '
                        "zero, or keep some keys visible with image_mask."
                    )


def resolve(
    reads: Sequence[Read],
    edits: Sequence[Edit],
    tokens: Sequence[TokenMap],
    *,
    n_layers: int,
    n_heads: int,
    linear: Mapping[int, int] | None = None,
    visibility: Visibility = Visibility(),  # noqa: B008 - frozen
    routed: Collection[int] = (),
    tower: Tower | None = None,
    cross: Collection[int] = (),
) -> Request:
    """The request of a batch. `tower`: the vision tower, if a read or edit is of it.

    `routed` are the layers with experts; `linear` the gated DeltaNet layers, and how many heads each has; `cross` the
    cross-attention layers.

    Raises:
        SiteError: A layer, head, group or position that is not there, or a read of nothing.
        EditError: Edits out of order or of no use in a layer, misfit values, or a row left without keys.
    """
    seen = () if tower is None else vision_edits([edit for edit in edits if of_tower(edit)], tower)
    edits = [edit for edit in edits if not of_tower(edit)] if tower is not None else edits
    check_order(edits)
    decoder = Decoder(n_layers, n_heads, linear or {}, cross)
    selections = tuple(
        vision_selection(one, tower) if tower and of_tower(one) else _selection(one, tokens, decoder, routed)
        for one in reads
    )
    on_rows = [edit for edit in edits if isinstance(edit, AttentionEdit)]
    found = [_applied(edit, tokens, decoder, visibility) for edit in on_rows]
    applied = tuple(
        a for a in found if not a.edit.idle and (a.decodes or any(len(rows) for rows in a.queries))
    )
    for sample, own in enumerate(tokens):
        hidden = {kind: [a for a in applied if a.hides and a.kind == kind] for kind in ("attention", "cross")}
        refuse_rows_without_keys([a.hidden(sample) for a in hidden["attention"]], sample, own, visibility)
        refuse_rows_without_image([a.hidden(sample, own.length) for a in hidden["cross"]], sample, own)
    patches = tuple(
        _stream_edit(edit, tokens, decoder)
        for edit in edits
        if isinstance(edit, PatchResidual | FeatureEdit) or (isinstance(edit, AddResidual) and not edit.idle)
    )
    ablations = tuple(ablation_of(edit, tokens, decoder) for edit in edits if isinstance(edit, AblateHeads))
    n_cross = max((own.cross.n for own in tokens if own.cross is not None), default=0)
    return Request(selections, applied, patches, ablations, seen, tower, n_cross)


def _selection(
    read: Read, tokens: Sequence[TokenMap], decoder: Decoder, routed: Collection[int]
) -> Selection | StreamSelection:
    if not isinstance(read, Rows | Residual | MLP | Experts):
        write = f" Write reads=[interp.Rows({read!r})]." if isinstance(read, Site) else ""
        raise SiteError(f"reads= takes reads such as interp.Rows(site); got {read!r:.300}.{write}")
    site = read.site
    groups = site.groups[0]
    generated = [one for one in groups if one in GENERATED and not _is_of_prompt(one, tokens)]
    if generated and len(groups) > 1:
        raise SiteError(
            'one read takes rows of the prompt, or rows of "answer", or rows of "reasoning"; got '
            f"queries={groups!r}. Make a read for each."
        )
    stage = str(generated[0]) if generated else None
    heads, kind = decoder.rows(site) if isinstance(read, Rows) else ({}, "attention")
    queries = select_each(() if stage else groups, tokens)
    keys = select_each(site.groups[1], tokens)
    decodes = groups == ("last",) or stage is not None
    named = [("keys", site.groups[1], keys)] if isinstance(read, Rows) else []
    for name, chosen, samples in [*named, *([] if stage else [("queries", groups, queries)])]:
        for i, at in enumerate(samples):
            if not len(at):
                raise SiteError(
                    f"{name}={chosen!r} selects nothing in sample {i} of the batch, which has "
                    f"{tokens[i].length} tokens, {tokens[i].n} of them image tokens. A read needs at least "
                    "one."
                )
    if isinstance(read, Experts):
        return StreamSelection(read.layers_of(routed), queries, decodes, "experts", stage)
    if isinstance(read, Residual):
        return StreamSelection(decoder.stream(site), queries, decodes, stage=stage)
    if isinstance(read, MLP):
        return StreamSelection(decoder.stream(site), queries, decodes, f"mlp_{read.side}", stage)
    return Selection(heads, site.pairs, read.reduce == "head", queries, keys, decodes, kind, stage)


def _is_of_prompt(group: Selector, tokens: Sequence[TokenMap]) -> bool:
    """Whether a group of generated tokens stands in the prompts instead, because it was put there."""
    return all(group in one.spans for one in tokens)


def _applied(
    edit: AttentionEdit, tokens: Sequence[TokenMap], decoder: Decoder, visibility: Visibility
) -> Applied:
    heads, kind = decoder.edited(edit)
    keys = select_each(edit.site.groups[1], tokens)
    put = [q for q in edit.site.groups[0] if q in GENERATED and _is_of_prompt(q, tokens)]
    rows = select_each((*edit.prefill_queries, *([] if edit.steps == "decode" else put)), tokens)
    decodes = edit.decodes and any(len(k) for k in keys)
    if isinstance(edit, PatchRows):
        read = select_each(edit.site.groups[0], tokens)
        values = tuple(_row_values(edit, heads, sample, read, keys) for sample, _ in enumerate(tokens))
        return Applied(edit, heads, rows, keys, decodes, values, kind)
    if kind == "cross":
        with_keys = tuple(q if len(k) else q[:0] for q, k in zip(rows, keys, strict=True))
        return Applied(edit, heads, with_keys, keys, decodes, kind=kind)
    far = [visibility.horizon(own) for own in tokens]
    able = tuple(q[last[q] >= k[0]] if len(k) else q[:0] for q, k, last in zip(rows, keys, far, strict=True))
    return Applied(edit, heads, able, keys, decodes, kind=kind)


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


def _stream_edit(
    edit: PatchResidual | AddResidual | FeatureEdit, tokens: Sequence[TokenMap], decoder: Decoder
) -> StreamPatch | StreamChange:
    if isinstance(edit, PatchResidual):
        return _patch(edit, tokens, decoder)
    if isinstance(edit, AddResidual):
        return _added(edit, tokens, decoder)
    (layer,) = decoder.stream(edit.site)
    name = "mlp_output" if edit.features.site == "mlp" else "residual"
    decodes, n_hidden = edit.steps != "prefill", edit.features.n_hidden
    return StreamChange(_in_prompt(edit, tokens), decodes, layer, edit.on, n_hidden, name)


def _in_prompt(edit: AddResidual | FeatureEdit, tokens: Sequence[TokenMap]) -> Places:
    """The positions of the prompt that are changed."""
    queries = select_each(edit.site.groups[0], tokens)
    return tuple(at if edit.steps != "decode" else at[:0] for at in queries)


def _patch(edit: PatchResidual, tokens: Sequence[TokenMap], decoder: Decoder) -> StreamPatch:
    layers = decoder.stream(edit.site)
    groups = edit.site.groups[0]
    queries = select_each(groups, tokens)
    values = []
    for sample, at in enumerate(queries):
        given = edit.values.of_sample(sample, len(tokens))
        given = given[None] if edit.steps == "prefill" else given
        if given.shape[1:3] != (len(layers), len(at)):
            raise EditError(
                f"in sample {sample} of the batch PatchResidual names {count(len(layers), 'layer')} and "
                f"{count(len(at), 'position')}; its values have {given.shape[1:3]}. Read them with Residual of the "
                "same layers and positions."
            )
        values.append({layer: given[:, i] for i, layer in enumerate(layers)})
    widths = {one[layer].shape[2] for one in values for layer in layers}
    if len(widths) > 1:
        raise EditError(
            f"the vectors of all samples must have one size; got {sorted(widths)}. Read them from one model."
        )
    in_prompt = tuple(at if edit.steps != "decode" else at[:0] for at in queries)
    return StreamPatch(in_prompt, edit.steps != "prefill", tuple(values))


def _added(edit: AddResidual, tokens: Sequence[TokenMap], decoder: Decoder) -> StreamPatch:
    layers = decoder.stream(edit.site)
    values = []
    for sample in range(len(tokens)):
        given = edit.vector.of_sample(sample, len(tokens))
        if len(given) not in (1, len(layers)):
            raise EditError(
                f"AddResidual names {count(len(layers), 'layer')}; its vector has shape {given.shape}. Give one "
                "vector, (hidden,), or one for each layer, (layer, hidden)."
            )
        values.append({layer: edit.alpha * given[i % len(given)] for i, layer in enumerate(layers)})
    return StreamPatch(_in_prompt(edit, tokens), edit.steps != "prefill", tuple(values), adds=True)


def ablation_of(edit: AblateHeads, tokens: Sequence[TokenMap], decoder: Decoder) -> HeadAblation:
    """What an edit ablates in a batch, in the samples' own positions.

    Raises:
        SiteError: A layer, head or position that is not there, or layers without a softmax.
        EditError: Means of another shape than the site's heads.
    """
    heads = decoder.softmax(edit.site, "AblateHeads")
    n = len(tokens)
    rows = select_each(edit.site.groups[0], tokens)
    values = None
    if edit.means is not None:
        values = tuple(_means(edit, heads, i, n) for i in range(n if edit.means.per_sample else 1))
    in_prompt = tuple(at if edit.steps != "decode" else at[:0] for at in rows)
    return HeadAblation(heads, in_prompt, edit.steps != "prefill", values)


def _means(edit: AblateHeads, heads: dict[int, tuple[int, ...]], sample: int, n_samples: int) -> LayerValues:
    """The means of one sample by layer, (head, dim)."""
    given, pairs = edit.means.of_sample(sample, n_samples), edit.site.pairs
    wanted = (len(pairs),) if pairs is not None else (len(heads), len(next(iter(heads.values()))))
    if given.shape[:-1] != wanted:
        dims = "(head, dim)" if pairs is not None else "(layer, head, dim)"
        raise EditError(
            f"the means of AblateHeads are {dims}, with shape {wanted} before dim for its site; got shape "
            f"{given.shape}. Get them with interp.head_means(mllm, samples, site)."
        )
    if pairs is None:
        return {layer: given[i] for i, layer in enumerate(heads)}
    return {layer: given[[pairs.index((layer, head)) for head in own]] for layer, own in heads.items()}
