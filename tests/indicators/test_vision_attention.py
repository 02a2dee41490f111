"""Maps of the vision tower's attention against an eager tower's rows, pooled by hand."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.testing import assert_allclose

from interp.errors import MapError, SiteError
from interp.indicators import VisionAttention
from interp.inputs.sample import Sample
from interp.tracing import Rows, Site
from tests.tiny import uneven_samples as samples
from tests.tracing.tower_reference import EagerTower, sharp


@pytest.mark.parametrize(("family", "queries"), [("qwen2_5_vl", "patches"), ("llava_next", "cls")])
def test_maps_are_an_eager_towers_rows_pooled(family, queries):
    mllm, eager = sharp(family), EagerTower.of(family)
    batch = mllm.encode(samples())
    maps = VisionAttention(queries)(mllm, batch)
    heads = VisionAttention(queries, per_head=True, layers=[1, 0])(mllm, batch)
    eager.logits(batch.inputs)
    starts = np.cumsum([0, *(one.length for one in batch.patches)])
    for i, own in enumerate(batch.patches):
        at = starts[i] + own.slots
        rows = own.positions(queries)
        if queries == "patches":
            rows = rows[np.unique(np.linspace(0, own.n - 1, min(own.n, 64)).round().astype(int))]
        dense = np.stack([eager.dense(layer)[:, at[rows][:, None], at[own.image]] for layer in (0, 1)])
        wanted = dense.mean(2) @ own.weights.matrix().T  # (layer, head, token)
        assert_allclose(maps[i], wanted.mean(1), atol=3e-6)
        assert_allclose(heads[i], wanted[[1, 0]], atol=3e-6)
        assert heads[i]["layer"].values.tolist() == [1, 0]
        assert maps[i].sizes["token"] == batch.tokens[i].n


def test_a_tower_without_a_class_token_is_refused():
    with pytest.raises(SiteError, match="this vision tower has the groups"):
        VisionAttention("cls")(sharp("gemma3"), samples()[0])


@pytest.mark.usefixtures("unchecked")
def test_other_queries_are_refused():
    with pytest.raises(SiteError, match='queries is "cls" or "patches"'):
        VisionAttention("last")  # type: ignore[arg-type]


def test_it_describes_itself():
    assert VisionAttention() == VisionAttention("patches", False, "all")
    assert VisionAttention("cls", per_head=True, layers=[3, 1]).to_dict() == {
        "indicator": "vision attention",
        "queries": "cls",
        "per_head": True,
        "layers": [3, 1],
    }
    made = VisionAttention(layers=[3, 1])
    assert (made, hash(made)) == (VisionAttention(layers=(3, 1)), hash(VisionAttention(layers=(3, 1))))


def test_of_many_patches_64_are_rows():
    """A tower of 121 patches: every patch's row is read by hand, and those at 64 even places are kept."""
    mllm = sharp("qwen2_5_vl")
    large = Sample(np.random.default_rng(5).integers(0, 255, (168, 168, 3), dtype=np.uint8), "is it red?")
    (own,) = mllm.encode([large]).patches
    site = Site(tower="vision", layers=[0], queries="patches", keys="patches")
    rows = mllm.trace([large], reads=[Rows(site, reduce="head")])[0].rows.values[0]
    assert own.n == len(rows) > 64
    kept = np.linspace(0, own.n - 1, 64).round().astype(int)
    found = VisionAttention(layers=[0])(mllm, large)[0].values[0]
    assert_allclose(found, own.weights.matrix() @ rows[kept].mean(axis=0), atol=1e-6)


@pytest.mark.usefixtures("unchecked")
def test_heads_are_asked_for_with_a_bool():
    with pytest.raises(MapError, match="per_head is True or False; got 1"):
        VisionAttention(per_head=1)  # type: ignore[arg-type]
