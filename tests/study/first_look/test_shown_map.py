"""Which layer's map is shown, and how the choice is put into words."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr

from interp.errors import MapError
from interp.indicators import Attention, AttributionPatching, indicator_named
from interp.inputs.footprints import squash
from interp.inputs.prompt import GENERIC_PROMPT
from interp.inputs.tokens import TokenMap
from interp.study.first_look.shown_map import ShownMap, concentration, shown_map

SPREAD, PEAK, INSIDE = [1.0, 1.0, 1.0, 1.0], [0.0, 0.0, 0.0, 9.0], [3.0, 1.0, 1.0, 1.0]
BOX = np.array([1.0, 0.0, 0.0, 0.0])


def tokens() -> TokenMap:
    found = squash((20, 20), (2, 2))
    return TokenMap(np.arange(4), found.boxes, (2, 2), found.views, found.image, ((20, 20),), 4)


def layers(*maps: list[float], first: int = 3) -> xr.DataArray:
    at = np.arange(first, first + len(maps))
    return xr.DataArray(np.array(maps), {"layer": at, "token": np.arange(4)}, dims=["layer", "token"])


def shown(
    array: xr.DataArray, layer: object = "auto", inside: np.ndarray | None = None, **of: object
) -> ShownMap:
    return shown_map("it", of.get("indicator", Attention()), array, tokens(), layer, inside)  # pyright: ignore


def test_concentration_is_one_minus_the_relative_entropy() -> None:
    found = concentration(np.array([SPREAD, PEAK, [1.0, 1.0, 0.0, 0.0], [0.0] * 4, [-5.0, 0.0, 2.0, 2.0]]))
    assert found.tolist() == pytest.approx([0.0, 1.0, 0.5, 0.0, 0.5])
    assert concentration(np.array([[7.0]])).tolist() == [0.0]


def test_without_boxes_the_most_concentrated_layer_is_shown() -> None:
    found = shown(layers(SPREAD, PEAK, INSIDE))
    assert found.layer == 4
    assert found.values.tolist() == PEAK
    assert found.rule == "Of 3 layers, layer 4 has the most concentrated map (lowest entropy)."


def test_boxes_choose_the_layer_with_most_weight_inside() -> None:
    found = shown(layers(SPREAD, PEAK, INSIDE), inside=BOX)
    assert found.layer == 5
    assert "Of 3 layers, layer 5 has the largest share of its weight inside the boxes" in found.rule
    assert "(highest attention ratio, 2.00; a uniform map has 1)" in found.rule
    assert "no evidence" in found.rule


def test_a_dim_token_in_the_box_does_not_decide() -> None:
    sharp, inside = [9.0, 0.001, 0.5, 0.5], np.array([1.0, 1.0, 0.0, 0.0])
    assert (
        shown(layers(SPREAD, sharp), inside=inside).layer == 4
    )  # the KL divergence from the box prefers layer 3


def test_boxes_that_no_map_can_be_compared_with_choose_nothing() -> None:
    assert shown(layers(SPREAD, PEAK), inside=np.ones(4)).layer == 4
    assert shown(layers(SPREAD, PEAK), inside=np.zeros(4)).layer == 4


def test_layers_that_add_up_are_added_unless_one_is_asked_for() -> None:
    found = shown(layers(SPREAD, INSIDE), indicator=AttributionPatching())
    assert (found.layer, found.values.tolist()) == (None, [4.0, 2.0, 2.0, 2.0])
    assert found.name == "it"
    assert shown(layers(SPREAD, INSIDE), 4, indicator=AttributionPatching()).values.tolist() == INSIDE


@pytest.mark.usefixtures("unchecked")
def test_a_layer_that_is_not_there_is_refused() -> None:
    with pytest.raises(MapError, match=r"a layer that 'it' gives, 3 … 4; got 9\."):
        shown(layers(SPREAD, PEAK), 9)
    with pytest.raises(MapError, match=r"got 'best'\."):
        shown(layers(SPREAD, PEAK), "best")
    with pytest.raises(MapError, match="Use per_head=False"):
        shown(layers(SPREAD, PEAK).expand_dims(head=2).transpose("layer", "head", "token"))


def test_shares_are_of_the_positive_part() -> None:
    found = shown(layers([-5.0, 0.0, 1.0, 3.0]))
    assert found.shares.tolist() == [0.0, 0.0, 0.25, 0.75]
    assert shown(layers([-1.0, 0.0, 0.0, 0.0])).shares.tolist() == [0.0] * 4


def test_a_relative_map_says_what_it_is_divided_by() -> None:
    found = shown(layers(PEAK), indicator=Attention(relative_to=GENERIC_PROMPT))
    assert found.about.startswith("Attention of the last prompt token")
    assert found.about.endswith("Divided, token by token, by the same under a generic prompt.")


@pytest.mark.parametrize("name", ["attention-gradient", "Attention × Gradient", "attention_gradient"])
def test_names_of_indicators_may_be_typed_in_many_ways(name: str) -> None:
    assert indicator_named(name)[0] == "attention × gradient"


def test_an_unknown_name_lists_those_there_are() -> None:
    with pytest.raises(
        MapError, match=r"relative-attention, attention, attention-gradient, .*; got 'attn'\."
    ):
        indicator_named("attn")
    with pytest.raises(MapError, match=r"got 'atention'\. Did you mean 'attention'\?"):
        indicator_named("atention")
