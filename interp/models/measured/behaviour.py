"""What is observed of a model: the ids of its image tokens, what its rows attend to, where positions begin.

To find which rows of an attention layer see a token, the layer is run again by itself with that token changed.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
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

__all__ = ["Behaviour", "Call", "Felt", "attends_by", "calls", "felt", "observe"]


_SIZES = ((168, 140), (140, 196))
_MOST = 0.5
"""A rule holds if this share of the rows that see a token by the rule felt its change."""


@dataclass(frozen=True)
class Behaviour:
    """What was observed.

    Attributes:
        ids: Ids at positions where an image changes what enters the decoder. Where image tokens see later ones, the ids
            of tokens between them that do so too (column and start tokens) are included.
        attends: What a row of the prompt may attend to.
        first_position: The position id of a prompt's first token; 0 where layers get no position ids of a single axis.
        nested_images: Whether the processor takes the images of a prompt as a list of their own.
    """

    ids: tuple[int, ...]
    attends: Attends
    first_position: int
    nested_images: bool = True


@dataclass(frozen=True, eq=False)
class Felt:
    """Which rows of one attention layer felt a change of a later token.

    Attributes:
        of_last: Rows before the prompt's last token that felt a change of it.
        of_image: Rows before the last image token that felt a change of that.
        sliding: Whether the config says that the layer attends in a sliding window.
    """

    of_last: Bool[np.ndarray, " before_last"]
    of_image: Bool[np.ndarray, " before_image"]
    sliding: bool = False


def observe(embedder: Embedder, layers: Sequence[nn.Module]) -> Behaviour:
    """Returns the behaviour, from two pictures and from changing single tokens in front of each layer's attention.

    Args:
        embedder: The model with its processor and a prompt for one image or, where the model takes several, for two:
            with one, whether images see each other cannot be told.
        layers: The decoder layers.

    Raises:
        ModelError: Nothing that enters the decoder changes with the image, or rows attend in a way without a name.
    """
    n_images = embedder.n_images
    pictures = [[texture(size, seed + i) for i, size in enumerate(_SIZES[:n_images])] for seed in (1, 11)]
    one, other = embedder(pictures)
    moved = np.flatnonzero((one != other).any(axis=1))
    if not len(moved):
        raise ModelError(
            "the decoder's input does not change with the image, so there are no image tokens to measure: the prompt "
            "lost its image, or the image goes elsewhere (cross-attention, an encoder-decoder)."
        )
    ids = embedder.ids(pictures[0])
    known = np.unique(ids[moved])
    kinds = _kinds(embedder.model.config, len(layers))
    found = calls(layers, lambda: embedder.run(embedder.inputs(pictures[0])))
    seen = [
        Felt(felt(call, len(ids) - 1), felt(call, int(moved[-1])), kind == "sliding_attention")
        for call, kind in zip(found, kinds, strict=True)
        if call.attention
    ]
    if not any(one.of_last.any() for one in seen):
        known = np.union1d(known, _among(ids, np.isin(ids, known), seen))
    attends = attends_by(seen, np.isin(ids, known))
    return Behaviour(tuple(int(i) for i in known), attends, _first_position(found), embedder.nested)


def attends_by(layers: Sequence[Felt], image: Bool[np.ndarray, " position"]) -> Attends:
    """Returns the rule by which rows attend, from what each attention layer's rows felt.

    Args:
        layers: What the rows of each layer felt.
        image: Whether a position holds an image token.

    Raises:
        ModelError: They follow none of the rules of `interp.models.base.Attends`.
    """
    last = len(layers[0].of_image)
    places = np.flatnonzero(image[: last + 1])
    run = places[np.flatnonzero(np.diff(places, prepend=-2) > 1)[-1]]
    rows = np.arange(last)
    rules = {"image_blocks": rows >= run, "images": image[:last]}
    if all(_holds(one.of_last, np.ones(len(one.of_last), bool)) for one in layers):
        return "prefix"
    kinds = [_rule(one, rules) for one in layers]
    if set(kinds) == {"causal"}:
        return "causal"
    for rule in ("image_blocks", "images"):
        if all(rule in kind for kind in kinds):
            return rule  # pyright: ignore[reportReturnType]
    if all(
        "image_blocks" in kind if one.sliding else kind == "causal"
        for one, kind in zip(layers, kinds, strict=True)
    ):
        return "sliding_image_blocks"
    shown = "; ".join(
        f"layer {i}{' (sliding)' if one.sliding else ''}: {int(one.of_last.sum())} of {len(one.of_last)} and "
        f"{int(one.of_image.sum())} of {len(one.of_image)}"
        for i, one in enumerate(layers)
    )
    raise ModelError(
        "rows of this model see later tokens in a way that is none of causal, image_blocks, sliding_image_blocks, "
        "images and prefix. Earlier rows that changed with the prompt's last token and with the last image token, by "
        f"layer: {shown}; the last run of image tokens has {last - run + 1}, all {len(places)}. Traces would not know "
        "what a row may see; write an adapter (docs/new_model.md)."
    )


def _rule(one: Felt, rules: dict[str, Bool[np.ndarray, " row"]]) -> str:
    """Returns the names of the rules that a layer's rows follow, or "none"."""
    if one.of_last.any():
        return "none"
    if not one.of_image.any():
        return "causal"
    return " ".join(name for name, rows in rules.items() if _holds(one.of_image, rows)) or "none"


def _holds(felt_by: Bool[np.ndarray, " row"], rows: Bool[np.ndarray, " row"]) -> bool:
    """Whether no other rows felt a change, and most of these did: a row may attend to a token with a weight of 0."""
    return bool(not (felt_by & ~rows).any() and felt_by.sum() >= _MOST * max(rows.sum(), 1))


def _among(
    ids: Int[np.ndarray, " position"], image: Bool[np.ndarray, " position"], layers: Sequence[Felt]
) -> Int[np.ndarray, " id"]:
    """Returns the ids of tokens other than image tokens that, wherever they occur, see later image tokens."""
    seen = np.zeros(len(ids), bool)
    for one in layers:
        seen[: len(one.of_image)] |= one.of_image
    return np.array(
        [i for i in np.unique(ids[seen & ~image]) if not (_before(ids == i, image) & ~seen).any()], int
    )


def _before(
    of_id: Bool[np.ndarray, " position"], image: Bool[np.ndarray, " position"]
) -> Bool[np.ndarray, " position"]:
    """Returns the positions of an id that could have felt a change of the last image token: those before it."""
    out = of_id.copy()
    out[int(np.flatnonzero(image)[-1]) :] = False
    return out


def _kinds(config: Any, n_layers: int) -> Sequence[str]:
    """Returns the kind of each layer as the config says, "" where it does not."""
    kinds = getattr(config.get_text_config(), "layer_types", None)
    return [""] * n_layers if kinds is None or len(kinds) != n_layers else list(kinds)


def _first_position(found: Sequence[Call]) -> int:
    """Returns the smallest position id of a pass, where layers get positions of one axis; else 0."""
    told = found[0].positions
    return int(told.min()) if told is not None and told.ndim == 2 else 0


_MIXERS = ("self_attn", "linear_attn", "conv")
_FELT = 1e-4
"""A row felt a change if its output moved by more than this share of the largest movement of any row."""
_CHANGES = ((1, 3.0), (5, -3.0), (11, 8.0), (17, -8.0))
"""Changes of a token, each (places by which its features are rolled, factor). There are several, because one of them
may give the key a score so low that no row attends to it."""


@dataclass(frozen=True, eq=False)
class Call:
    """How a layer's attention was called in a pass of the whole model.

    Attributes:
        module: The attention, or what stands in its place.
        args: Positional arguments.
        named: Named arguments.
        positions: The position ids that the layer was given, if any.
        attention: Whether the module is attention, not a recurrence or a convolution.
    """

    module: nn.Module
    args: tuple[Any, ...]
    named: dict[str, Any]
    positions: Tensor | None
    attention: bool


def calls(layers: Sequence[nn.Module], run: Callable[[], object]) -> list[Call]:
    """Returns how `run` calls each layer's attention, in the layers' order.

    Args:
        layers: Decoder layers.
        run: Runs the model once.
    """
    names = [next((name for name in _MIXERS if hasattr(layer, name)), "") for layer in layers]
    modules = [getattr(layer, name) if name else layer for layer, name in zip(layers, names, strict=True)]
    given: dict[int, tuple[tuple[Any, ...], dict[str, Any]]] = {}
    told: dict[int, Tensor | None] = {}

    def keep(number: int) -> Callable[..., None]:
        def hook(_: nn.Module, args: tuple[Any, ...], named: dict[str, Any]) -> None:
            given.setdefault(number, (args, named))

        return hook

    def positions(number: int) -> Callable[..., None]:
        def hook(_: nn.Module, args: tuple[Any, ...], named: dict[str, Any]) -> None:
            told.setdefault(number, named.get("position_ids"))

        return hook

    handles = [
        handle
        for i, (layer, module) in enumerate(zip(layers, modules, strict=True))
        for handle in (
            layer.register_forward_pre_hook(positions(i), with_kwargs=True),
            module.register_forward_pre_hook(keep(i), with_kwargs=True),
        )
    ]
    try:
        with torch.no_grad():
            run()
    finally:
        for handle in handles:
            handle.remove()
    return [
        Call(modules[i], *given[i], told[i], names[i] not in ("linear_attn", "conv"))
        for i in range(len(layers))
    ]


def felt(call: Call, place: int) -> Bool[np.ndarray, " place"]:
    """Returns which rows before `place` give another output when the token at `place` is changed.

    A layer that attends to another layer's keys and values (Gemma 4) gets these with those of the token changed.
    """
    before = _output(call, None, (0, 0.0))
    found = np.zeros(place, bool)
    for change in _CHANGES:
        moved = (_output(call, place, change) - before).norm(dim=-1).cpu().numpy()
        found |= moved[:place] > _FELT * moved.max()
    return found


def _output(call: Call, place: int | None, change: tuple[int, float]) -> Tensor:
    """Returns the attention's output, (row, feature), with the token at `place` changed if there is a place."""

    def changed(value: Any) -> Any:
        if isinstance(value, Mapping):
            own: Any = copy.copy(value)
            for name, states in value.items():
                own[name] = tuple(_changed(one, place, change, axis=-2) for one in states)
            return own
        return value

    args, named = list(call.args), {name: changed(value) for name, value in call.named.items()}
    if args and isinstance(args[0], Tensor):
        args[0] = _changed(args[0], place, change, axis=1)
    else:
        named["hidden_states"] = _changed(named["hidden_states"], place, change, axis=1)
    with torch.no_grad():
        out = call.module(*args, **named)
    return (out if isinstance(out, Tensor) else out[0]).float()[0]


def _changed(states: Tensor, place: int | None, change: tuple[int, float], axis: int) -> Tensor:
    if place is None:
        return states
    roll, factor = change
    out = states.clone()
    one = out.select(axis, place)
    one.copy_(one.roll(roll, dims=-1) * factor)
    return out
