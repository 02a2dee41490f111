"""The registered attention functions, and the one hand-off to nnsight."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
import torch
from nnsight.intervention.interleaver import Mediator
from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS, eager_mask, sdpa_mask
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

import tests.tiny as tiny
from interp.errors import ModelError
from interp.tracing import Knockout, Rows, Site, positions, wrap
from interp.tracing.executors.hooks import registered


def test_each_function_keeps_its_own_masks():
    assert registered("sdpa") == registered("sdpa") == "interp_sdpa"
    assert ALL_MASK_ATTENTION_FUNCTIONS["interp_sdpa"] is sdpa_mask
    assert ALL_MASK_ATTENTION_FUNCTIONS[registered("eager")] is eager_mask
    assert ALL_ATTENTION_FUNCTIONS["interp_sdpa"] is not ALL_ATTENTION_FUNCTIONS["interp_eager"]
    with pytest.raises(ModelError, match="paged"):
        registered("paged|sdpa")


@pytest.fixture
def sdpa_calls(monkeypatch):
    """What torch's attention is called with: (has a mask, is_causal, queries)."""
    calls = []
    function = torch.nn.functional.scaled_dot_product_attention

    def spy(query, key, value, attn_mask=None, is_causal=False, **kwargs):
        if query.shape[-1] == 16 and query.shape[-2] > 17:  # the language model's, not the vision tower's
            calls.append((attn_mask is not None, is_causal, query.shape[2]))
        return function(query, key, value, attn_mask=attn_mask, is_causal=is_causal, **kwargs)

    monkeypatch.setattr(torch.nn.functional, "scaled_dot_product_attention", spy)
    return calls


def test_without_padding_attention_needs_no_mask(mllm, plain, batch, sdpa_calls):
    inputs = batch.singles[1].inputs
    assert inputs["attention_mask"].all()
    with torch.no_grad():
        plain(**inputs)
    expected = list(sdpa_calls)
    assert expected == [(False, True, 40)] * 3
    sdpa_calls.clear()
    mllm.trace(batch.samples[1], reads=[Rows(Site())], edits=[Knockout(Site(keys=positions([4])))])
    assert sdpa_calls == expected
    sdpa_calls.clear()
    mllm.trace(batch)
    assert sdpa_calls == [(True, False, 40)] * 3


def test_knockouts_of_most_rows_become_a_mask(mllm, batch, sdpa_calls):
    many = Knockout(Site(layers=[1], queries="all", keys=positions([4])))
    few = Knockout(Site(layers=[2], queries="last", keys=positions([4])))
    mllm.trace(batch.samples[1], edits=[many, few])
    assert sdpa_calls == [(False, True, 40), (True, False, 40), (False, True, 40)]


def test_nothing_is_left_on_the_modules(mllm, batch):
    before = [set(a.__dict__) for a in mllm.installation.attentions]
    mllm.trace(batch, reads=[Rows(Site())])
    with pytest.raises(ValueError, match="boom"):
        failing(mllm, batch)
    assert [set(a.__dict__) for a in mllm.installation.attentions] == before
    mllm.trace(batch)


def failing(mllm, batch):
    def boom(module, args):
        raise ValueError("boom")

    hook = mllm.installation.attentions[1].register_forward_pre_hook(boom)
    try:
        mllm.trace(batch, reads=[Rows(Site())])
    finally:
        hook.remove()


@pytest.mark.parametrize("generate", [0, 3])
def test_a_run_hands_over_to_nnsight_once(mllm, batch, monkeypatch, generate):
    served = Counter()
    handle = Mediator.handle

    def spy(mediator, provider, value):
        served[provider] += 1
        return handle(mediator, provider, value)

    monkeypatch.setattr(Mediator, "handle", spy)
    prefix = mllm.prefix(batch)
    for samples in (batch, prefix):
        served.clear()
        mllm.trace(samples, reads=[Rows(Site()), Rows(Site(queries="after_image"))], generate=generate)
        assert served == {"model.interp_collector.output": 1}


def test_collected_rows_are_the_modules_own_attention(mllm, batch):
    """The door and the collector agree: two ways out of one computation."""
    trace = mllm.trace(batch, reads=[Rows(Site(layers=[2], keys="all"))])
    with torch.no_grad(), mllm.tap(), mllm.nn.trace(**batch.inputs):
        rows = mllm.layers[2].self_attn.pattern.output.save()
    for i, pad in enumerate(batch.pad):
        np.testing.assert_allclose(trace[i].rows[0], rows[i, ..., pad:], atol=1e-7)


def test_models_of_both_kinds_live_side_by_side(batch):
    one, other = (wrap(tiny.llava(kind), tiny.processor()) for kind in ("sdpa", "eager"))
    first, second = (m.trace(batch, reads=[Rows(Site())]) for m in (one, other))
    np.testing.assert_allclose(first.rows, second.rows, atol=1e-6)
    assert one.hf.config.text_config._attn_implementation == "interp_sdpa"
    assert other.hf.config.text_config._attn_implementation == "interp_eager"
