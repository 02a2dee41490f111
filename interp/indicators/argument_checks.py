"""Checks of the arguments of indicators and methods; each error says what to give instead."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from numbers import Real
from typing import Any, Literal

from interp.errors import InterpError, MapError, ModelError, PromptError
from interp.inputs.prompt import Prompt, Target
from interp.tracing import Mllm, Site

__all__ = [
    "MOST_LAYERS",
    "check_bool",
    "check_call",
    "check_number",
    "check_one_of",
    "check_whole",
    "layers_of",
    "site_layers",
]

Error = type[InterpError]

MOST_LAYERS = 10_000
"""More layers than any model has."""


def check_bool(name: str, value: Any, error: Error = MapError) -> None:
    """Raise `error` for anything but True or False."""
    if not isinstance(value, bool):
        raise error(f"{name} is True or False; got {value!r}.")


def check_call(mllm: Any, prompt: Any = None, target: Any = Target()) -> None:  # noqa: B008 - frozen
    """Raise for what an indicator or a method is called with, where it is no model, prompt or target.

    Raises:
        ModelError: Nothing that encodes samples, as an `Mllm` does.
        PromptError: Neither a `Prompt` nor None, or not a `Target`.
    """
    if not (hasattr(mllm, "encode") and hasattr(mllm, "family")):
        raise ModelError(
            f"expected a model first, as interp.load(…) or interp.wrap(…) give it; got {type(mllm).__name__}."
        )
    if prompt is not None and not isinstance(prompt, Prompt):
        raise PromptError(
            f"prompt is an interp.Prompt; got {prompt!r}. Write interp.Prompt(template=…), or leave it out."
        )
    if not isinstance(target, Target):
        raise PromptError(
            f'target is an interp.Target; got {target!r}. Write interp.Target("an answer"), or leave it out.'
        )


def check_one_of(name: str, value: Any, known: Iterable[str], error: Error = MapError) -> None:
    """Raise `error` for anything but one of these names."""
    names = tuple(known)
    if not isinstance(value, str) or value not in names:
        raise error(f"{name} is {' or '.join(map(repr, names))}; got {value!r}.")


def check_whole(
    name: str, value: Any, least: int, error: Error = MapError, *, most: int | None = None
) -> int:
    """The value; raise `error` for anything but an int of at least `least`, and at most `most`."""
    above = most is not None and isinstance(value, int) and value > most
    if isinstance(value, bool) or not isinstance(value, int) or value < least or above:
        bound = "" if most is None else f" and at most {most}"
        raise error(f"{name} is a whole number of at least {least}{bound}; got {value!r}.")
    return value


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
    real = float(value) if isinstance(value, Real) and not isinstance(value, bool) else math.nan
    above = real > low or (real == low and not open_low)
    below = real < high or (real == high and not open_high)
    if math.isfinite(real) and above and below:
        return real
    bounds = [f"{'above' if open_low else 'of at least'} {low:g}"] if low > -math.inf else []
    bounds += [f"{'below' if open_high else 'at most'} {high:g}"] if high < math.inf else []
    wanted = " ".join(["a finite number", " and ".join(bounds)]).strip()
    raise error(f"{name} is {wanted}; got {value!r}.")


def site_layers(layers: Any) -> Literal["all"] | tuple[int, ...]:
    """The layers as a `Site` holds them: "all" or a tuple.

    Raises:
        SiteError: Layers that are not indices.
    """
    found: Any = Site(layers=layers).layers
    return found


def layers_of(mllm: Mllm, layers: Literal["all"] | Sequence[int]) -> list[int]:
    """The layers of this model, in the order given.

    Raises:
        SiteError: Layers that the model does not have.
    """
    return list(Site(layers=layers).resolve(mllm.n_layers, mllm.n_heads))
