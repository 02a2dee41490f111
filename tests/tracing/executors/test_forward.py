"""Greedy generation against transformers' own, and the rows of its steps against eager attention."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import tests.tiny as tiny
from interp.tracing import Knockout, Rows, Site, positions, wrap
from tests.tracing.reference_attention import attention_of


def generated(model, inputs, n: int) -> list[list[int]]:
    """transformers' greedy continuation."""
    with torch.no_grad():
        ids = model.generate(**inputs, max_new_tokens=n, do_sample=False)
    return ids[:, inputs["input_ids"].shape[1] :].tolist()


def test_answers_equal_transformers_generate(mllm, plain, batch):
    decode = mllm.processor.tokenizer.decode
    together = mllm.trace(batch, generate=6)
    for i, single in enumerate(batch.singles):
        (expected,) = generated(plain, single.inputs, 6)
        assert together.answers[i] == decode(expected, skip_special_tokens=True).strip()
        assert (
            together[i].answer == mllm.trace(batch.samples[i], generate=6).answers[0] == together.answers[i]
        )
    np.testing.assert_allclose(together.logits, mllm.trace(batch).logits, atol=1e-5)
    assert together.cost.forwards == 6
    assert together.cost.tokens == 120 + 5 * 3


def test_each_steps_rows_equal_eager(mllm, eager, batch):
    reads = [
        Rows(Site(keys="all")),
        Rows(Site(heads=[(2, 3), (0, 1)])),
        Rows(Site(queries="question"), reduce="head"),
    ]
    trace = mllm.trace(batch, reads=reads, generate=4)
    for i, single in enumerate(batch.singles):
        (ids,) = generated(eager, single.inputs, 4)
        everything = torch.cat([single.inputs["input_ids"], torch.tensor([ids])], dim=1)
        full = attention_of(
            eager, {**single.inputs, "input_ids": everything, "attention_mask": torch.ones_like(everything)}
        )
        last, pairs, question = trace[i].reads
        n, image = single.tokens.length, single.tokens.image
        assert last.dims == ("step", "layer", "head", "query", "key")
        assert last.shape == (4, 3, 4, 1, n)
        for step in range(4):
            row = full[:, :, n - 1 + step]
            np.testing.assert_allclose(last[step, :, :, 0], row[..., :n], atol=1e-6, rtol=0)
            np.testing.assert_allclose(pairs[step, 0, 0], row[2, 3, image], atol=1e-6, rtol=0)
            np.testing.assert_allclose(pairs[step, 1, 0], row[0, 1, image], atol=1e-6, rtol=0)
        assert question.sizes["step"] == 1  # the question has no rows while generating
        expected = full.mean(axis=1)[:, single.tokens.spans["question"]][..., image]
        np.testing.assert_allclose(question[0], expected, atol=1e-6, rtol=0)


@pytest.fixture
def stopping(plain, batch):
    """A model that ends with the tokens that the first sample generates second, and the second first."""
    first, second, _ = (generated(plain, single.inputs, 8)[0] for single in batch.singles)
    hf = tiny.llava()
    hf.generation_config.eos_token_id = [first[1], second[0]]
    return hf


def test_an_ended_answer_stops_and_its_steps_with_it(stopping, batch):
    decode = tiny.processor().tokenizer.decode
    expected = [generated(stopping, single.inputs, 8)[0] for single in batch.singles]
    mllm = wrap(stopping, tiny.processor())
    trace = mllm.trace(batch, reads=[Rows(Site())], generate=8)
    assert trace.answers == [decode(ids, skip_special_tokens=True) for ids in expected]
    assert [one.rows.sizes["step"] for one in trace] == [len(ids) for ids in expected]
    assert min(len(ids) for ids in expected) == 1
    joined = trace.rows
    assert joined.sizes["step"] == max(len(ids) for ids in expected)
    assert np.isnan(joined[1, 1:]).all()
    alone = mllm.trace(batch.samples[1], reads=[Rows(Site())], generate=8)
    assert alone.cost.forwards == 1
    np.testing.assert_allclose(alone[0].rows, trace[1].rows, atol=1e-6)


def test_a_knockout_of_the_prompt_leaves_later_rows_alone(mllm, batch):
    edit = Knockout(Site(layers=[2], keys=positions([4, 5])), "zero")
    trace = mllm.trace(
        batch, reads=[Rows(Site(layers=[2], keys=positions([4, 5])))], edits=[edit], generate=3
    )
    assert not trace[0].rows[0].any()
    assert (trace[0].rows[1:] > 0).all()


def test_a_mask_for_most_rows_is_for_the_prompt_only(mllm, batch):
    edit = Knockout(Site(layers=[2], queries="all", keys=positions([4, 5])))
    trace = mllm.trace(
        batch, reads=[Rows(Site(layers=[2], keys=positions([4, 5])))], edits=[edit], generate=3
    )
    assert not trace[0].rows[0].any()
    assert (trace[0].rows[1:] > 0).all()
