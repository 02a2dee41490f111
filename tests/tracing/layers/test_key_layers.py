"""Layers that attend to an earlier layer's keys (Gemma 3n and 4): kept passes, prefixes and rows against eager."""

from __future__ import annotations

from functools import cache
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from interp.conformance.tiny import recipe, tiny
from interp.conformance.tiny.kit import build
from interp.errors import ModelError
from interp.inputs.sample import Sample
from interp.tracing import Knockout, Mllm, Rows, Site, positions, wrap
from interp.tracing.cost import Meter
from interp.tracing.layers.decoder_layers import key_layers
from interp.tracing.remote.server import refuse_shared_keys
from interp.tracing.variants.cached_pass import KeptPass
from tests.tracing.reference_attention import greedy

IMAGE = np.random.default_rng(0).integers(0, 255, (40, 56, 3)).astype(np.uint8)
SAMPLE = Sample(IMAGE, "where is the nodule ?")
SOURCES = (0, 1, 2, 2, 1)


@cache
def wrapped(family: str) -> Mllm:
    return wrap(*tiny(family))


@pytest.fixture(scope="module")
def mllm() -> Mllm:
    return wrapped("gemma4")


def causal(attention: str) -> Any:
    """As the small Gemma 4 are: image tokens see no later ones, and every layer has as many key-value heads."""
    config = recipe("gemma4").config()
    text = config.text_config
    told = {**text.to_dict(), "use_bidirectional_attention": None, "attention_k_eq_v": False}
    del told["per_layer_config"]
    config.text_config = type(text)(**told, global_head_dim=32)
    return build(recipe("gemma4").model, config, attention)


def test_whose_keys_each_layer_uses():
    kinds = [
        "sliding_attention",
        "full_attention",
        "sliding_attention",
        "full_attention",
        "sliding_attention",
    ]
    config = SimpleNamespace(layer_types=kinds, num_kv_shared_layers=2)
    assert key_layers(config, 5) == (0, 1, 2, 1, 2)
    assert key_layers(SimpleNamespace(layer_types=kinds, num_kv_shared_layers=0), 5) == (0, 1, 2, 3, 4)
    assert key_layers(SimpleNamespace(), 2) == (0, 1)


def test_sharing_layers_hold_the_tensors_of_their_source(mllm):
    """A prefix keeps one set of keys for a layer and those that share it; layers differ in heads and their size."""
    found = mllm.prefix(SAMPLE)
    assert mllm.key_layers == SOURCES
    assert all(found.keys[i] is found.keys[source] for i, source in enumerate(SOURCES))
    assert [tuple(one.shape[1::2]) for one in found.keys] == [(2, 16), (1, 32), (2, 16), (2, 16), (1, 32)]


@pytest.mark.parametrize("start", [0, 2, 3, 4])
@pytest.mark.parametrize("family", ["gemma3n", "gemma4"])
def test_a_kept_pass_goes_on_above_the_makers_of_keys(family, start):
    """Variants that start at a sharing layer have its keys, and the inputs per layer that came from the image."""
    mllm = wrapped(family)
    assert mllm.key_layers == (0, 1, 2, 2, 1)
    before = mllm.prefix(SAMPLE)
    for prefix in (None, before):
        meter = Meter(mllm.device)
        kept = KeptPass.of(mllm, mllm.encode(SAMPLE), meter, keep=2, layers=(start,), before=prefix)
        stops = {kept.stop(99), before.lengths[0]} | ({0} if prefix is None else set())
        for stop in stops:
            found = kept.run(2, stop, meter, start=start)
            np.testing.assert_allclose(found, kept.logits.expand(2, -1, -1), atol=5e-5, err_msg=str(stop))


@pytest.mark.covering
@pytest.mark.parametrize("layers", [[1], [4], [2, 3], [0, 1, 2, 3, 4]])
@pytest.mark.parametrize("executor", ["tap", "source"])
def test_a_knockout_leaves_the_other_layers_of_the_same_keys(mllm, layers, executor):
    """Keys hidden in a layer are hidden there alone, not in those that share them; against eager's own code."""
    batch = mllm.encode(SAMPLE)
    image = batch.tokens[0].image
    eager = tiny("gemma4", "eager")[0]
    hidden = torch.zeros((batch.tokens[0].length,) * 2, dtype=torch.bool)
    keys = [*image[-12:-2].tolist(), *range(batch.tokens[0].length - 8, batch.tokens[0].length - 3)]
    hidden[int(image[-1]) + 1 :, keys] = True
    reference = greedy(eager, batch.inputs, 1, lambda layer, n: hidden if layer in layers else None)
    edit = Knockout(Site(layers=layers, queries="after_image", keys=positions(keys)))
    trace = mllm.using(executor).trace(batch, edits=[edit], reads=[Rows(Site(keys="all"))])
    plain = mllm.trace(batch).logits.values[0]
    assert np.abs(trace.logits.values[0] - plain).max() > 1e-3
    np.testing.assert_allclose(trace.logits.values[0], reference.logits[0], atol=5e-5)
    rows = reference.attention[0][:, :, -1]
    np.testing.assert_allclose(trace[0].rows.values[:, :, 0], rows, atol=5e-6)


@pytest.mark.slow
@pytest.mark.parametrize("executor", ["tap", "source"])
def test_a_small_gemma_4_is_causal_and_every_row_is_there(executor):
    """Without a mask, transformers decides by the attention's name whether it may leave out rows of sharing layers."""
    processor = recipe("gemma4").processor()
    mllm, eager = wrap(causal("sdpa"), processor), causal("eager")
    assert mllm.visibility.attends == "causal"
    batch = mllm.encode(SAMPLE)
    reference = greedy(eager, batch.inputs, 1)
    with torch.no_grad():
        several = mllm.hf(**batch.inputs, logits_to_keep=4, use_cache=False).logits[0]
        truth = eager(**batch.inputs, use_cache=False).logits[0, -4:]
    np.testing.assert_allclose(several, truth, atol=5e-5)
    trace = mllm.using(executor).trace(batch, reads=[Rows(Site(queries="all", keys="all"))])
    np.testing.assert_allclose(trace.logits.values[0], reference.logits[0], atol=5e-5)
    np.testing.assert_allclose(trace[0].rows.values, reference.attention[0], atol=5e-6)


def test_on_a_server_shared_keys_are_refused(mllm):
    with pytest.raises(
        ModelError, match="share keys, and on a server transformers computes only their last row"
    ):
        refuse_shared_keys(mllm.hf, mllm.n_layers)
    llava = tiny("llava")[0]
    refuse_shared_keys(llava, len(llava.get_decoder().layers))
