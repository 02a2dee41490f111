"""The image prefix: what follows it equals the whole pass, and it is neither copied nor changed."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import tests.tiny as tiny
from interp.errors import ModelError
from interp.inputs.prompt import GENERIC_PROMPT, PAPER_PROMPT, Prompt
from interp.inputs.sample import Sample
from interp.tracing import Knockout, Rows, Site, image_mask, positions, wrap

READ = Rows(Site(queries="after_image", keys="all"))
OTHER = Prompt("w90 w91 {question} answer")


@pytest.fixture
def prefix(mllm):
    return mllm.prefix(tiny.samples())


def assert_same(found, expected, tokens_run=None):
    np.testing.assert_allclose(found.logits, expected.logits, atol=1e-5, rtol=1e-5)
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_allclose(one.rows, other.rows, atol=1e-6, rtol=0)
        np.testing.assert_array_equal(one.rows.position, other.rows.position)
    if tokens_run is not None:
        assert found.cost.tokens == tokens_run


@pytest.mark.parametrize("prompt", [PAPER_PROMPT, GENERIC_PROMPT, OTHER], ids=["paper", "generic", "other"])
def test_a_suffix_equals_the_whole_pass(mllm, prefix, prompt):
    whole = mllm.trace(tiny.samples(), prompt=prompt, reads=[READ])
    longest = max(t.length - 19 for t in whole.tokens)  # <s> user : and 16 image tokens come before
    assert_same(mllm.trace(prefix, prompt=prompt, reads=[READ]), whole, tokens_run=3 * longest)


def test_one_sample_and_a_prefix_of_a_batch(mllm):
    sample = tiny.samples()[1]
    found = mllm.trace(mllm.prefix(sample), reads=[READ])
    assert_same(found, mllm.trace(sample, reads=[READ]), tokens_run=21)
    assert len(mllm.prefix(sample)) == 1


def test_its_own_prompt_is_the_default(mllm):
    prefix = mllm.prefix(tiny.samples(), prompt=GENERIC_PROMPT)
    np.testing.assert_allclose(
        mllm.trace(prefix).logits, mllm.trace(tiny.samples(), prompt=GENERIC_PROMPT).logits, atol=1e-5
    )


def test_prefixes_of_different_lengths_share_a_batch(mllm):
    two = Sample(images=[tiny.picture(seed=3), tiny.picture(seed=4)], question="is it in the lung?")
    samples = [tiny.samples()[0], two, tiny.samples()[2]]
    prefix = mllm.prefix(samples)
    assert prefix.lengths == (19, 35, 19)
    for prompt in (PAPER_PROMPT, GENERIC_PROMPT):
        whole = mllm.trace(samples, prompt=prompt, reads=[READ])
        assert_same(mllm.trace(prefix, prompt=prompt, reads=[READ]), whole)
        assert whole.tokens[1].n == 32


def test_eager_models_have_prefixes_too():
    mllm = wrap(tiny.llava("eager"), tiny.processor())
    whole = mllm.trace(tiny.samples(), reads=[READ])
    assert_same(mllm.trace(mllm.prefix(tiny.samples()), reads=[READ]), whole, tokens_run=63)


@pytest.mark.parametrize("mode", ["renormalise", "zero"])
@pytest.mark.parametrize("queries", ["last", "after_image"])
def test_knockouts_after_the_image_equal_the_whole_pass(mllm, prefix, mode, queries):
    masks = [np.arange(16) % 2 == 0, np.arange(16) > 9, np.arange(16) < 4]
    edits = [
        Knockout(Site(layers=[0, 2], queries=queries, keys=image_mask(masks)), mode),
        Knockout(Site(layers=[1], heads=[1], queries="last", keys=positions([21, 22])), "zero"),
    ]
    whole = mllm.trace(tiny.samples(), reads=[READ], edits=edits)
    plain = mllm.trace(tiny.samples())
    assert np.abs(whole.logits - plain.logits).max() > 1e-2
    assert_same(mllm.trace(prefix, reads=[READ], edits=edits), whole, tokens_run=63)


def test_a_knockout_of_nothing_is_bit_equal_after_a_prefix(mllm, prefix):
    edit = Knockout(Site(queries="all", keys=image_mask(np.zeros(16, bool))))
    np.testing.assert_array_equal(mllm.trace(prefix, edits=[edit]).logits, mllm.trace(prefix).logits)


@pytest.mark.parametrize(
    ("prompt", "reads", "edits"),
    [
        (Prompt(system="be brief"), [READ], []),
        (Prompt(image_first=False), [READ], []),
        (PAPER_PROMPT, [Rows(Site(queries="all", keys="all"))], []),
        (PAPER_PROMPT, [READ], [Knockout(Site(queries="image", keys=positions([1])))]),
    ],
    ids=["another beginning", "image last", "rows inside", "edits inside"],
)
def test_what_it_cannot_answer_runs_whole(mllm, prefix, prompt, reads, edits):
    whole = mllm.trace(tiny.samples(), prompt=prompt, reads=reads, edits=edits)
    found = mllm.trace(prefix, prompt=prompt, reads=reads, edits=edits)
    assert found.cost.tokens == whole.cost.tokens
    assert_same(found, whole)


def test_it_is_neither_changed_nor_copied(mllm, prefix, monkeypatch):
    before = [x.clone() for x in (*prefix.keys, *prefix.values)]
    pointers = {x.data_ptr() for x in (*prefix.keys, *prefix.values)}
    used, joined = set(), []
    cat = torch.cat

    def spy(tensors, *args, **kwargs):
        joined.extend(t.data_ptr() for t in tensors)
        return cat(tensors, *args, **kwargs)

    import interp.tracing.attention.rows as rows

    product = rows._product

    def watch(left, right):
        used.add(right.data_ptr())
        return product(left, right)

    monkeypatch.setattr(torch, "cat", spy)
    monkeypatch.setattr(rows, "_product", watch)
    first = mllm.trace(prefix, reads=[READ], generate=3)
    second = mllm.trace(prefix, reads=[READ], generate=3)
    assert pointers <= used  # every layer's keys and values are read where they lie
    assert not pointers & set(joined)
    np.testing.assert_array_equal(first.logits, second.logits)
    assert first.answers == second.answers
    assert all(torch.equal(a, b) for a, b in zip(before, (*prefix.keys, *prefix.values), strict=True))


def test_generation_after_a_prefix_equals_whole(mllm, prefix):
    whole = mllm.trace(tiny.samples(), reads=[Rows(Site())], generate=5)
    found = mllm.trace(prefix, reads=[Rows(Site())], generate=5)
    assert found.answers == whole.answers
    for one, other in zip(found, whole, strict=True):
        assert one.rows.sizes["step"] == 5
        np.testing.assert_allclose(one.rows, other.rows, atol=1e-6)


def test_costs_are_counted_apart(mllm, prefix):
    trace = mllm.trace(prefix)
    assert (prefix.cost.forwards, prefix.cost.tokens) == (1, 57)
    assert (trace.cost.forwards, trace.cost.tokens) == (1, 63)
    total = prefix.cost + trace.cost
    assert (total.forwards, total.tokens) == (2, 120)


def test_its_images_are_processed_once(mllm, monkeypatch):
    prefix = mllm.prefix(tiny.samples())
    calls = []
    monkeypatch.setattr(Sample, "load", lambda self, i=0: calls.append(i))
    mllm.trace(prefix, prompt=GENERIC_PROMPT)
    assert calls == []
    assert prefix.samples[0].question == "is it red?"
    assert [t.length for t in prefix.tokens] == [35, 40, 39]


def test_another_models_prefix_is_refused(prefix):
    other = wrap(tiny.llava(), tiny.processor())
    with pytest.raises(ModelError, match=r"made by another model; make one with this model's prefix\(\)"):
        other.trace(prefix)


def test_a_prefix_of_a_prefix_is_refused(mllm, prefix, unchecked):
    with pytest.raises(ModelError, match="prefix takes samples or a batch; got a prefix"):
        mllm.prefix(prefix)


def test_nothing_after_the_last_keys_and_values_is_computed(mllm):
    calls = []
    layers = mllm.adapter.layers(mllm.hf)
    hooks = [
        layer.mlp.register_forward_hook(lambda *_, i=i: calls.append(i)) for i, layer in enumerate(layers)
    ]
    prefix = mllm.prefix(tiny.samples())
    for hook in hooks:
        hook.remove()
    assert calls == [0, 1]
    assert len(prefix.keys) == len(prefix.values) == 3
    assert all(x.shape == (3, 2, 19, 16) for x in (*prefix.keys, *prefix.values))
