"""Value-weighted attention and rollout against eager weights, hooks on v_proj and o_proj, and whole products."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from interp.conformance.tiny import tiny
from interp.errors import MapError, ModelError
from interp.indicators import Rollout, ValueWeightedAttention
from interp.tracing import Mllm, wrap
from tests.tiny import uneven_samples as samples


@pytest.fixture(scope="module", params=["llava", "qwen2_5_vl", "qwen3_vl", "gemma3", "paligemma"])
def mllm(request) -> Mllm:
    return wrap(*tiny(request.param))


@pytest.fixture(scope="module")
def eager(mllm) -> Any:
    return tiny(mllm.family, "eager")[0]


def run(mllm: Mllm, eager: Any, sample: Any) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Each layer's attention (head, row, key), and what v_proj gives (position, all key-value heads)."""
    inputs = {k: v for k, v in mllm.encode(sample).inputs.items() if k != "position_ids"}
    values: list[np.ndarray] = []
    layers = eager.get_decoder().layers
    hooks = [
        layer.self_attn.v_proj.register_forward_hook(lambda *call: values.append(call[2][0].numpy()))
        for layer in layers
    ]
    with torch.no_grad():
        attentions = eager(**inputs, output_attentions=True).attentions
    for hook in hooks:
        hook.remove()
    return [one[0].numpy() for one in attentions], values


def test_it_is_the_length_of_what_each_head_sends(mllm, eager):
    per_head = ValueWeightedAttention(per_head=True)(mllm, samples())
    means = ValueWeightedAttention(layers=[1, 0])(mllm, mllm.prefix(samples()))
    for i, sample in enumerate(samples()):
        attentions, values = run(mllm, eager, sample)
        image = per_head.tokens[i].image
        expected = np.empty((mllm.n_layers, mllm.n_heads, len(image)))
        for layer, (attention, value) in enumerate(zip(attentions, values, strict=True)):
            weight = eager.get_decoder().layers[layer].self_attn.o_proj.weight.detach().numpy().T
            dim = weight.shape[0] // mllm.n_heads
            for head in range(mllm.n_heads):
                shared = head // (mllm.n_heads // mllm.n_key_value_heads)
                sent = value[image, shared * dim : shared * dim + dim] @ weight[head * dim : head * dim + dim]
                expected[layer, head] = attention[head, -1, image] * np.linalg.norm(sent, axis=1)
        np.testing.assert_allclose(per_head[i], expected, rtol=2e-5, atol=1e-7 * expected.max())
        np.testing.assert_allclose(
            means[i], expected.mean(axis=1)[[1, 0]], rtol=2e-5, atol=1e-7 * expected.max()
        )
    np.testing.assert_allclose(per_head.logits, mllm.trace(samples()).logits, atol=3e-5)
    assert (per_head.cost.forwards, per_head.cost.backwards) == (1, 0)
    if mllm.family == "llava":
        assert means.cost.tokens < per_head.cost.tokens, "after a prefix only the rest is run"


def test_rollout_is_the_product_of_whole_matrices(mllm, eager, monkeypatch):
    monkeypatch.setattr(
        "interp.tracing.derived.rollout_rows.CHUNK_BYTES", 4 * 3 * mllm.n_heads * 40 * 7
    )  # a few rows at a time
    found = Rollout()(mllm, samples())
    for i, sample in enumerate(samples()):
        product = np.eye(found.tokens[i].length)
        for attention in run(mllm, eager, sample)[0]:
            product = (np.eye(len(product)) + attention.mean(axis=0)) / 2 @ product
        np.testing.assert_allclose(found[i], product[-1, found.tokens[i].image], rtol=1e-4)
    assert json.dumps(Rollout().to_dict()) == '{"indicator": "rollout"}'


class Adapted(nn.Linear):
    """A matrix and a low-rank one beside it, as peft has them."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(x) + 0.1 * x.flip(-1)


def changed(change: Any) -> Mllm:
    model, processor = tiny("llava")
    for layer in model.get_decoder().layers:
        change(layer.self_attn)
    return wrap(model, processor)


def test_a_matrix_with_an_adapter_counts_whole():
    def adapt(attention: Any) -> None:
        old = attention.o_proj
        attention.o_proj = Adapted(old.in_features, old.out_features)  # with a bias, which does not count
        attention.o_proj.weight = old.weight

    def merge(attention: Any) -> None:
        attention.o_proj.weight.data += 0.1 * torch.eye(attention.o_proj.in_features).flip(0)

    mllm = changed(adapt)
    found = ValueWeightedAttention(layers=[0])(mllm, samples()[0])
    expected = ValueWeightedAttention(layers=[0])(changed(merge), samples()[0])
    np.testing.assert_allclose(found[0], expected[0], rtol=1e-4)


def test_head_outputs_changed_on_their_way_are_refused(unchecked):
    def gate(attention: Any) -> None:
        attention.o_proj.register_forward_pre_hook(lambda _, given: (given[0] * 0.5,))

    def rename(attention: Any) -> None:
        attention.out = attention.o_proj
        attention.forward = lambda *_, **__: None
        del attention.o_proj

    with pytest.raises(ModelError, match=r"LlamaAttention does something to them before.*Use Attention\(\)"):
        ValueWeightedAttention()(changed(gate), samples())
    with pytest.raises(ModelError, match=r"as LlamaAttention\.o_proj; it has q_proj, k_proj, v_proj"):
        ValueWeightedAttention()(changed(rename), samples())
    with pytest.raises(MapError, match="per_head is True or False; got 3"):
        ValueWeightedAttention(per_head=3)
