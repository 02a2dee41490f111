"""Layers of several kinds, by hand: which reads and edits each takes, and what a plan knows of them."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from interp.errors import EditError, SiteError
from interp.tracing import Boost, Knockout, ScaleWeights, Site, image_mask
from interp.tracing.encoding.batch import Layout
from interp.tracing.layers.decoder_layers import (
    CrossLayout,
    Decoder,
    Shape,
    is_cross,
    layer_kinds,
    mixer,
)

HYBRID = Decoder(5, 2, {1: 4, 3: 0})
CROSS = Decoder(4, 2, cross=(1, 3))
IMAGE_KEYS = image_mask([True])


def test_a_layers_kind_is_that_of_what_mixes_its_tokens() -> None:
    names = ("self_attn", "linear_attn", "cross_attn", "conv", "mlp")
    layers = [SimpleNamespace(**{name: name, "norm": None}) for name in names]
    assert layer_kinds(layers) == ("attention", "linear", "cross", "convolution", "attention")
    assert [mixer(one) for one in layers[:4]] == list(names[:4])
    assert HYBRID.kinds == ("attention", "linear", "attention", "convolution", "attention")
    assert CROSS.kinds == ("attention", "cross", "attention", "cross")


@pytest.mark.parametrize(
    ("decoder", "site", "layers", "kind"),
    [
        (HYBRID, Site(), [0, 2, 4], "attention"),
        (HYBRID, Site(layers=[1]), [1], "linear"),
        (CROSS, Site(layers="cross"), [1, 3], "cross"),
        (CROSS, Site(layers=[3], keys=("image", IMAGE_KEYS)), [3], "cross"),
        (CROSS, Site(layers=[2], keys="text"), [2], "attention"),
    ],
)
def test_rows_of_one_kind(decoder: Decoder, site: Site, layers: list[int], kind: str) -> None:
    heads, found = decoder.rows(site)
    assert (list(heads), found) == (layers, kind)


@pytest.mark.parametrize(
    ("site", "layers", "message"),
    [
        (Site(layers=[0, 1]), [0, 1], "names layers of two kinds"),
        (
            Site(layers=[1], keys=("image", "text")),
            [1],
            "all keys of cross-attention layers come from the image",
        ),
        (Site(layers=[1], keys="text"), [1], "all keys of cross-attention layers come from the image"),
        (Site(layers=[0], keys=("text", "image")), [0], "self-attention layers have no image keys"),
        (Site(layers=[0], keys=IMAGE_KEYS), [0], "self-attention layers have no image keys"),
        (Site(layers=[1], queries=("last", "image")), [1], "image tokens have no rows"),
        (Site(layers=[1], queries=IMAGE_KEYS), [1], "image tokens have no rows"),
    ],
)
def test_keys_of_one_kind(site: Site, layers: list[int], message: str) -> None:
    with pytest.raises(SiteError, match=message):
        is_cross(site, layers, CROSS.cross)


def test_the_stream_is_of_all_kinds_but_has_no_rows_beside_it() -> None:
    assert HYBRID.stream(Site(queries="image")) == (0, 1, 2, 3, 4)
    assert CROSS.stream(Site(queries="last")) == (0, 1, 2, 3)
    with pytest.raises(SiteError, match="image tokens have no rows"):
        CROSS.stream(Site(queries="image"))


def test_what_needs_a_softmax_names_the_layers_that_have_one() -> None:
    assert list(HYBRID.softmax(Site(layers=[4, 0]), "rollouts")) == [4, 0]
    assert list(CROSS.softmax(Site(), "rollouts")) == [0, 1, 2, 3]
    with pytest.raises(
        SiteError, match=r"rollouts needs .* given layers \[1\].* a softmax in layers \[0, 2, 4\]"
    ):
        HYBRID.softmax(Site(layers=[1]), "rollouts")


def test_only_an_erasing_knockout_edits_linear_layers() -> None:
    linear, other = Site(layers=[1]), Site(layers=[2])
    assert HYBRID.edited(Knockout(linear)) == ({1: (0, 1, 2, 3)}, "linear")
    for edit in (Knockout(other, "zero"), ScaleWeights(other, 2.0), Knockout(other)):
        assert HYBRID.edited(edit) == ({2: (0, 1)}, "attention")
    for wrong, name in (
        (Knockout(linear, "zero"), "Knockout with mode='zero'"),
        (ScaleWeights(linear, 2.0), "ScaleWeights"),
        (Boost(linear, 2.0), "Boost"),
    ):
        with pytest.raises(
            EditError, match=rf"^{name} changes the scores .* names layers \[1\], which are linear"
        ):
            HYBRID.edited(wrong)


def test_a_plan_of_linear_layers_has_their_heads_and_no_masks() -> None:
    shape = Shape(5, 2, 1, torch.device("cpu"), linear={1: 4, 3: 0})
    found = shape.of_linear()
    assert (found.n_layers, found.n_heads, found.n_key_value_heads, found.takes_masks) == (5, 4, 4, False)
    plain = Shape(5, 2, 1, torch.device("cpu")).of_linear()
    assert (plain.n_heads, plain.n_key_value_heads) == (0, 0)


def test_columns_of_cross_layers_have_no_padding() -> None:
    whole = Layout.whole([3, 5])
    found = CrossLayout.of(whole, 7)
    places: list[Any] = [np.array([0, 2]), np.array([1])]
    assert (found.n_keys, whole.n_keys) == (7, 5)
    assert [one.tolist() for one in found.keys(places)] == [[0, 2], [1]]
    assert [one.tolist() for one in found.rows(places)] == [one.tolist() for one in whole.rows(places)]
