"""What a model shows of itself: which ids its image tokens have, what its rows attend to, where positions begin."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Int
from torch import Tensor, nn

from interp.errors import ModelError
from interp.models.base import Attends
from interp.models.measured.embedder import Embedder
from interp.models.measured.patterns import texture

__all__ = ["Behaviour", "observe"]

_SIZE = (168, 140)
_FELT = 1e-3
"""A row was changed if it differs by more than this share of the largest change of any row."""


@dataclass(frozen=True)
class Behaviour:
    """What was observed.

    Attributes:
        ids: Ids at positions where an image changes what enters the decoder.
        attends: What a row of the prompt may attend to.
        first_position: The position id of a prompt's first token; 0 where layers are not told positions of one axis.
    """

    ids: tuple[int, ...]
    attends: Attends
    first_position: int


@dataclass(frozen=True, eq=False)
class _Seen:
    """What one pass showed: what left the last layer, and the position ids that entered the first."""

    leaving: Tensor
    positions: Tensor | None


def observe(embedder: Embedder, last: nn.Module) -> Behaviour:
    """Returns the behaviour, from two pictures and from changing single tokens' embeddings.

    Args:
        embedder: The model with its processor and a prompt for one image.
        last: The last decoder layer.

    Raises:
        ModelError: Nothing that enters the decoder changes with the image, or rows attend in a way without a name.
    """
    pictures = [[texture(_SIZE, seed)] for seed in (1, 2)]
    one, other = embedder(pictures)
    moved = np.flatnonzero((one != other).any(axis=1))
    if not len(moved):
        raise ModelError(
            "nothing that enters the decoder changes with an image, so that there are no image tokens to measure: the "
            "prompt lost its image, or the image goes elsewhere (cross-attention, an encoder-decoder)."
        )
    ids = embedder.ids(pictures[0])
    inputs = embedder.inputs(pictures[0])
    known = tuple(int(i) for i in np.unique(ids[moved]))
    before = _passed(embedder, inputs, last)
    of_last, of_image = (
        _felt(before, _passed(embedder, inputs, last, place)) for place in (len(ids) - 1, int(moved[-1]))
    )
    first = before.positions
    start = int(first.min()) if first is not None and first.ndim == 2 else 0
    return Behaviour(known, _attends(of_last, of_image, np.flatnonzero(np.isin(ids, known))), start)


def _attends(
    of_last: Bool[np.ndarray, " before_last"],
    of_image: Bool[np.ndarray, " before_image"],
    image: Int[np.ndarray, " token"],
) -> Attends:
    """Returns what rows attend to, by which earlier rows felt a change of the last token and of the last image's."""
    if of_last.all():
        return "prefix"
    block = np.zeros(len(of_image), bool)
    end = image[image < len(block)]
    run = np.flatnonzero(np.diff(image, prepend=-2) > 1)[-1]
    block[end[end >= image[run]]] = True
    if not of_last.any() and not of_image.any():
        return "causal"
    if not of_last.any() and (of_image == block).all():
        return "image_blocks"
    raise ModelError(
        "rows of this model see later tokens in a way that is none of causal, image_blocks and prefix: a change of "
        f"the last token was felt by {int(of_last.sum())} of {len(of_last)} earlier rows, a change of the last image "
        f"token by {int(of_image.sum())} of {len(of_image)} (its own run of image tokens has {int(block.sum())}). "
        "Traces would not know what a row may see; write an adapter (docs/new_model.md)."
    )


def _felt(before: _Seen, after: _Seen) -> Bool[np.ndarray, " position"]:
    """Returns which rows before the changed one, the first of the largest change, differ."""
    change = (after.leaving - before.leaving).norm(dim=-1).cpu().numpy()
    changed = int(after.positions) if after.positions is not None and after.positions.ndim == 0 else 0
    return change[:changed] > _FELT * change.max()


def _passed(
    embedder: Embedder, inputs: dict[str, Tensor], last: nn.Module, place: int | None = None
) -> _Seen:
    """Runs the whole model, the embedding at `place` changed; `positions` of the result is then the place."""
    left, told = [], []

    def change(_: nn.Module, given: tuple[Any, ...], named: dict[str, Any]) -> Any:
        told.append(named.get("position_ids"))
        if place is None:
            return None
        entering = (given[0] if given else named["hidden_states"]).clone()
        entering[:, place] = entering[:, place].roll(1, dims=-1) * 1.5
        return ((entering, *given[1:]), named) if given else (given, {**named, "hidden_states": entering})

    def keep(_: nn.Module, given: Any, out: Any) -> None:
        left.append((out if isinstance(out, Tensor) else out[0]).float()[0])

    handles = [
        embedder.first.register_forward_pre_hook(change, with_kwargs=True),
        last.register_forward_hook(keep),
    ]
    try:
        with torch.no_grad():
            embedder.run(inputs)
    finally:
        for handle in handles:
            handle.remove()
    return _Seen(left[0], told[0] if place is None else torch.tensor(place))
