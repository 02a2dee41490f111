"""The arithmetic of rows against a written-out attention."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from numpy.testing import assert_allclose
from torch import Tensor

import interp
from interp.conformance.tiny import recipe
from interp.conformance.tiny.kit import build, text_config
from interp.tracing import Knockout, Rows, Site, wrap
from interp.tracing.attention import rows as room
from interp.tracing.attention.rows import (
    Call,
    Heads,
    attend,
    row_outputs,
    row_probabilities,
    row_scores,
    select_rows,
    visible,
)
from tests.tiny import uneven_samples as samples
from tests.tracing.reference_attention import greedy

CPU = torch.device("cpu")


@pytest.fixture
def tensors() -> tuple[Tensor, Tensor, Tensor]:
    """Queries of 6 heads, keys and values of 2, for two samples of 7 tokens."""
    torch.manual_seed(0)
    return torch.randn(2, 6, 7, 4), torch.randn(2, 2, 7, 4), torch.randn(2, 2, 7, 4)


def by_hand(queries, keys, values, mask, scaling=0.5, softcap=None) -> tuple[Tensor, Tensor]:
    """Attention head by head: probabilities and outputs, both (sample, head, query, …)."""
    share = queries.shape[1] // keys.shape[1]
    probabilities, outputs = [], []
    for head in range(queries.shape[1]):
        scores = torch.einsum("nqd,nkd->nqk", queries[:, head], keys[:, head // share]) * scaling
        if softcap is not None:
            scores = softcap * torch.tanh(scores / softcap)
        probabilities.append(torch.softmax(scores.masked_fill(~mask, -math.inf), -1))
        outputs.append(probabilities[-1] @ values[:, head // share])
    return torch.stack(probabilities, 1), torch.stack(outputs, 1)


CAUSAL = torch.ones(7, 7, dtype=torch.bool).tril()


@pytest.mark.parametrize(
    "heads", [(0, 1, 2, 3, 4, 5), (4,), (5, 0), (2, 3, 1), (3, 4, 5), (1, 4), (5, 4, 3, 2, 1, 0)]
)
def test_any_heads_in_any_order(tensors, heads):
    queries, keys, values = tensors
    expected, outputs = by_hand(*tensors, CAUSAL)
    chosen = Heads.of(heads, 6, 2, CPU)
    at = torch.tensor([[6, 2, 3], [0, 5, 5]])
    scores = row_scores(select_rows(queries, at), [keys], heads=chosen, scaling=0.5)
    seen = visible(None, at, n_queries=7, n_keys=7, causal=True)
    found = row_probabilities(scores, seen)
    for sample, rows in enumerate(at):
        torch.testing.assert_close(found[sample], expected[sample][list(heads)][:, rows])
    spliced = row_outputs(found, [values], heads=chosen)
    for sample, rows in enumerate(at):
        torch.testing.assert_close(spliced[sample], outputs[sample][list(heads)][:, rows])


def test_only_needed_key_value_heads_are_read():
    assert Heads.of(range(6), 6, 2, CPU).key_value is None
    assert Heads.of(range(6), 6, 2, CPU).shape == (2, 3)
    chosen = Heads.of((4, 5), 6, 2, CPU)
    assert chosen.key_value.tolist() == [1]
    assert chosen.shape == (1, 2)
    keys = torch.zeros(1, 2, 3, 4)
    assert Heads.of(range(6), 6, 2, CPU).keys(keys) is keys


def test_a_soft_cap_comes_before_the_mask(tensors):
    queries, keys, _ = tensors
    expected, _ = by_hand(*tensors, CAUSAL, softcap=0.7)
    at = torch.arange(7).expand(2, -1)
    scores = row_scores(queries, [keys], heads=Heads.of(range(6), 6, 2, CPU), scaling=0.5, softcap=0.7)
    found = row_probabilities(scores, visible(None, at, n_queries=7, n_keys=7, causal=True))
    torch.testing.assert_close(found, expected)


def test_masks_of_every_kind_mean_the_same():
    at = torch.tensor([[2, 0], [3, 1]])
    padding = torch.tensor([[1, 1, 1, 1], [0, 1, 1, 1]])
    full = torch.ones(4, 4, dtype=torch.bool).tril() & padding[:, None, None].bool()
    additive = torch.zeros(2, 1, 4, 4).masked_fill(~full, torch.finfo(torch.float32).min)
    expected = torch.stack([full[i, :, rows] for i, rows in enumerate(at)])
    options = {"n_queries": 4, "n_keys": 4, "causal": True}
    assert torch.equal(visible(full, at, **options), expected)
    assert torch.equal(visible(additive, at, **options) == 0, expected)
    assert torch.equal(visible(padding, at, **options), expected)  # flash attention's
    assert torch.equal(visible(None, at, **options)[0], expected[0])
    assert visible(None, at, n_queries=4, n_keys=4, causal=False) is None
    assert torch.equal(visible(padding, at, n_queries=4, n_keys=4, causal=False)[1, 0, 0], padding[1].bool())


def test_queries_are_the_last_of_longer_keys():
    at = torch.tensor([[0, 1]])
    seen = visible(None, at, n_queries=2, n_keys=5, causal=True)
    assert seen[0, 0].tolist() == [[True] * 4 + [False], [True] * 5]
    assert visible(None, torch.tensor([[0]]), n_queries=1, n_keys=5, causal=True) is None
    wide = torch.ones(1, 1, 2, 9, dtype=torch.bool)  # a static cache's mask is longer than the keys
    assert visible(wide, at, n_queries=2, n_keys=5, causal=True).shape == (1, 1, 2, 5)


def test_hidden_keys_get_nothing_and_a_row_without_keys_is_zero():
    scores = torch.randn(1, 2, 3, 4)
    hidden = torch.zeros(1, 1, 3, 4, dtype=torch.bool)
    hidden[..., 1, 2] = True
    hidden[..., 2, :] = True
    found = row_probabilities(scores, None, hidden)
    assert (found[..., 1, 2] == 0).all()
    torch.testing.assert_close(found[..., :2, :].sum(-1), torch.ones(1, 2, 2))
    assert (found[..., 2, :] == 0).all()
    assert not row_probabilities(scores, torch.zeros(1, 1, 3, 4, dtype=torch.bool)).any()


def test_half_precision_is_computed_in_float32(tensors):
    queries, keys, values = (x.to(torch.bfloat16) for x in tensors)
    chosen = Heads.of(range(6), 6, 2, CPU)
    scores = row_scores(queries, [keys], heads=chosen, scaling=0.5)
    assert scores.dtype == torch.float32
    expected, _ = by_hand(queries.float(), keys.float(), values.float(), torch.ones(7, 7, dtype=torch.bool))
    probabilities = row_probabilities(scores, None)
    torch.testing.assert_close(probabilities, expected)
    assert row_outputs(probabilities, [values], heads=chosen).dtype == torch.bfloat16


@pytest.mark.parametrize("chunk", [1, 2**26])
@pytest.mark.parametrize("shared", [False, True], ids=["own prefix", "one prefix for all"])
def test_attention_over_segments(tensors, monkeypatch, chunk, shared):
    monkeypatch.setattr(room, "CHUNK_BYTES", chunk)
    queries, keys, values = tensors
    if shared:
        keys, values = (
            torch.cat([x[:1, :, :4].expand(2, -1, -1, -1), x[:, :, 4:]], 2) for x in (keys, values)
        )
    _, expected = by_hand(queries, keys, values, CAUSAL)
    first = slice(0, 1) if shared else slice(None)
    segments = (keys[:, :, 4:], values[:, :, 4:])
    prefix = (keys[first, :, :4], values[first, :, :4])
    call = Call.of(torch.nn.Identity(), (queries[:, :, 4:], *segments), None, {"scaling": 0.5}, prefix)
    found = attend(call, CAUSAL[None, None, 4:])
    assert found.shape == (2, 3, 6, 4)
    assert found.is_contiguous()
    torch.testing.assert_close(found, expected[:, :, 4:].transpose(1, 2))


def test_gradients_flow_through_rows(tensors):
    queries, keys, values = (x.double().float().requires_grad_() for x in tensors)
    expected = torch.autograd.grad(
        by_hand(queries, keys, values, CAUSAL)[1][:, 2, 5].sum(), (queries, keys, values)
    )
    at, chosen = torch.full((2, 1), 5), Heads.of((2,), 6, 2, CPU)
    scores = row_scores(select_rows(queries, at), [keys], heads=chosen, scaling=0.5)
    seen = visible(None, at, n_queries=7, n_keys=7, causal=True)
    output = row_outputs(row_probabilities(scores, seen), [values], heads=chosen)
    for found, other in zip(
        torch.autograd.grad(output.sum(), (queries, keys, values)), expected, strict=True
    ):
        torch.testing.assert_close(found, other)


CAP = 0.5
"""Far below the scores of a tiny model, so that a missing cap shows."""


def capped() -> Any:
    """A tiny PaliGemma whose decoder is an eager Gemma 2."""
    made = recipe("paligemma")
    config = made.config()
    config.text_config = text_config(
        transformers.Gemma2Config,
        head_dim=16,
        query_pre_attn_scalar=16,
        attn_logit_softcapping=CAP,
        final_logit_softcapping=None,
    )
    return build(made.model, config, "eager")


@pytest.mark.parametrize("mode", ["renormalise", "zero"])
def test_rows_and_knockouts_are_those_of_capped_scores(mode: Any) -> None:
    mllm, sample = wrap(capped(), recipe("paligemma").processor()), samples()[0]
    batch = mllm.encode([sample])
    tokens = batch.tokens[0]
    hidden = torch.zeros(1, tokens.length, tokens.length, dtype=torch.bool)
    hidden[0, -1, tokens.image[::2].tolist()] = True
    site = Site(layers=[1], queries="last", keys=interp.image_mask([np.arange(tokens.n) % 2 == 0]))
    trace = mllm.trace(
        [sample], reads=[Rows(Site(queries="last", keys="all"))], edits=[Knockout(site, mode=mode)]
    )
    expected = greedy(capped(), batch.inputs, 1, lambda layer, _: hidden if layer == 1 else None, mode)
    assert_allclose(trace.logits[0], expected.logits[0], atol=2e-5)
    assert_allclose(trace[0].reads[0][:, :, 0], expected.attention[0][:, :, -1], atol=2e-6)
