"""Image prefixes of hybrid models: the states of convolution and recurrence are part of them."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose

import interp
from interp.conformance.tiny import tiny
from interp.tracing import Knockout, Mllm, Rows, Site
from interp.tracing.cost import Meter
from interp.tracing.variants.cached_pass import KeptPass

QUESTIONS = ("where is the nodule?", "what is the lung?")
LONGER = "what is there in the left lung?"


@pytest.fixture(scope="module", params=["qwen3_5", "qwen3_5_moe"])
def mllm(request) -> Mllm:
    return interp.wrap(*tiny(request.param))


def pictures() -> list[interp.Sample]:
    """Two images of different sizes and questions of equal length."""
    noise = np.random.default_rng(0).integers(0, 256, (96, 160, 3), np.uint8)
    return [
        interp.Sample(image, question)
        for image, question in zip((noise, noise[:64, :96]), QUESTIONS, strict=True)
    ]


@pytest.mark.covering
@pytest.mark.parametrize("executor", ["tap", "source"])
@pytest.mark.parametrize("stop", ["image", "last"])
def test_a_pass_after_the_states_is_a_whole_pass(mllm, executor, stop):
    reads = [Rows(Site(queries="last", keys="all"))]
    edits = [Knockout(Site(layers=[3], queries="last", keys="image"), steps="all")]
    prefix = mllm.prefix(pictures(), stop=stop)
    lengths = [tokens.length for tokens in prefix.tokens]
    assert lengths[0] != lengths[1]
    held = [one.clone() for one in (*prefix.keys, *prefix.values)]
    for own in ([], edits):
        whole = mllm.trace(pictures(), reads=reads, edits=own, generate=3)
        after = mllm.using(executor).trace(prefix, reads=reads, edits=own, generate=3)
        assert after.cost.tokens == whole.cost.tokens - 2 * max(prefix.lengths)
        assert_allclose(after.logits, whole.logits, atol=3e-5)
        assert after.answers == whole.answers
        for one, other in zip(after, whole, strict=True):
            assert_allclose(one.rows, other.rows, atol=2e-6)
    assert all(torch.equal(a, b) for a, b in zip(held, (*prefix.keys, *prefix.values), strict=True))


def test_one_prefix_serves_several_questions(mllm):
    """Samples of one image share a line of it, and part from it."""
    image = pictures()[0]
    samples = [image.replace(question=question) for question in (*QUESTIONS, "is the lung red?")]
    prefix = mllm.prefix(samples)
    assert (len(prefix.keys[0]), prefix.lines) == (1, (0, 0, 0))
    whole, after = mllm.trace(samples), mllm.trace(prefix)
    each = [mllm.trace(sample).logits.values[0] for sample in samples]
    assert_allclose(whole.logits, each, atol=3e-5)
    assert_allclose(after.logits, each, atol=3e-5)
    assert_allclose(mllm.trace(prefix, batch_size=2).logits, each, atol=3e-5)


def test_prompts_that_go_on_by_different_numbers_run_whole(mllm):
    """Padding between prefix and question would wear the states off."""
    samples = [pictures()[0], pictures()[1].replace(question=LONGER)]
    whole, after = mllm.trace(samples), mllm.trace(mllm.prefix(samples))
    assert after.cost.tokens == whole.cost.tokens
    assert (after.logits == whole.logits).all()
    alone = mllm.prefix(samples[1])
    assert mllm.trace(alone).cost.tokens < mllm.trace(samples[1]).cost.tokens


def test_reads_and_edits_of_the_deltanet_layers_run_whole(mllm):
    sample = pictures()[0]
    prefix, whole = mllm.prefix(sample), mllm.trace(sample)
    for reads, edits in (
        ([Rows(Site(layers="linear"))], []),
        ([], [Knockout(Site(layers="linear", queries="last"))]),
    ):
        after = mllm.trace(prefix, reads=reads, edits=edits)
        assert after.cost.tokens == whole.cost.tokens
        plain = mllm.trace(sample, reads=reads, edits=edits)
        assert (after.logits == plain.logits).all()


@pytest.mark.parametrize("target", ["greedy", pytest.param("red nodule", marks=pytest.mark.slow)])
def test_gradients_after_a_prefix_are_those_of_a_whole_pass(mllm, target):
    """The whole pass is transformers' own; after the prefix gradients go through what follows the states."""
    indicator = interp.indicators.AttentionGradient(signed=True, per_head=True)
    sample, target = pictures()[0], interp.Target(target)
    after = indicator(mllm, mllm.prefix(sample), target=target)
    whole = indicator(mllm, mllm.encode(sample), target=target)
    scale = float(abs(whole[0]).max())
    assert scale > 0
    assert_allclose(after[0], whole[0], atol=1e-4 * scale)


def test_a_kept_pass_runs_variants_from_the_states(mllm):
    prefix = mllm.prefix(pictures()[0])
    kept = KeptPass.of(mllm, prefix.batch, Meter(mllm.device), before=prefix)
    stop = kept.stop(kept.tokens.length - 1)
    assert stop == kept.first == prefix.lengths[0]
    found = kept.run(3, stop, Meter(mllm.device))
    assert_allclose(found[:, -1], np.repeat(mllm.trace(pictures()[0]).logits.values, 3, axis=0), atol=3e-5)
    whole = KeptPass.of(mllm, prefix.batch, Meter(mllm.device))
    assert whole.stop(whole.tokens.length - 1) == 0
