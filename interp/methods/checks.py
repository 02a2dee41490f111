"""Checks of methods' parameters, each with an error that says what to give instead."""

from __future__ import annotations

import math
from collections.abc import Iterable
from numbers import Integral, Real
from typing import Any

from interp.errors import MethodError, SiteError
from interp.tracing import Site

__all__ = ["choice", "layer_indices", "n_tokens", "number"]


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
