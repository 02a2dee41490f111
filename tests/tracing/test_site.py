"""Sites and selectors as values."""

from __future__ import annotations

import json
import pickle
import re
from dataclasses import replace

import numpy as np
import pytest

import interp
from interp.errors import SiteError
from interp.inputs.tokens import TokenMap, word
from interp.tracing import Knockout, Rows, Site, image_mask, positions
from interp.tracing.site import select

SITES = [
    Site(),
    Site(layers=[14, 15], heads=[3], queries="after_image", keys=("image", "last")),
    Site(heads=[(15, 4), (16, 5)], keys=positions([3, 1])),
    Site(queries=word("nodule"), keys=image_mask([True, False, True])),
    Site(keys=image_mask([np.array([True, False]), np.array([False])])),
]


@pytest.mark.parametrize("site", SITES)
def test_a_site_is_a_value(site):
    assert Site.from_dict(json.loads(json.dumps(site.to_dict()))) == site
    assert hash(Site.from_dict(site.to_dict())) == hash(site)
    assert pickle.loads(pickle.dumps(site)) == site
    assert len({*SITES, site}) == len(SITES)


def test_values_are_stored_as_tuples(unchecked):
    site = Site(layers=range(2, 4), heads=np.array([1, 0, 1]), queries=["last", "question"], keys="image")
    assert (site.layers, site.heads) == ((2, 3), (1, 0))
    assert site.groups == (("last", "question"), ("image",))
    assert Site(heads=[[1, 2], (0, 3), (1, 2)]).pairs == ((1, 2), (0, 3))
    assert positions(np.array([5, 2, 5])) == positions([2, 5])


def test_heads_by_layer():
    assert Site(layers=[1, 0], heads=[2]).resolve(2, 4) == {1: (2,), 0: (2,)}
    assert Site().resolve(2, 3) == {0: (0, 1, 2), 1: (0, 1, 2)}
    assert Site(heads=[(1, 2), (0, 3), (1, 0)]).resolve(2, 4) == {1: (2, 0), 0: (3,)}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            {"layers": 3},
            r'layers= is "all" or a list of indices; got 3\. For a single one write layers=\[3\]',
        ),
        ({"layers": []}, r"layers= selects nothing. Give at least one number"),
        ({"layers": [-1]}, r"one of layers is an integer, counted from 0; got -1"),
        ({"layers": [1.5]}, r"one of layers is an integer, counted from 0; got 1.5"),
        ({"layers": [True]}, r"one of layers is an integer, counted from 0; got True"),
        ({"heads": "some"}, r'heads= is "all" or a list of indices; got \'some\''),
        ({"heads": [1, (2, 3)]}, r"heads or a list of \(layer, head\) pairs, not a mixture"),
        ({"heads": [(1, 2, 3)]}, r"heads or a list of \(layer, head\) pairs, not a mixture"),
        ({"heads": [(1, -2)]}, r"a head is an integer, counted from 0; got -2"),
        ({"layers": [1], "heads": [(1, 2)]}, r"pairs already name layers: leave out layers=\[1\]"),
        (
            {"layers": "last"},
            r"got 'last'\. For the first one write layers=\[0\]\..*the last one is mllm\.n_layers - 1",
        ),
        ({"layers": -1}, r"got -1\. .*the last one is mllm\.n_layers - 1"),
        ({"layers": np.int64(4)}, r"For a single one write layers=\[4\]"),
        ({"layers": {0: 1}}, r'layers= is "all" or a list of indices; got \{0: 1\}'),
        ({"layers": np.array(3)}, r'layers= is "all" or a list of indices'),
        ({"layers": range(10**13)}, r"has at most 1,000,000; got more"),
        ({"heads": (2, 3)}, r"write heads=\[2, 3\]; for head 3 of layer 2 write heads=\[\(2, 3\)\]"),
        ({"heads": (np.int64(2), 3)}, r"write heads=\[2, 3\]"),
        ({"heads": [np.array(1.0)]}, r"one of heads is an integer, counted from 0"),
        ({"queries": -1}, r'queries= is a group of tokens, such as "last", or a list of groups; got -1'),
        ({"queries": None}, r'queries= is a group of tokens, such as "last", or a list of groups; got None'),
        ({"queries": 5}, r'queries= is a group of tokens, such as "last", or a list of groups; got 5'),
        ({"queries": []}, r'queries= is a group of tokens, such as "last", or a list of groups; got \[\]'),
        ({"keys": [3, 4]}, r"keys= takes group names.*got 3\. For positions write interp.positions\(\[3\]\)"),
    ],
)
def test_wrong_sites_are_explained(arguments, message, unchecked):
    with pytest.raises(SiteError, match=message):
        Site(**arguments)


@pytest.mark.parametrize(
    "arguments",
    [
        {"layers": "last"},
        {"layers": 3},
        {"layers": -1},
        {"heads": 2},
        {"heads": (2, 3)},
        {"queries": 5},
        {"keys": [3]},
    ],
    ids=str,
)
def test_what_an_error_advises_works(arguments, unchecked):
    with pytest.raises(SiteError) as raised:
        Site(**arguments)
    written = re.findall(
        r"(?:layers|heads)=\[.*?\)?\](?=[ ;.])|interp\.positions\(\[\d.*?\]\)", str(raised.value)
    )
    assert written
    for advice in written:
        (name,) = arguments
        advised = f"{name}={advice}" if advice.startswith("interp") else advice
        assert eval(f"Site({advised})", {"Site": Site, "interp": interp}).resolve(6, 8)


def test_two_heads_in_a_list_can_be_given_again():
    site = Site(layers=[0], heads=[2, 3])
    assert site.heads == (2, 3)
    assert replace(site, layers=[1]).resolve(4, 8) == {1: (2, 3)}
    assert "heads=[2, 3]" in repr(site)
    assert Site(heads=(1, 2, 3)).heads == (1, 2, 3)


@pytest.mark.parametrize(
    "wrong", [{}, None, 3, {"layers": "all"}, {**Site().to_dict(), "keys": [{"a": 1, "b": 2}]}]
)
def test_a_site_from_other_json_is_refused(wrong, unchecked):
    with pytest.raises(SiteError, match="a site as JSON has layers, heads, queries and keys"):
        Site.from_dict(wrong)


def test_wrong_selectors_are_explained(unchecked):
    for wrong in (None, 3, "last"):
        with pytest.raises(SiteError, match=r"positions\(\[…\]\) takes a list of positions"):
            positions(wrong)
    for wrong in (None, 3, "last"):
        with pytest.raises(SiteError, match="image_mask takes booleans over the image tokens"):
            image_mask(wrong)
    with pytest.raises(SiteError, match=r"positions\(\[…\]\) needs at least one position"):
        positions([])
    with pytest.raises(SiteError, match="a position is an integer, counted from 0; got -1"):
        positions([-1])
    for wrong in ([1, 0], np.ones(3), np.zeros(0, bool), np.ones((2, 2, 2), bool), [np.ones(3)]):
        with pytest.raises(
            SiteError, match=r"image_mask takes booleans over the image tokens, shape \(token,\)"
        ):
            image_mask(wrong)


def test_masks_for_all_and_for_each():
    assert not image_mask(np.array([True, False])).per_sample
    assert image_mask(np.array([[True, False], [False, True]])).masks == ((True, False), (False, True))
    assert image_mask(np.array([[True, False]])).per_sample


def test_selectors_are_united_and_ordered():
    tokens = TokenMap(
        image=np.array([1, 2, 3]),
        footprints=np.zeros((3, 4)),
        grid=None,
        views=np.full(3, ""),
        image_index=np.zeros(3, int),
        sizes=((9, 9),),
        length=8,
        spans={"question": np.array([5, 6])},
        words=(("red", (5,)),),
    )
    chosen = ("question", positions([0, 6]), image_mask([True, False, True]), word("red"), "last")
    assert select(chosen, tokens, 0, 1).tolist() == [0, 1, 3, 5, 6, 7]
    assert (
        select(("text", "image"), tokens, 0, 1).tolist()
        == list(range(8))
        == select(("all",), tokens, 0, 1).tolist()
    )
    assert select((image_mask([False] * 3),), tokens, 0, 1).tolist() == []


def test_reads_and_edits_are_values_too():
    read = Rows(SITES[1], reduce="head")
    assert read == Rows(SITES[1], reduce="head") != Rows(SITES[1])
    assert read.to_dict() == {"rows": {"site": SITES[1].to_dict(), "reduce": "head"}}
    edit = Knockout(SITES[2], "zero")
    assert len({edit, Knockout(SITES[2], "zero"), Knockout(SITES[2])}) == 2
    assert edit.to_dict() == {"knockout": {"site": SITES[2].to_dict(), "mode": "zero", "steps": "prefill"}}
    assert json.dumps([read.to_dict(), edit.to_dict()])


def test_a_mask_shows_how_many_tokens_it_holds() -> None:
    assert repr(image_mask([True, False, True])) == "ImageMask(2 of 3)"
    assert repr(image_mask([np.array([True, False])] * 6)) == f"ImageMask({'1 of 2, ' * 4}2 more)"
