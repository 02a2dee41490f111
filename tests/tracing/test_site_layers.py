"""Layers, heads and positions that a site names, by hand: of several kinds of layers, and of one sample."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from interp.errors import SiteError
from interp.inputs.tokens import TokenMap, word
from interp.tracing import Site, image_mask, positions
from interp.tracing.site import ImageMask, kinds_of, select, select_each

LINEAR, CROSS = {1: 4, 3: 0}, (2,)
"""Of five layers with two heads: 1 is linear with four, 3 a short convolution, 2 is of the image."""


def of(site: Site) -> Any:
    return site.resolve(5, 2, LINEAR, "model", CROSS)


def test_kinds_of_layers() -> None:
    kinds = ("attention", "linear", "cross", "convolution", "attention")
    assert kinds_of(5, LINEAR, CROSS) == kinds
    assert kinds_of(2) == ("attention", "attention")


@pytest.mark.parametrize(
    ("site", "heads"),
    [
        (Site(), {0: (0, 1), 2: (0, 1), 4: (0, 1)}),
        (Site(heads=[1]), {0: (1,), 2: (1,), 4: (1,)}),
        (Site(layers="attention"), {0: (0, 1), 4: (0, 1)}),
        (Site(layers="cross"), {2: (0, 1)}),
        (Site(layers="linear"), {1: (0, 1, 2, 3)}),
        (Site(layers=[1], heads=[3]), {1: (3,)}),
        (Site(heads=[(1, 3)]), {1: (3,)}),
        (Site(heads=[(4, 1), (0, 0), (4, 0)]), {4: (1, 0), 0: (0,)}),
    ],
)
def test_heads_of_layers_of_several_kinds(site: Site, heads: dict[int, tuple[int, ...]]) -> None:
    found = of(site)
    assert found == heads
    assert list(found) == list(heads)


@pytest.mark.parametrize(
    ("site", "message"),
    [
        (Site(layers=[5]), r"the model has 5 layers, 0 … 4; got layer 5"),
        (Site(layers=[0], heads=[2]), r"the model has 2 heads, 0 … 1; got head 2"),
        (Site(layers=[1], heads=[4]), r"the model has 4 heads, 0 … 3; got head 4"),
        (Site(heads=[(5, 0)]), r"got layer 5"),
        (Site(heads=[(0, 2)]), r"got head 2"),
        (Site(layers=[0, 1]), r"layers of one kind; layers \[1\] of this model are linear"),
        (Site(heads=[(0, 0), (1, 0)]), r"layers of one kind; layers \[1\] of this model are linear"),
        (Site(layers=[0, 3]), r"layers \[3\] of this model are short convolutions"),
        (Site(heads=[(3, 0)]), r"layers \[3\] of this model are short convolutions"),
        (Site(layers="convolution"), r"layers \[3\] of this model are short convolutions"),
    ],
)
def test_layers_and_heads_that_have_no_rows_are_refused(site: Site, message: str) -> None:
    with pytest.raises(SiteError, match=message):
        of(site)


def test_a_kind_that_a_model_lacks_is_refused() -> None:
    with pytest.raises(SiteError, match="the model's 2 layers are of the kind 'attention' and 'cross'"):
        Site(layers="linear").resolve(2, 2, cross=[0])
    for site, got in (
        (Site(layers=[2]), "layers, 0 … 1; got layer 2"),
        (Site(heads=[(2, 0)]), "layers, 0 … 1; got layer 2"),
        (Site(heads=[(0, 2)]), "heads, 0 … 1; got head 2"),
        (Site(heads=[2]), "heads, 0 … 1; got head 2"),
    ):
        with pytest.raises(SiteError, match=f"the tower has 2 {got}"):
            site.resolve(2, 2, whose="tower")


@pytest.mark.parametrize(
    ("site", "layers"),
    [
        (Site(), (0, 1, 2, 3, 4)),
        (Site(layers="convolution"), (3,)),
        (Site(layers="attention"), (0, 4)),
        (Site(layers=[4, 1, 0]), (4, 1, 0)),
        (Site(heads=[(4, 1), (0, 0), (4, 0)]), (4, 0)),
        (Site(heads=[(1, 3)]), (1,)),
        (Site(heads=[(3, 7)]), (3,)),
    ],
)
def test_layers_of_the_residual_stream_are_of_all_kinds(site: Site, layers: tuple[int, ...]) -> None:
    assert site.stream_layers(5, LINEAR, CROSS) == layers


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"n_layers": -1}, "n_layers is an integer from 0 to 1,000,000; got -1"),
        ({"n_layers": True}, "n_layers is an integer .*got True"),
        ({"n_heads": 1_000_001}, "n_heads is an integer from 0 to 1,000,000; got 1000001"),
        ({"linear": [1]}, r"linear is a dict, layer → number of heads; got \[1\]"),
        ({"linear": {1: -1}}, "linear is a dict"),
        ({"linear": {-1: 1}}, "linear is a dict"),
        ({"cross": "12"}, "cross is a list of the cross-attention layers' numbers; got '12'"),
        ({"cross": 3}, "cross is a list"),
        ({"cross": [0, -1]}, "cross is a list"),
        ({"whose": 3}, "whose is a noun"),
    ],
)
def test_a_model_is_described_by_whole_numbers(given: dict[str, Any], message: str, unchecked: None) -> None:
    with pytest.raises(SiteError, match=message):
        Site().resolve(**{"n_layers": 3, "n_heads": 2, **given})


def prompt(spans: dict[str, Any] | None = None) -> TokenMap:
    """T I I T."""
    image, nan = np.array([1, 2]), np.full((2, 4), np.nan)
    return TokenMap(image, nan, None, np.full(2, ""), np.zeros(2, int), ((8, 8),), 4, spans=spans or {})


def test_positions_and_masks_must_fit_the_sample() -> None:
    assert select((positions([3, 0]),), prompt(), 0, 1).tolist() == [0, 3]
    with pytest.raises(SiteError, match=r"sample 1 .* has 4 .*positions run from 0 to 3; got 4"):
        select((positions([0, 4]),), prompt(), 1, 2)
    masks = image_mask([np.array([True, False]), np.array([False, True])])
    assert [one.tolist() for one in select_each((masks,), [prompt()] * 2)] == [[1], [2]]
    assert [one.tolist() for one in select_each((), [prompt()] * 2)] == [[], []]
    for n in (1, 3):
        with pytest.raises(SiteError, match=f"for each of the 2 .* of sample 0 .*got {n} value"):
            select((image_mask([True] * n),), prompt(), 0, 1)


@pytest.mark.parametrize("name", ["answer", "reasoning"])
def test_generated_tokens_are_of_the_prompt_only_where_put(name: str) -> None:
    with pytest.raises(SiteError, match=f"'{name}' is a group of tokens that the model generates"):
        select((name,), prompt(), 0, 1)
    assert select((name,), prompt({name: np.array([3])}), 0, 1).tolist() == [3]


def test_masks_of_some_samples() -> None:
    each = image_mask([np.array([True]), np.array([False, True]), np.array([False])])
    assert each.part([2, 1], 3) == ImageMask(((False,), (False, True)), True)
    common = image_mask([True, False])
    assert common.part([0], 9) is common
    common.check(9)
    with pytest.raises(SiteError, match="image_mask holds 3 masks for a batch of 2 samples"):
        each.part([0], 2)
    assert image_mask(torch.tensor([[1, 0], [0, 1]], dtype=torch.bool)) == image_mask(np.eye(2, dtype=bool))
    assert repr(image_mask([np.array([True, False])] * 4)) == f"ImageMask({', '.join(['1 of 2'] * 4)})"


@pytest.mark.parametrize(
    "given",
    [
        {"queries": "patches"},
        {"queries": "cls", "keys": "register"},
        {"queries": ("all", positions([3])), "keys": image_mask([True])},
    ],
)
def test_groups_of_patches_are_taken(given: dict[str, Any]) -> None:
    site = Site(tower="vision", **given)
    assert Site.from_dict(site.to_dict()) == site != Site(**given)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"tower": "vision"}, "queries='last' is a group of the prompt's tokens"),
        ({"tower": "vision", "queries": "all", "keys": "text"}, "keys='text' is a group"),
        ({"tower": "vision", "queries": ("cls", "question")}, "queries='question' is a group"),
        ({"tower": "vision", "queries": word("red")}, r"queries=Word\(.*is a group"),
        ({"tower": "text", "queries": "all"}, "tower is \"vision\", or None .*got 'text'"),
        ({"tower": True, "queries": "all"}, 'tower is "vision", or None .*got True'),
    ],
)
def test_groups_that_no_tower_has_are_refused(given: dict[str, Any], message: str, unchecked: None) -> None:
    with pytest.raises(SiteError, match=message):
        Site(**given)
