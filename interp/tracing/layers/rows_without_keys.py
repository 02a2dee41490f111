"""Refuses knockouts that leave a row without a key, for which a softmax has no value."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Int

from interp.errors import EditError
from interp.inputs.tokens import TokenMap
from interp.tracing.layers.visibility import Visibility

__all__ = ["Hidden", "refuse_rows_without_image", "refuse_rows_without_keys"]


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
