"""Rows read in a run, against transformers' eager attention of each sample alone."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import xarray as xr

import interp.tracing.attention.rows as rows_module
import tests.tiny as tiny
from interp.errors import PromptError, SampleError, SiteError
from interp.inputs.prompt import GENERIC_PROMPT, Prompt
from interp.inputs.tokens import word
from interp.tracing import Mllm, Rows, Site, image_mask, positions, wrap
from interp.tracing.attention.rows import Call


def read(mllm: Mllm, samples, site: Site, **options):
    return mllm.trace(samples, reads=[Rows(site, **options)])


@pytest.mark.parametrize("padded", [False, True], ids=["alone", "left-padded"])
def test_last_rows_equal_eager(mllm, batch, attentions, padded):
    assert sorted(batch.pad) == [0, 1, 5]  # the batch really is ragged
    samples = tiny.samples()
    traces = list(read(mllm, samples, Site())) if padded else [read(mllm, s, Site())[0] for s in samples]
    for found, expected, tokens in zip(traces, attentions, batch.tokens, strict=True):
        assert found.rows.dims == ("layer", "head", "query", "token")
        np.testing.assert_allclose(
            found.rows[:, :, 0], expected[:, :, -1][..., tokens.image], atol=1e-6, rtol=0
        )


@pytest.mark.parametrize(
    ("group", "where"),
    [
        ("all", lambda t: np.arange(t.length)),
        ("after_image", lambda t: np.arange(t.image[-1] + 1, t.length)),
        ("text", lambda t: np.setdiff1d(np.arange(t.length), t.image)),
        ("image", lambda t: t.image),
        ("question", lambda t: t.spans["question"]),
        (positions([9, 2]), lambda t: np.array([2, 9])),
        (("last", positions([3])), lambda t: np.array([3, t.length - 1])),
        (image_mask(np.arange(16) % 3 == 0), lambda t: t.image[::3]),
    ],
    ids=["all", "after_image", "text", "image", "question", "positions", "several", "image_mask"],
)
@pytest.mark.parametrize("axis", ["queries", "keys"])
def test_groups_of_queries_and_keys_equal_eager(mllm, batch, attentions, group, where, axis):
    site = Site(queries=group, keys="all") if axis == "queries" else Site(queries="all", keys=group)
    trace = read(mllm, batch, site)
    for found, full, tokens in zip(trace, attentions, batch.tokens, strict=True):
        at = where(tokens)
        expected = full[:, :, at] if axis == "queries" else full[..., at]
        np.testing.assert_allclose(found.rows, expected, atol=1e-6, rtol=0)
        np.testing.assert_array_equal(found.rows["query" if axis == "queries" else "position"], at)


def test_a_word_is_read_where_the_question_holds_it(mllm, batch, attentions):
    sample = tiny.samples()[1]
    rows = read(mllm, sample, Site(queries=word("nodule"), keys="all"))[0].rows
    at = batch.tokens[1].positions(word("nodule"))
    assert rows["query"].values.tolist() == at.tolist()
    ids = batch.singles[1].inputs["input_ids"][0]
    assert mllm.processor.tokenizer.decode(ids[at]) == "nodule"
    np.testing.assert_allclose(rows[:, :, 0], attentions[1][:, :, at[0]], atol=1e-6, rtol=0)


def test_masks_per_sample_are_each_samples_own(mllm, batch, attentions):
    masks = [np.arange(16) == 3, np.arange(16) < 2, np.arange(16) > 13]
    trace = read(mllm, batch, Site(keys=image_mask(masks)))
    for found, full, tokens, mask in zip(trace, attentions, batch.tokens, masks, strict=True):
        assert found.rows.token.values.tolist() == np.flatnonzero(mask).tolist()
        np.testing.assert_allclose(
            found.rows[:, :, 0], full[:, :, -1][..., tokens.image[mask]], atol=1e-6, rtol=0
        )


def test_layers_and_heads_come_in_the_order_asked_for(mllm, batch, attentions):
    rows = read(mllm, batch, Site(layers=[2, 0], heads=[3, 1, 0], keys="all"))[0].rows
    assert rows.layer.values.tolist() == [2, 0]
    assert rows["head"].values.tolist() == [3, 1, 0]
    np.testing.assert_allclose(rows[:, :, 0], attentions[0][[2, 0]][:, [3, 1, 0], -1], atol=1e-6, rtol=0)


def test_pairs_come_in_the_order_asked_for(mllm, batch, attentions):
    pairs = [(2, 1), (0, 3), (2, 0), (0, 1)]
    rows = read(mllm, batch, Site(heads=pairs, keys="all"))[1].rows
    assert rows.dims == ("head", "query", "key")
    assert list(rows.indexes["head"]) == pairs
    for pair in pairs:
        expected = attentions[1][pair[0], pair[1], -1]
        np.testing.assert_allclose(rows.sel(head=pair)[0], expected, atol=1e-6, rtol=0)
    np.testing.assert_array_equal(rows.sel(layer=0)["head_in_layer"], [3, 1])


def test_reduce_is_the_mean_over_the_sites_heads(mllm, batch, attentions):
    rows = read(mllm, batch, Site(layers=[1], heads=[0, 3], queries="after_image"), reduce="head")[2].rows
    assert rows.dims == ("layer", "query", "token")
    tokens = batch.tokens[2]
    expected = attentions[2][1, [0, 3]].mean(axis=0)[tokens.positions("after_image")][:, tokens.image]
    np.testing.assert_allclose(rows[0], expected, atol=1e-6, rtol=0)


def test_reduce_with_pairs_averages_each_layers_own_heads(mllm, batch, attentions):
    site = Site(heads=[(2, 1), (0, 3), (2, 0)], keys="all")
    rows = read(mllm, batch, site, reduce="head")[0].rows
    assert rows.layer.values.tolist() == [2, 0]
    np.testing.assert_allclose(rows[0, 0], attentions[0][2, [0, 1], -1].mean(axis=0), atol=1e-6, rtol=0)
    np.testing.assert_allclose(rows[1, 0], attentions[0][0, 3, -1], atol=1e-6, rtol=0)


def test_several_reads_come_back_in_order(mllm, batch, attentions):
    trace = mllm.trace(
        batch, reads=[Rows(Site(layers=[2])), Rows(Site(layers=[0], queries="all", keys="all"))]
    )
    first, second = trace[1].reads
    np.testing.assert_allclose(first[0, :, 0], attentions[1][2, :, -1][:, batch.tokens[1].image], atol=1e-6)
    np.testing.assert_allclose(second[0], attentions[1][0], atol=1e-6)
    with pytest.raises(
        SiteError,
        match=r"the trace has 2 reads of attention, but \.rows needs exactly one\. Use trace\[i\]\.reads",
    ):
        _ = trace[1].rows
    with pytest.raises(SiteError, match=r"the trace has 0 reads.*reads=\[interp\.Rows"):
        _ = mllm.trace(batch).rows


def test_rows_do_not_depend_on_batch_mates(mllm):
    first = tiny.samples()[0]
    alone = read(mllm, first, Site(queries="after_image", keys="all"))
    for mates in (tiny.samples()[1:], [tiny.sample("what is in the lung? " * 5, seed=9)]):
        together = read(mllm, [*mates, first], Site(queries="after_image", keys="all"))
        np.testing.assert_allclose(together[-1].rows, alone[0].rows, atol=1e-6, rtol=0)
        np.testing.assert_allclose(together.logits[-1], alone.logits[0], atol=1e-5, rtol=0)


def test_reading_and_an_idle_tap_leave_the_model_bit_equal(mllm, plain, batch):
    for inputs in (batch.inputs, {**batch.singles[0].inputs}):
        with torch.no_grad():
            expected = plain(**inputs).logits
            found = mllm.hf(**inputs).logits
        assert torch.equal(found, expected)
    with torch.no_grad():
        expected = plain(**batch.inputs, logits_to_keep=1, use_cache=False).logits[:, -1]
    assert torch.equal(torch.from_numpy(mllm.trace(batch).logits.values), expected)
    trace = read(mllm, batch, Site(queries="all", keys="all"))
    assert torch.equal(torch.from_numpy(trace.logits.values), expected)


def test_only_the_rows_heads_and_layers_asked_for_are_computed(mllm, batch, monkeypatch):
    seen = []
    compute = Call.probabilities

    def spy(call, block, *rest):
        found = compute(call, block, *rest)
        seen.append((call.module.layer_idx, tuple(found.shape)))
        return found

    monkeypatch.setattr(Call, "probabilities", spy)
    read(mllm, batch, Site(layers=[2, 1], heads=[1], queries=("last", positions([3]))))
    assert seen == [(1, (3, 1, 2, 40)), (2, (3, 1, 2, 40))]
    assert all("_interp_work" not in a.__dict__ for a in mllm.installation.attentions)


def test_keys_are_never_repeated_for_grouped_queries(mllm, batch, monkeypatch):
    kinds = set()
    product = rows_module._product

    def spy(left, right):
        kinds.add(right.shape[1])
        return product(left, right)

    monkeypatch.setattr(rows_module, "_product", spy)
    read(mllm, batch, Site())
    assert kinds == {mllm.n_key_value_heads} == {2}
    kinds.clear()
    read(mllm, batch, Site(heads=[3]))
    assert kinds == {1}


def test_an_eager_model_stays_eager_and_reads_the_same(eager, batch, attentions):
    mllm = wrap(tiny.llava("eager"), tiny.processor())
    trace = read(mllm, batch, Site(queries="all", keys="all"))
    for found, expected in zip(trace, attentions, strict=True):
        np.testing.assert_allclose(found.rows, expected, atol=1e-6, rtol=0)
    with torch.no_grad():
        logits = eager(**batch.inputs, use_cache=False, logits_to_keep=1).logits[:, -1]
    np.testing.assert_array_equal(trace.logits, logits)


def test_one_key_value_head_for_each_head_works_too(batch):
    options = {"heads": 4, "key_value_heads": 4}
    mllm = wrap(tiny.llava(**options), tiny.processor())
    eager = tiny.llava("eager", **options)
    trace = read(mllm, batch, Site(heads=[2, 0], queries="after_image", keys="all"))
    with torch.no_grad():
        full = torch.stack(eager(**batch.inputs, output_attentions=True).attentions)[:, 2, :, 1:, 1:].numpy()
    expected = full[:, [2, 0]][:, :, batch.tokens[2].positions("after_image")]
    np.testing.assert_allclose(trace[2].rows, expected, atol=1e-6, rtol=0)


def test_bfloat16_rows_are_float32_and_near(batch, attentions):
    mllm = wrap(tiny.llava().to(torch.bfloat16), tiny.processor())
    trace = read(mllm, tiny.samples(), Site(layers=[0]))
    assert trace[0].rows.dtype == np.float32
    np.testing.assert_allclose(trace[0].rows.sum("token") <= 1, True)
    for found, full, tokens in zip(trace, attentions, batch.tokens, strict=True):
        np.testing.assert_allclose(found.rows[0, :, 0], full[0, :, -1][:, tokens.image], atol=0.02)


def test_full_rows_sum_to_one_and_see_nothing_ahead(mllm, batch):
    for sample in read(mllm, batch, Site(queries="all", keys="all")):
        np.testing.assert_allclose(sample.rows.sum("key"), 1, atol=1e-6)
        assert not np.triu(sample.rows.values, 1).any()


def test_trace_gives_logits_tokens_and_cost(mllm, plain, batch):
    trace = mllm.trace(tiny.samples())
    assert trace.logits.dims == ("sample", "token_id")
    with torch.no_grad():
        expected = [plain(**single.inputs).logits[0, -1] for single in batch.singles]
    np.testing.assert_allclose(trace.logits, torch.stack(expected), atol=1e-5)
    assert [t.length for t in trace.tokens] == [35, 40, 39]
    assert trace.answers == []
    assert (trace.cost.forwards, trace.cost.backwards, trace.cost.tokens) == (1, 0, 120)
    assert trace.cost.seconds > 0
    assert trace.cost.peak_bytes > 10**6
    assert len(trace) == 3
    assert [one.tokens.length for one in trace[1:]] == [40, 39]


def test_the_joined_rows_are_padded_with_nan(mllm, batch):
    trace = read(mllm, batch, Site(queries="after_image", keys="all"))
    joined = trace.rows
    assert joined.dims == ("sample", "layer", "head", "query", "key")
    assert joined.shape == (3, 3, 4, 21, 40)
    for i, sample in enumerate(trace):
        n_queries, n_keys = sample.rows.shape[-2:]
        np.testing.assert_array_equal(joined[i, :, :, :n_queries, :n_keys], sample.rows)
        assert np.isnan(joined[i, :, :, n_queries:]).all()
        assert np.isnan(joined[i, ..., n_keys:]).all()
        np.testing.assert_array_equal(joined.position[i, :n_keys], sample.rows.position)
        assert np.isnan(joined.position[i, n_keys:]).all()
    image = read(mllm, batch, Site()).rows
    assert image.sizes == {"sample": 3, "layer": 3, "head": 4, "query": 1, "token": 16}
    assert not image.isnull().any()
    assert isinstance(image, xr.DataArray)


def test_a_batch_may_be_asked_again_with_another_prompt(mllm, batch):
    again = mllm.trace(batch, prompt=GENERIC_PROMPT, reads=[Rows(Site())])
    anew = mllm.trace(tiny.samples(), prompt=GENERIC_PROMPT, reads=[Rows(Site())])
    np.testing.assert_array_equal(again.logits, anew.logits)
    np.testing.assert_array_equal(again[1].rows, anew[1].rows)
    assert again.tokens[0].length != batch.tokens[0].length


def test_dropout_is_off_and_the_generator_is_restored(batch):
    plain, mllm = (wrap(tiny.llava(), tiny.processor()) for _ in range(2))
    for attention in mllm.installation.attentions:
        attention.attention_dropout = 0.5
        attention.training = True
    torch.manual_seed(7)
    expected = torch.rand(1)
    torch.manual_seed(7)
    logits = mllm.trace(batch, seed=1).logits
    assert torch.equal(torch.rand(1), expected)
    np.testing.assert_array_equal(logits, plain.trace(batch).logits)


def test_what_cannot_be_read_is_refused_with_what_can(mllm, batch):
    cases = [
        (Site(layers=[3]), r"the model has 3 layers, 0 … 2; got layer 3"),
        (Site(heads=[0, 4]), r"the model has 4 heads, 0 … 3; got head 4"),
        (Site(heads=[(0, 7)]), r"the model has 4 heads, 0 … 3; got head 7"),
        (Site(queries="rows"), r"groups 'last', 'after_image', 'text', 'image', 'question'.*got 'rows'"),
        (Site(keys=positions([0, 38])), r"sample 0 of the batch has 35 prompt tokens.*0 to 34; got 38"),
        (
            Site(keys=image_mask(np.ones(9, bool))),
            r"each of the 16 image tokens of sample 0 of the batch; got 9 values",
        ),
        (Site(keys=image_mask(np.ones((2, 16), bool))), r"2 masks for a batch of 3 samples"),
        (
            Site(keys=image_mask(np.zeros(16, bool))),
            r"selects nothing in sample 0.*35 tokens, 16 of them image",
        ),
        (
            Site(queries="answer"),
            r"rows of generated tokens, but generate=0 gives none of them a row.*generate=2 or more",
        ),
        (
            Site(keys="answer"),
            r"'answer' is a group of tokens that the model generates.*not keys or positions",
        ),
        (Site(queries=word("heart")), r"does not hold the word 'heart'"),
    ]
    for site, message in cases:
        with pytest.raises(SiteError, match=message):
            read(mllm, batch, site)
    with pytest.raises(SiteError, match=r"'question'.*A generic prompt has no question"):
        mllm.trace(batch, prompt=GENERIC_PROMPT, reads=[Rows(Site(queries="question"))])


def test_wrong_arguments_are_refused(mllm, batch, unchecked):
    with pytest.raises(SampleError, match="expected at least one sample; got none"):
        mllm.trace([])
    with pytest.raises(SampleError, match=r"expected interp.Sample values; got 'a'"):
        mllm.trace(["a"])
    with pytest.raises(SampleError, match="expected samples; got 3"):
        mllm.trace(3)
    with pytest.raises(SiteError, match=r"reads= is a list of reads.*Write reads=\[Rows"):
        mllm.trace(batch, reads=Rows())
    with pytest.raises(SiteError, match=r"reads= takes reads such as interp.Rows\(site\); got Site"):
        mllm.trace(batch, reads=[Site()])
    with pytest.raises(PromptError, match=r"generate= is a number of tokens, 0 or more; got -1"):
        mllm.trace(batch, generate=-1)


def test_a_shorter_prompt_gives_a_shorter_sequence(mllm, batch):
    assert mllm.trace(batch, prompt=Prompt("{question}")).tokens[0].length < batch.tokens[0].length
