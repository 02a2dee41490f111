"""Indicators by name: what each name makes, however it is written."""

from __future__ import annotations

import pytest

from interp.errors import MapError
from interp.indicators import (
    Attention,
    AttentionGradient,
    AttributionPatching,
    CentrePrior,
    EmbeddingReplacement,
    InputGradient,
    IntegratedGradients,
    Occlusion,
    RandomMap,
    RandomMasks,
    Rollout,
    SmoothGrad,
    TokenKnockout,
    ValueWeightedAttention,
    VisionAttention,
)
from interp.indicators.names import NAMED, indicator_named, labelled
from interp.inputs.prompt import GENERIC_PROMPT, PAPER_PROMPT

MADE = {
    "relative attention": Attention(GENERIC_PROMPT),
    "attention": Attention(),
    "attention × gradient": AttentionGradient(),
    "value-weighted attention": ValueWeightedAttention(),
    "rollout": Rollout(),
    "attribution patching": AttributionPatching(),
    "input gradient": InputGradient(),
    "SmoothGrad": SmoothGrad(),
    "integrated gradients": IntegratedGradients(),
    "token knockout": TokenKnockout(),
    "embedding replacement": EmbeddingReplacement(),
    "occlusion": Occlusion(),
    "random masks": RandomMasks(),
    "vision attention": VisionAttention(),
    "centre prior": CentrePrior(),
    "random map": RandomMap(),
}


def test_each_name_makes_its_indicator_with_default_settings() -> None:
    assert {name: indicator_named(name) for name in NAMED} == {
        name: (name, one) for name, one in MADE.items()
    }
    assert indicator_named("VALUE weighted-Attention") == (
        "value-weighted attention",
        ValueWeightedAttention(),
    )


def test_an_indicator_is_labelled_by_its_name() -> None:
    assert labelled("smoothgrad") == ("SmoothGrad", SmoothGrad())
    for name, made in MADE.items():
        if name != "random map":
            assert labelled(made) == (name, made)
    assert labelled(Attention(PAPER_PROMPT, layers=[1]))[0] == "relative attention"


@pytest.mark.usefixtures("unchecked")
def test_other_names_are_refused() -> None:
    for wrong in ("attentions", "", 3):
        with pytest.raises(MapError, match="the indicators by name are relative-attention, attention, att"):
            indicator_named(wrong)  # pyright: ignore[reportArgumentType]


def test_others_are_labelled_by_what_they_say_or_are() -> None:
    class Own:
        def to_dict(self) -> dict[str, str]:
            return {"indicator": "my map"}

    class Silent: ...

    for made, label in ((Own(), "my map"), (Silent(), "Silent"), (Own, "type")):
        assert labelled(made) == (label, made)
