"""Which rows of an attention layer see a token: the layer is run again by itself with that token changed."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool
from torch import Tensor, nn

__all__ = ["Call", "calls", "felt"]

_MIXERS = ("self_attn", "linear_attn", "conv")
_FELT = 1e-4
"""A row felt a change if its output moved by more than this share of what the output of any row moved."""
_CHANGES = ((1, 3.0), (5, -3.0), (11, 8.0), (17, -8.0))
"""How a token is changed: its features are rolled by so many places and multiplied. Several, since one may give its key
a score so low that no row attends to it."""


@dataclass(frozen=True, eq=False)
class Call:
    """How a layer's attention was called in a pass of the whole model.

    Attributes:
        module: The attention, or what stands in its place.
        args: Positional arguments.
        named: Named arguments.
        positions: The position ids that the layer was given, if any.
        attention: Whether it is attention rather than a recurrence or a convolution.
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
    """Returns which rows before `place` give another output when the token there is changed.

    A layer that attends to another layer's keys and values (Gemma 4) is given those with the token's changed.
    """
    before = _output(call, None, (0, 0.0))
    found = np.zeros(place, bool)
    for change in _CHANGES:
        moved = (_output(call, place, change) - before).norm(dim=-1).cpu().numpy()
        found |= moved[:place] > _FELT * moved.max()
    return found


def _output(call: Call, place: int | None, change: tuple[int, float]) -> Tensor:
    """Returns (row, feature) what the attention puts out, a token changed if `place` says one."""

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
