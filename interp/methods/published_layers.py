"""Layers that a method's source publishes, carried over to models of another depth."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from interp.errors import MethodError, SiteError
from interp.indicators.indicator_checks import MOST_LAYERS, check_whole
from interp.tracing import Mllm, Site

__all__ = ["chosen_layers", "editable_layers", "layer_indices", "scaled_layers"]


def scaled_layers(published: Sequence[int], *, depth: int, n_layers: int) -> tuple[int, ...]:
    """The layers of a model with `n_layers` at the same fractions of the depth as the published ones.

    A run of published layers [a, b) becomes [r(a), r(b)) with r(i) = i · n_layers / depth rounded to the nearest whole
    number, halves up, and has at least one layer. A single layer a becomes r(a). All layers lie within the model, and
    at the published depth they are the published ones.

    The rule is ours: no source says what to do at another depth. A study that reports a method on such a model should
    say so, or give the layers.

    Args:
        published: Consecutive layers, 0-based, increasing.
        depth: The number of decoder layers of the model they were published for.
        n_layers: The number of decoder layers of this model.

    Raises:
        MethodError: Layers that are not consecutive or not below `depth`, or `n_layers` below 1.

    >>> scaled_layers(range(2, 32), depth=32, n_layers=28)
    (2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21, 22, 23, 24, 25, 26, 27)
    >>> scaled_layers([16], depth=28, n_layers=6)
    (3,)
    """
    for name, value in (("depth", depth), ("n_layers", n_layers)):
        check_whole(f"{name}, a number of decoder layers,", value, 1, MethodError, most=MOST_LAYERS)
    try:
        found = layer_indices(published, "the published ones") or ()
    except MethodError:
        found = ()
    first, n = (found[0], len(found)) if found else (-1, 0)
    if first < 0 or found != tuple(range(first, first + n)) or first + n > depth:
        raise MethodError(
            f"published layers are consecutive and lie in 0 … {depth - 1}, the model they were published for; "
            f"got {published!r}."
        )
    start = min(_scaled(first, depth, n_layers), n_layers - 1)
    stop = start + 1 if n == 1 else max(_scaled(first + n, depth, n_layers), start + 1)
    return tuple(range(start, stop))


def chosen_layers(
    layers: Sequence[int] | None, published: Sequence[int], *, depth: int, n_layers: int
) -> tuple[int, ...]:
    """The layers a method edits: the given ones, else the published ones scaled to the model's depth."""
    given = layer_indices(layers, "the published ones")
    return scaled_layers(published, depth=depth, n_layers=n_layers) if given is None else given


def editable_layers(mllm: Mllm, layers: Sequence[int], given: Sequence[int] | None) -> tuple[int, ...]:
    """The layers that a method edits in this model: of the published layers, those with a softmax.

    In a hybrid model some layers are gated DeltaNets, which a method that edits attention skips. Where no published
    layer has a softmax, the nearest layer that has one is used, the later of two equally near ones. Layers that the
    caller gave stay as they are; those without a softmax are refused later.

    Args:
        mllm: The model.
        layers: The layers, from `chosen_layers`.
        given: The layers that the caller gave; None for the published ones.
    """
    able = mllm.attention_layers
    if given is not None or set(layers) <= set(able):
        return tuple(layers)
    found = tuple(layer for layer in layers if layer in able)
    return found or (min(able, key=lambda one: (abs(one - layers[0]), -one)),)


def _scaled(boundary: int, depth: int, n_layers: int) -> int:
    """The new place of a boundary between layers, rounded with halves up, in integer arithmetic."""
    return (2 * boundary * n_layers + depth) // (2 * depth)


def layer_indices(layers: Any, default: str) -> tuple[int, ...] | None:
    """The layers as a tuple without repeats, or None for the default.

    Raises:
        MethodError: Anything else; the message names the `default`.
    """
    if layers is None:
        return None
    try:
        found = Site(layers=layers).layers
    except SiteError as error:
        raise MethodError(f"{error} Leave layers= out for {default}.") from error
    if isinstance(found, str):
        raise MethodError(
            f"layers= takes a list of layers, as in layers=[16] or layers=range(2, 32), or None for {default}; "
            f"got {found!r}. For every layer write layers=range(mllm.n_layers)."
        )
    return tuple(found)
