"""Checks of arguments; each error says what to give instead."""

from __future__ import annotations

import math
from collections.abc import Iterable
from numbers import Integral, Real
from typing import Any

from interp.errors import InterpError, MapError
from interp.inputs.text import meant, unstorable

__all__ = ["check_bool", "check_number", "check_one_of", "check_text", "check_whole"]

Error = type[InterpError]


def check_bool(name: str, value: Any, error: Error = MapError) -> None:
    """Raise `error` for anything but True or False."""
    if not isinstance(value, bool):
        raise error(f"{name} is True or False; got {value!r}.")


def check_one_of(name: str, value: Any, known: Iterable[str], error: Error = MapError) -> None:
    """Raise `error` for anything but one of these names."""
    names = tuple(known)
    if not isinstance(value, str) or value not in names:
        raise error(f"{name} is {' or '.join(map(repr, names))}; got {value!r}.{meant(value, names)}")


def check_text(name: str, text: str, error: Error = MapError) -> None:
    """Raise `error` for a text with characters that no tokenizer and no file takes; see `unstorable`."""
    problem = unstorable(text)
    if problem:
        raise error(
            f"{name} holds {problem}, which can be neither stored nor tokenised. Was it decoded with "
            "errors='surrogateescape'? Read it as UTF-8, or remove the character."
        )


def check_whole(
    name: str, value: Any, least: int, error: Error = MapError, *, most: int | None = None
) -> int:
    """The value as an int; raise `error` for anything but a whole number of at least `least`, and at most `most`."""
    bounds = least, math.inf if most is None else most
    if isinstance(value, bool) or not isinstance(value, Integral) or not bounds[0] <= int(value) <= bounds[1]:
        bound = "" if most is None else f" and at most {most}"
        raise error(f"{name} is a whole number of at least {least}{bound}; got {value!r}.")
    return int(value)


def check_number(
    name: str,
    value: Any,
    *,
    low: float = -math.inf,
    high: float = math.inf,
    open_low: bool = False,
    open_high: bool = False,
    error: Error = MapError,
) -> float:
    """The value as a float; raise `error` for anything but a finite number between the bounds.

    Args:
        name: How the error names the argument.
        value: What was given.
        low: The lower bound.
        high: The upper bound.
        open_low: The value must lie above `low`.
        open_high: The value must lie below `high`.
        error: The class of the error.
    """
    real = _float(value)
    above = real > low or (real == low and not open_low)
    below = real < high or (real == high and not open_high)
    if math.isfinite(real) and above and below:
        return real
    bounds = [f"{'above' if open_low else 'of at least'} {low:g}"] if low > -math.inf else []
    bounds += [f"{'below' if open_high else 'at most'} {high:g}"] if high < math.inf else []
    wanted = " ".join(["a finite number", " and ".join(bounds)]).strip()
    raise error(f"{name} is {wanted}; got {value!r}.")


def _float(value: Any) -> float:
    """The number; NaN for anything else, and for numbers that no float can hold."""
    if not isinstance(value, Real) or isinstance(value, bool):
        return math.nan
    try:
        return float(value)
    except OverflowError:
        return math.nan
