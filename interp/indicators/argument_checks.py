"""Checks of the arguments of indicators and methods; each error says what to give instead."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

from interp.inputs.argument_checks import check_bool, check_number, check_one_of, check_whole
from interp.tracing import Mllm, Site

__all__ = ["check_bool", "check_number", "check_one_of", "check_whole", "layers_of", "site_layers"]


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
