"""What indicators' arguments may be, checked in one place."""

from __future__ import annotations

from collections.abc import Sequence
from numbers import Real
from typing import Any, Literal

import numpy as np

from interp.errors import MapError
from interp.tracing import Mllm, Site

__all__ = ["check_bool", "check_number", "check_one_of", "check_whole", "layers_of", "site_layers"]


def check_bool(name: str, value: Any) -> None:
    """Raise `MapError` for anything but True or False."""
    if not isinstance(value, bool):
        raise MapError(f"{name} is True or False; got {value!r}.")


def check_one_of(name: str, value: Any, known: Sequence[str]) -> None:
    """Raise `MapError` for anything but one of these names."""
    if not isinstance(value, str) or value not in known:
        raise MapError(f"{name} is {' or '.join(map(repr, known))}; got {value!r}.")


def check_whole(name: str, value: Any, least: int) -> None:
    """Raise `MapError` for anything but a whole number, at least `least`."""
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise MapError(f"{name} is a whole number, at least {least}; got {value!r}.")


def check_number(name: str, value: Any, above: float) -> None:
    """Raise `MapError` for anything but a finite number above a bound."""
    if isinstance(value, bool) or not isinstance(value, Real) or not above < float(value) < np.inf:
        raise MapError(f"{name} is a finite number above {above:g}; got {value!r}.")


def site_layers(layers: Any) -> Literal["all"] | tuple[int, ...]:
    """The layers as a site has them: "all" or a tuple.

    Raises:
        SiteError: layers that are no indices.
    """
    found: Any = Site(layers=layers).layers
    return found


def layers_of(mllm: Mllm, layers: Literal["all"] | Sequence[int]) -> list[int]:
    """The layers in the order asked for.

    Raises:
        SiteError: layers the model does not have.
    """
    return list(Site(layers=layers).resolve(mllm.n_layers, mllm.n_heads))
