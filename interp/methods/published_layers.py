"""Published layers on models of another depth: the one rule."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from numbers import Integral, Real
from typing import Any

from interp.errors import MethodError, SiteError
from interp.tracing import Site

__all__ = ["choice", "chosen_layers", "layer_indices", "n_tokens", "number", "scaled_layers"]


def number(
    value: Any,
    what: str,
    *,
    low: float = -math.inf,
    high: float = math.inf,
    open_low: bool = False,
) -> float:
    """The value as a float.

    Raises:
        MethodError: Not a finite number from `low` to `high`; above `low` when `open_low`.
    """
    real = float(value) if isinstance(value, Real) and not isinstance(value, bool) else math.nan
    if math.isfinite(real) and low <= real <= high and not (open_low and real == low):
        return real
    bounds = [f"{'above' if open_low else 'of at least'} {low:g}"] if low > -math.inf else []
    bounds += [f"at most {high:g}"] if high < math.inf else []
    wanted = " ".join(["a finite number", " and ".join(bounds)]).strip()
    raise MethodError(f"{what} is {wanted}; got {value!r}.")


def n_tokens(max_new_tokens: Any) -> int:
    """How many tokens to generate at most.

    Raises:
        MethodError: Not a whole number of at least 1.
    """
    if isinstance(max_new_tokens, bool) or not isinstance(max_new_tokens, Integral) or max_new_tokens < 1:
        raise MethodError(
            f"max_new_tokens is a whole number of at least 1, for an answer has a token; got {max_new_tokens!r}."
        )
    return int(max_new_tokens)


def choice(value: Any, what: str, names: Iterable[str]) -> None:
    """Raise `MethodError` unless the value is one of the names."""
    if value not in (known := tuple(names)):
        raise MethodError(f"{what} is {' or '.join(map(repr, known))}; got {value!r}.")


def layer_indices(layers: Any, default: str) -> tuple[int, ...] | None:
    """The layers as a tuple without repeats, or None for the default.

    Raises:
        MethodError: Anything else; the message says what `default` the None stands for.
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


def scaled_layers(published: Sequence[int], *, depth: int, n_layers: int) -> tuple[int, ...]:
    """The layers of a model with `n_layers` that lie where the published ones do in a model with `depth`.

    A layer is taken as its fraction of the depth. A run of published layers [a, b) becomes [r(a), r(b)) with
    r(i) = i · n_layers / depth rounded to the nearest whole number, halves up, and keeps one layer at least. A
    single layer a becomes r(a). Either way nothing lies beyond the last layer, and at the published depth the
    layers are the published ones.

    The rule is ours: no source says what to do at another depth. A study that reports a method on such a model
    should say so, or give the layers.

    Args:
        published: Consecutive layers, 0-based, increasing.
        depth: Decoder layers of the model they were published for.
        n_layers: Decoder layers of the model at hand.

    Raises:
        MethodError: Layers that are not consecutive or not below `depth`, or `n_layers` below 1.

    >>> scaled_layers(range(2, 32), depth=32, n_layers=28)
    (2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21, 22, 23, 24, 25, 26, 27)
    >>> scaled_layers([16], depth=28, n_layers=6)
    (3,)
    """
    first, n = (published[0], len(published)) if len(published) else (-1, 0)
    if first < 0 or list(published) != list(range(first, first + n)) or first + n > depth:
        raise MethodError(
            f"published layers are consecutive and lie in 0 … {depth - 1}, the model they were published for; "
            f"got {list(published)}."
        )
    if n_layers < 1:
        raise MethodError(f"a model has at least one decoder layer; got n_layers={n_layers}.")
    start = min(_scaled(first, depth, n_layers), n_layers - 1)
    stop = start + 1 if n == 1 else max(_scaled(first + n, depth, n_layers), start + 1)
    return tuple(range(start, stop))


def chosen_layers(
    layers: Sequence[int] | None, published: Sequence[int], *, depth: int, n_layers: int
) -> tuple[int, ...]:
    """The layers a method works at: those given, else the published ones scaled to the model's depth."""
    given = layer_indices(layers, "the published ones")
    return scaled_layers(published, depth=depth, n_layers=n_layers) if given is None else given


def _scaled(boundary: int, depth: int, n_layers: int) -> int:
    """Where a boundary between layers comes to lie: rounded, halves up, in whole numbers throughout."""
    return (2 * boundary * n_layers + depth) // (2 * depth)
