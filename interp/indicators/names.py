"""Indicators by name, with their default settings: for command lines and pages."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from interp.errors import MapError
from interp.indicators.attention import Attention, Rollout, ValueWeightedAttention
from interp.indicators.attention_gradient import AttentionGradient
from interp.indicators.baseline_maps import CentrePrior, RandomMap
from interp.indicators.input_gradients import InputGradient, IntegratedGradients, SmoothGrad
from interp.indicators.occlusion import Occlusion, RandomMasks
from interp.indicators.patching import AttributionPatching
from interp.indicators.token_removal import EmbeddingReplacement, TokenKnockout
from interp.indicators.vision_attention import VisionAttention
from interp.inputs.prompt import GENERIC_PROMPT
from interp.inputs.text import meant

__all__ = ["NAMED", "indicator_named", "is_named", "labelled"]

NAMED: dict[str, Callable[[], Any]] = {
    "relative attention": lambda: Attention(relative_to=GENERIC_PROMPT),
    "attention": Attention,
    "attention × gradient": AttentionGradient,
    "value-weighted attention": ValueWeightedAttention,
    "rollout": Rollout,
    "attribution patching": AttributionPatching,
    "input gradient": InputGradient,
    "SmoothGrad": SmoothGrad,
    "integrated gradients": IntegratedGradients,
    "token knockout": TokenKnockout,
    "embedding replacement": EmbeddingReplacement,
    "occlusion": Occlusion,
    "random masks": RandomMasks,
    "vision attention": VisionAttention,
    "centre prior": CentrePrior,
    "random map": RandomMap,
}
"""Name → makes the indicator with its default settings; "relative attention" is relative to `GENERIC_PROMPT`."""


def indicator_named(name: str) -> tuple[str, Any]:
    """The name as it is listed in `NAMED`, and the indicator.

    Case, spaces, hyphens and "×" do not matter: "attention-gradient" is "attention × gradient".

    Raises:
        MapError: No indicator has that name.

    >>> indicator_named("token-knockout")
    ('token knockout', TokenKnockout(layers='all', queries='after_image', batch=32))
    """
    if not isinstance(name, str) or not is_named(name):
        known = [re.sub(r"\W+", "-", one).lower() for one in NAMED]
        raise MapError(
            f"the indicators by name are {', '.join(known)}; got {name!r:.100}.{meant(name, known)}"
        )
    listed = next(one for one in NAMED if _key(one) == _key(name))
    return listed, NAMED[listed]()


def labelled(indicator: Any) -> tuple[str, Any]:
    """The label and the indicator, of an indicator or of the name of one.

    Raises:
        MapError: No indicator has that name.

    >>> labelled(Attention(relative_to=GENERIC_PROMPT))[0], labelled("occlusion")[0]
    ('relative attention', 'occlusion')
    """
    if isinstance(indicator, str):
        return indicator_named(indicator)
    if isinstance(indicator, Attention) and indicator.relative_to is not None:
        return "relative attention", indicator
    known = hasattr(indicator, "to_dict") and not isinstance(indicator, type)
    name = str((indicator.to_dict() if known else {}).get("indicator", type(indicator).__name__))
    return (indicator_named(name)[0] if is_named(name) else name), indicator


def is_named(name: str) -> bool:
    """Whether `indicator_named` knows the name."""
    return _key(name) in map(_key, NAMED)


def _key(name: str) -> str:
    return "".join(one for one in name.lower() if one.isalnum())
