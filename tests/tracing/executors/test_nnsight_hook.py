"""Rows that `Mllm.tap` offers at `pattern` inside a user's own trace, and what writing to them does."""

from __future__ import annotations

import nnsight
import numpy as np
import pytest
import torch

from interp.errors import ModelError, SiteError
from interp.tracing import Knockout, Rows, Site, positions


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
