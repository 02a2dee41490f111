"""The registered attention functions, and the one hand-off to nnsight."""

from __future__ import annotations

from collections import Counter

import nnsight
import numpy as np
import pytest
import torch
from nnsight.intervention.interleaver import Mediator
from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS, eager_mask, sdpa_mask
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

import tests.tiny as tiny
from interp.errors import ModelError, SiteError
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


def test_last_rows_are_read_padded(mllm, batch, attentions):
    with torch.no_grad(), mllm.tap(queries="last"), mllm.nn.trace(**batch.inputs):
        rows = mllm.layers[1].self_attn.pattern.output.save()
    assert rows.shape == (3, 4, 1, 40)
    for i, (full, pad) in enumerate(zip(attentions, batch.pad, strict=True)):
        np.testing.assert_allclose(rows[i, :, 0, pad:], full[1, :, -1], atol=1e-6, rtol=0)
        assert not rows[i, ..., :pad].any()


def test_other_rows_need_the_batch(mllm, batch, attentions):
    wanted = positions([4, 20])
    with torch.no_grad(), mllm.tap(queries=wanted, batch=batch), mllm.nn.trace(**batch.inputs):
        rows = mllm.layers[2].self_attn.pattern.output.save()
    with torch.no_grad(), mllm.tap(queries="all", layers=[2]), mllm.nn.trace(**batch.inputs):
        every = mllm.layers[2].self_attn.pattern.output.save()
    for i, (full, pad) in enumerate(zip(attentions, batch.pad, strict=True)):
        np.testing.assert_allclose(rows[i, :, :, pad:], full[2][:, [4, 20]], atol=1e-6, rtol=0)
        np.testing.assert_allclose(every[i, :, pad:, pad:], full[2], atol=1e-6, rtol=0)
    with pytest.raises(
        SiteError, match=r"needs the batch to find its rows; write mllm\.tap\(queries=…, batch=batch"
    ):
        mllm.tap(queries="after_image").__enter__()
    with pytest.raises(SiteError, match=r"every sample needs the same number of rows.*\[16, 21, 20\]"):
        mllm.tap(queries="after_image", batch=batch).__enter__()
    with pytest.raises(SiteError, match="the model has 3 layers, 0 … 2; got layer 5"):
        mllm.tap(layers=[5]).__enter__()


def test_reading_leaves_the_output_bit_equal(mllm, plain, batch):
    with torch.no_grad(), mllm.tap(queries="all"), mllm.nn.trace(**batch.inputs):
        mllm.layers[0].self_attn.pattern.output.save()
        logits = mllm.nn.output.logits.save()
    with torch.no_grad():
        assert torch.equal(logits, plain(**batch.inputs).logits)


def test_writing_in_place_and_assigning_edit_the_output(mllm, batch):
    keys = [5, 6, 9]
    edit = Knockout(Site(layers=[1], keys=positions(keys)), "zero")
    expected = mllm.trace(batch, edits=[edit]).logits
    assert np.abs(expected - mllm.trace(batch).logits).max() > 1e-2
    columns = torch.zeros(3, 1, 1, 40, dtype=torch.bool)
    for i, pad in enumerate(batch.pad):
        columns[i, ..., [pad + key for key in keys]] = True
    with torch.no_grad(), mllm.tap(), mllm.nn.trace(**batch.inputs):
        mllm.layers[1].self_attn.pattern.output.masked_fill_(columns, 0)
        in_place = mllm.nn.output.logits[:, -1].save()
    with torch.no_grad(), mllm.tap(), mllm.nn.trace(**batch.inputs):
        rows = mllm.layers[1].self_attn.pattern.output
        mllm.layers[1].self_attn.pattern.output = rows.masked_fill(columns, 0)
        assigned = mllm.nn.output.logits[:, -1].save()
    np.testing.assert_allclose(in_place, expected, atol=1e-5)
    np.testing.assert_allclose(assigned, expected, atol=1e-5)


def test_every_generated_token_offers_its_row(mllm, batch):
    with (
        torch.no_grad(),
        mllm.tap(),
        mllm.nn.generate(**batch.inputs, max_new_tokens=3, do_sample=False) as run,
    ):
        rows = nnsight.save([])
        for _ in run.iter[:3]:
            rows.append(mllm.layers[1].self_attn.pattern.output)
    found = mllm.trace(batch, reads=[Rows(Site(layers=[1]))], generate=3)
    for step, offered in enumerate(rows):
        assert offered.shape == (3, 4, 1, 40 + step)
        for i, (one, tokens) in enumerate(zip(found, batch.tokens, strict=True)):
            image = offered[i, :, 0, tokens.image + batch.pad[i]]
            np.testing.assert_allclose(one.rows[step, 0, :, 0], image, atol=1e-6)


def test_gradients_reach_the_rows_as_in_eager(mllm, eager, batch):
    inputs = batch.singles[1].inputs
    weight = mllm.hf.get_input_embeddings().weight
    with mllm.tap(queries="last"), mllm.nn.trace(**inputs):
        rows = mllm.layers[1].self_attn.pattern.output
        mllm.layers[1].self_attn.pattern.output = rows * 1  # a copy is spliced in, so the logits depend on it
        logit = mllm.nn.output.logits[0, -1].log_softmax(-1).max()
        gradient = torch.autograd.grad(logit, rows)[0].save()
    assert weight.grad is None
    output = eager(**inputs, output_attentions=True)
    top = output.logits[0, -1].log_softmax(-1).max()
    expected = torch.autograd.grad(top, output.attentions[1])[0][0, :, -1]
    assert expected.abs().max() > 1e-2
    np.testing.assert_allclose(gradient[0, :, 0], expected, atol=1e-5)


def test_one_trace_or_tap_at_a_time(mllm, batch):
    with (
        mllm.tap(),
        pytest.raises(ModelError, match=r"another trace or tap of this model is open.*leave|Leave"),
    ):
        mllm.trace(batch)
    with mllm.tap(), pytest.raises(ModelError, match="another trace or tap"):
        mllm.prefix(batch)
    with mllm.tap(), pytest.raises(ModelError, match="another trace or tap"):
        mllm.unwrap()
    with pytest.raises(RuntimeError, match="mine"), mllm.tap():
        raise RuntimeError("mine")
    assert not any("_interp_work" in a.__dict__ for a in mllm.installation.attentions)
    mllm.trace(batch)
