"""Rows of gated DeltaNet layers: the arithmetic, and a model's own, against the recurrence and its derivatives."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose
from transformers.models.qwen3_5.modeling_qwen3_5 import torch_recurrent_gated_delta_rule

import interp
from interp.conformance.tiny import tiny
from interp.errors import SiteError
from interp.tracing import Mllm, Rows, Site
from interp.tracing.attention.delta_rows import DeltaCall
from tests.tiny import uneven_samples as samples
from tests.tracing.naive_delta import recurrence, written_out

LINEAR = (0, 1, 2, 4, 5, 6)


@pytest.fixture(scope="module")
def mllm() -> Mllm:
    return interp.wrap(*tiny("qwen3_5"))


@pytest.fixture(scope="module")
def plain() -> Any:
    return tiny("qwen3_5")[0]


@pytest.fixture(scope="module")
def seen(mllm, plain) -> list[list[dict[str, torch.Tensor]]]:
    """Each sample's layers: what entered their rule, alone and without padding."""
    found = []
    for sample in samples():
        inputs = {k: v for k, v in mllm.encode(sample).inputs.items() if k != "position_ids"}
        with torch.no_grad(), written_out(plain) as own:
            plain(**inputs, use_cache=False)
        found.append([*own.layers])
    return found


def drawn(n_tokens: int, seed: int = 0) -> dict[str, torch.Tensor]:
    made = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(shape, generator=made)

    query, key, value = normal(2, n_tokens, 2, 8), normal(2, n_tokens, 2, 8), normal(2, n_tokens, 4, 6)
    g = -torch.rand(2, n_tokens, 4, generator=made) / 10
    return {
        "query": query,
        "key": key,
        "value": value,
        "g": g,
        "beta": torch.rand(2, n_tokens, 4, generator=made),
    }


def test_one_token_by_hand():
    """q·k = 0.6 · 1 over √2, β = 0.5: the only weight is 0.3/√2, at unit length to 1e-6."""
    query, key = torch.tensor([0.6, 0.8]).view(1, 1, 1, 2), torch.tensor([1.0, 0.0]).view(1, 1, 1, 2)
    half = torch.full((1, 1, 1), 0.5)
    call = DeltaCall.of(query, key, torch.ones(1, 1, 1, 1), -half, half, unit=True)
    weight = call.weights(torch.zeros(1, 1, dtype=torch.long), torch.zeros(1, dtype=torch.long))
    assert float(weight) == pytest.approx(0.3 / 2**0.5, abs=1e-6)


def test_two_tokens_by_hand():
    """Unit keys k₀ = (1, 0), k₁ = (0.6, 0.8), q = k₀, d = 2: w₁ = β₁·0.6/√2; w₀ = e^g·β₀·(1 − 0.36·β₁)/√2."""
    key = torch.tensor([[1.0, 0.0], [0.6, 0.8]]).view(1, 2, 1, 2)
    query = torch.tensor([[0.0, 1.0], [1.0, 0.0]]).view(1, 2, 1, 2)
    beta, g = torch.tensor([0.5, 0.25]).view(1, 2, 1), torch.tensor([-0.3, -0.2]).view(1, 2, 1)
    call = DeltaCall.of(query, key, torch.ones(1, 2, 1, 1), g, beta, unit=True)
    found = call.weights(torch.ones(1, 1, dtype=torch.long), torch.zeros(1, dtype=torch.long))[0, 0, 0]
    expected = [np.exp(-0.2) * 0.5 * (1 - 0.36 * 0.25) / 2**0.5, 0.25 * 0.6 / 2**0.5]
    assert_allclose(found, expected, atol=1e-6)


@pytest.mark.parametrize("n_tokens", [1, 63, 64, 65, 150])
def test_weights_times_values_are_transformers_rule(n_tokens):
    given = drawn(n_tokens)
    output, _ = torch_recurrent_gated_delta_rule(**given, use_qk_l2norm_in_kernel=True)
    call = DeltaCall.of(**given, unit=True)
    rows = torch.tensor([[n_tokens - 1, 0, n_tokens // 2], [n_tokens // 3, n_tokens - 1, 0]])
    heads = torch.tensor([3, 0])
    weights = call.weights(rows, heads)
    for sample in range(2):
        expected = output[sample, rows[sample]][:, heads].transpose(0, 1)
        assert_allclose(weights[sample] @ call.values[sample, heads], expected, atol=1e-6)
        assert (
            weights[sample].where(torch.arange(n_tokens) > rows[sample][:, None], torch.zeros(())) == 0
        ).all()


def test_weights_without_tokens_are_the_rules_without_them():
    given = drawn(100)
    hidden = torch.rand(2, 1, 3, 100, generator=torch.Generator().manual_seed(1)) < 0.3
    call, rows = DeltaCall.of(**given, unit=True), torch.tensor([[99, 70, 3]] * 2)
    weights = call.weights(rows, torch.arange(4), hidden)
    for place, row in enumerate(rows[0].tolist()):
        own = {**given, "beta": given["beta"].masked_fill(hidden[:, 0, place, :, None], 0.0)}
        output, _ = torch_recurrent_gated_delta_rule(**own, use_qk_l2norm_in_kernel=True)
        assert_allclose((weights[:, :, place, None] @ call.values)[:, :, 0], output[:, row], atol=1e-6)


@pytest.mark.covering
@pytest.mark.parametrize("executor", ["tap", "source"])
@pytest.mark.parametrize("batched", [True, False])
def test_a_models_rows_times_values_are_its_outputs(mllm, seen, executor, batched):
    read = Rows(Site(layers="linear", queries="after_image", keys="all"))
    given = samples() if batched else samples()[:1]
    trace = mllm.using(executor).trace(given, reads=[read])
    for one, layers in zip(trace, seen, strict=False):
        assert one.rows.layer.values.tolist() == list(LINEAR)
        for rows, layer in zip(one.rows, layers, strict=True):
            made = np.einsum("hqk,khd->qhd", rows.values, layer["value"].numpy())
            assert_allclose(made, layer["output"].numpy()[one.rows["query"].values], atol=2e-6)


def test_rows_are_derivatives_of_outputs_in_the_values(mllm, seen):
    """Finite differences of the float64 recurrence, which is linear in the values, in one value dimension."""
    rows = mllm.trace(samples(), reads=[Rows(Site(layers=[4], queries="last", keys="image"))])[0].rows
    layer, tokens = seen[0][3], mllm.encode(samples()).tokens[0]
    given = {name: layer[name] for name in ("query", "key", "value", "g", "beta")}
    for place in (0, tokens.n // 2, tokens.n - 1):
        moved = given["value"].clone()
        moved[tokens.image[place], :, 0] += 1.0
        change = recurrence(**{**given, "value": moved})[-1] - layer["output"][-1]
        assert_allclose(rows[0, :, 0, place], change[:, 0], atol=2e-6)
        assert_allclose(change[:, 1:], 0, atol=1e-9)


@pytest.mark.covering
@pytest.mark.parametrize("executor", ["tap", "source"])
def test_rows_of_generated_tokens_are_those_of_a_longer_prompt(mllm, plain, executor):
    trace = mllm.using(executor).trace(
        samples(), reads=[Rows(Site(layers="linear", queries="last", keys="all"))], generate=3
    )
    for i in (0, 2):
        one, own = trace[i], mllm.encode(samples()[i])
        inputs = {k: v for k, v in own.inputs.items() if k != "position_ids"}
        for step in range(len(one.rows)):
            ids = torch.tensor([list(one.ids[:step])], dtype=torch.long)
            now = {**inputs, "input_ids": torch.cat([inputs["input_ids"], ids], dim=1)}
            now["attention_mask"] = torch.ones_like(now["input_ids"])
            now["mm_token_type_ids"] = torch.nn.functional.pad(inputs["mm_token_type_ids"], (0, step))
            with torch.no_grad(), written_out(plain) as seen:
                plain(**now, use_cache=False)
            layer, n = seen.layers[2], own.tokens[0].length
            given = {name: layer[name] for name in ("query", "key", "value", "g", "beta")}
            given["value"] = torch.zeros_like(given["value"])
            given["value"][n // 2] = 1.0  # only this token speaks
            expected = recurrence(**given)[-1, :, 0]
            assert_allclose(one.rows[step, 2, :, 0, n // 2], expected, atol=2e-6)


def test_averaged_heads_and_chosen_heads(mllm):
    every, mean, some = (
        mllm.trace(samples()[:1], reads=[read])[0].rows
        for read in (
            Rows(Site(layers="linear")),
            Rows(Site(layers="linear"), reduce="head"),
            Rows(Site(heads=[(4, 5), (0, 2)])),
        )
    )
    assert_allclose(mean, every.mean("head"), atol=1e-7)
    assert_allclose(some[0], every.sel(layer=4, head=5), atol=1e-7)
    assert_allclose(some[1], every.sel(layer=0, head=2), atol=1e-7)
    assert some["layer"].values.tolist() == [4, 0]


def test_rows_say_what_they_are(mllm):
    both = mllm.trace(samples()[:1], reads=[Rows(), Rows(Site(layers="linear"))])[0].reads
    assert [one.name for one in both] == ["attention", "linear attention"]
    assert both[0].layer.values.tolist() == [3, 7]
    assert both[1].attrs["signed"] is True
    assert "short convolution" in both[1].attrs["long_name"]
    assert float(both[1].min()) < 0


def test_layers_of_two_kinds_are_refused(mllm):
    with pytest.raises(SiteError, match=r"layers \[2\] of this model are linear .* make two sites"):
        mllm.trace(samples(), reads=[Rows(Site(layers=[2, 3]))])


def test_heads_of_each_kind_are_counted_apart(mllm):
    assert mllm.trace(samples()[:1], reads=[Rows(Site(heads=[(2, 5)]))])[0].rows.shape[0] == 1
    with pytest.raises(SiteError, match="the model has 4 heads, 0 … 3; got head 5"):
        mllm.trace(samples(), reads=[Rows(Site(heads=[(3, 5)]))])


def test_models_without_such_layers_have_none_to_name():
    with pytest.raises(
        SiteError, match="layers='linear' selects nothing: the model's 3 layers are of the kind 'attention'"
    ):
        interp.wrap(*tiny("llava")).trace(samples(), reads=[Rows(Site(layers="linear"))])


def test_the_stream_is_read_after_layers_of_every_kind(mllm):
    reads = [interp.Residual(layers) for layers in ("all", "linear", "attention")]
    found = mllm.trace(samples()[:1], reads=reads)[0].reads
    assert [one.layer.values.tolist() for one in found] == [list(range(8)), list(LINEAR), [3, 7]]
