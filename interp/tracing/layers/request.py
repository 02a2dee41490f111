"""What a batch's reads and edits cover, in the samples' own positions.

Knockouts that leave a row without a key are refused: a softmax has no value there.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import numpy as np
from jaxtyping import Float, Int
from torch import Tensor

from interp.errors import EditError
from interp.inputs.tokens import TokenMap
from interp.tracing.edits import AttentionEdit, Knockout
from interp.tracing.layers.visibility import Visibility
from interp.tracing.layers.vision_request import Tower, VisionEdit, VisionSelection
from interp.tracing.site import LayerKind

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
    "refuse_rows_without_image",
    "refuse_rows_without_keys",
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
                    f"would have every key hidden ({first} … {last}), and nothing is left to renormalise. "
                    'Leave it a key, or use Knockout(…, mode="zero"), which makes such a row zero.'
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
                        "have every key of the image hidden, class tokens too, and nothing is left to renormalise: a "
                        'cross-attention layer has no other keys. Use Knockout(…, mode="zero"), which makes such a row '
                        "zero, or leave it keys with image_mask."
                    )
