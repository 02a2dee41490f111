"""The routing of experts, against routers computed apart and layers mixed expert by expert."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from numpy.testing import assert_allclose
from torch import Tensor, nn
from torch.nn.functional import linear

import interp
from interp.conformance.tiny import tiny
from interp.errors import ModelError, SiteError
from interp.tracing import Experts, Knockout, Mllm, Rows, Site, wrap
from interp.tracing.layers import mlp_and_experts
from tests.tiny import uneven_samples as samples
from tests.tracing.reference_attention import greedy, layers_of

N = 3  # generated tokens


def by_softmax(router: Any, hidden: Tensor) -> Tensor:
    """The two most likely experts, sharing a weight of 1."""
    odds = (hidden @ router.weight.T).double().exp()
    return _of_top(odds / odds.sum(-1, keepdim=True), odds, 2, 1.0)


def by_groups(router: Any, hidden: Tensor) -> Tensor:
    """Sigmoids; a bias for the choice: two of the four groups of two experts by their sum, then two experts."""
    scores = torch.special.expit((hidden @ router.weight.T).double())
    biased = scores + router.e_score_correction_bias
    groups = biased.reshape(-1, 4, 2).sum(-1)
    barred = groups < groups.sort(dim=-1, descending=True).values[:, 1:2]
    return _of_top(scores, biased.masked_fill(barred.repeat_interleave(2, dim=-1), -torch.inf), 2, 1.5)


def by_sigmoid(router: Any, hidden: Tensor) -> Tensor:
    """The best expert's sigmoid."""
    logits = (hidden @ router.weight.T).double()
    return torch.where(logits == logits.amax(-1, keepdim=True), torch.special.expit(logits), 0.0)


def _of_top(weights: Tensor, order: Tensor, k: int, total: float) -> Tensor:
    kept = torch.where(order >= order.sort(dim=-1, descending=True).values[:, k - 1 : k], weights, 0.0)
    return total * kept / kept.sum(-1, keepdim=True)


Route = Callable[[Any, Tensor], Tensor]
FAMILIES: dict[str, tuple[str, Route]] = {
    "qwen3_vl_moe": ("mlp.gate", by_softmax),
    "glm4v_moe": ("mlp.gate", by_groups),
    "llama4": ("feed_forward.router", by_sigmoid),
}


@pytest.fixture(scope="module", params=FAMILIES)
def mllm(request) -> Mllm:
    return wrap(*tiny(request.param))


@pytest.fixture(scope="module")
def eager(mllm) -> Any:
    return tiny(mllm.family, "eager")[0]


@contextmanager
def routing(mllm: Mllm, eager: Any) -> Iterator[dict[int, list[np.ndarray]]]:
    """By layer, the routing of each pass of the block, from what enters the router: (row, expert)."""
    path, route = FAMILIES[mllm.family]
    found: dict[int, list[np.ndarray]] = {layer: [] for layer in (1, 2)}
    hooks = []
    for layer, passes in found.items():
        router = layers_of(eager)[layer].get_submodule(path)

        def keep(module: nn.Module, given: tuple[Tensor, ...], passes=passes) -> None:
            passes.append(route(module, given[0].detach().flatten(0, -2)).numpy())

        hooks.append(router.register_forward_pre_hook(keep))
    yield found
    for hook in hooks:
        hook.remove()


@pytest.mark.parametrize("executor", ["tap", "source"])
def test_routing_is_the_routers_own(mllm, eager, executor):
    reads = [Experts(), Experts(layers=[2], tokens=("last", "question"))]
    trace = mllm.using(executor).trace(samples(), reads=reads)
    for i, sample in enumerate(samples()):
        with routing(mllm, eager) as found, torch.no_grad():
            eager(**mllm.encode(sample).inputs)
        of_image, of_question = trace[i].reads
        assert of_image.dims == ("layer", "token", "expert")
        assert of_image["layer"].values.tolist() == [1, 2]
        assert of_image["token"].values.tolist() == list(range(trace.tokens[i].n))
        assert_allclose(of_image["position"], trace.tokens[i].image)
        for layer in (1, 2):
            assert_allclose(of_image.sel(layer=layer), found[layer][0][trace.tokens[i].image], atol=2e-6)
        assert of_question.dims == ("layer", "position", "expert")
        assert_allclose(of_question[0], found[2][0][of_question["position"].values], atol=2e-6)


@pytest.mark.parametrize("executor", ["tap", "source"])
def test_routing_while_generating_and_under_an_edit(mllm, eager, executor):
    mask = np.arange(mllm.encode(samples()[1]).tokens[0].n) % 3 > 0
    edit = Knockout(
        Site(layers=[0, 1], queries=("after_image", "answer"), keys=interp.image_mask(mask)), steps="all"
    )
    reads = [Experts(tokens="last"), Rows(Site(queries="last"))]
    trace = mllm.using(executor).trace(samples()[1], reads=reads, edits=[edit], generate=N)
    tokens = trace.tokens[0]

    def hide(layer: int, n: int) -> Tensor | None:
        hidden = torch.zeros(n, n, dtype=torch.bool)
        hidden[int(tokens.image[-1]) + 1 :, tokens.image[mask]] = True
        return hidden if layer in (0, 1) else None

    with routing(mllm, eager) as found:
        greedy(eager, mllm.encode(samples()[1]).inputs, N, hide=hide)
    own = trace[0].experts
    assert own.dims == ("step", "layer", "position", "expert")
    assert own.sizes["step"] == trace[0].rows.sizes["step"]
    for step in range(own.sizes["step"]):
        for layer in (1, 2):
            assert_allclose(own.sel(step=step, layer=layer)[0], found[layer][step][-1], atol=2e-6)
    plain = mllm.trace(samples()[1], reads=reads[:1])[0].experts
    assert np.abs(own[0].values - plain.values).max() > 1e-4


def test_after_a_prefix_it_is_as_without(mllm):
    prefix = mllm.prefix(samples()[1])
    reads = [Experts(tokens="question")]
    whole, after = mllm.trace(samples()[1], reads=reads), mllm.trace(prefix, reads=reads)
    assert after.cost.tokens < whole.cost.tokens
    assert_allclose(after[0].experts, whole[0].experts, atol=5e-6)
    # the image's own rows are before the end of the prefix: the whole prompt runs
    assert mllm.trace(prefix, reads=[Experts()]).cost.tokens == whole.cost.tokens


def block(kind: str, config: Any) -> Any:
    module = transformers.models
    for name in kind.split("."):
        module = getattr(module, name)
    torch.manual_seed(0)
    made = module(config)
    for name, weight in [*made.named_parameters(), *made.named_buffers()]:
        nn.init.normal_(weight, std=0.05 if name.endswith("bias") else 0.3)
    return made.eval()


SIZES: dict[str, Any] = {
    "hidden_size": 8,
    "moe_intermediate_size": 6,
    "intermediate_size": 6,
    "num_experts_per_tok": 2,
}
GLM = {"n_routed_experts": 8, "n_group": 4, "topk_group": 2, "routed_scaling_factor": 1.5}
BLOCKS = {
    "AriaTextTopKRouter": partial(
        block,
        "aria.modeling_aria.AriaTextMoELayer",
        transformers.AriaTextConfig(
            hidden_size=8, intermediate_size=6, num_attention_heads=2, moe_num_experts=5, moe_topk=2
        ),
    ),
    "Qwen3VLMoeTextTopKRouter": partial(
        block,
        "qwen3_vl_moe.modeling_qwen3_vl_moe.Qwen3VLMoeTextSparseMoeBlock",
        transformers.Qwen3VLMoeTextConfig(**SIZES, num_experts=5),
    ),
    "Qwen3_5MoeTopKRouter": partial(
        block,
        "qwen3_5_moe.modeling_qwen3_5_moe.Qwen3_5MoeSparseMoeBlock",
        transformers.Qwen3_5MoeTextConfig(
            hidden_size=8,
            moe_intermediate_size=6,
            num_experts_per_tok=2,
            num_experts=5,
            shared_expert_intermediate_size=6,
        ),
    ),
    "Qwen3MoeTopKRouter": partial(
        block,
        "qwen3_moe.modeling_qwen3_moe.Qwen3MoeSparseMoeBlock",
        transformers.Qwen3MoeConfig(**SIZES, num_experts=5, norm_topk_prob=False),
    ),
    "MixtralTopKRouter": partial(
        block,
        "mixtral.modeling_mixtral.MixtralSparseMoeBlock",
        transformers.MixtralConfig(
            hidden_size=8, intermediate_size=6, num_experts_per_tok=2, num_local_experts=5
        ),
    ),
    "Glm4vMoeTextTopkRouter": partial(
        block, "glm4v_moe.modeling_glm4v_moe.Glm4vMoeTextMoE", transformers.Glm4vMoeTextConfig(**SIZES, **GLM)
    ),
    "Llama4Router": partial(
        block,
        "llama4.modeling_llama4.Llama4TextMoe",
        transformers.Llama4TextConfig(
            hidden_size=8, intermediate_size=6, num_experts_per_tok=2, num_local_experts=5
        ),
    ),
}


def one_expert(of: Any, number: int, x: Tensor) -> Tensor:
    """An expert's output, by hand: its two first products gated, then the last."""
    first, last = of.gate_up_proj[number], of.down_proj[number]
    if type(of).__name__ in (
        "AriaExperts",
        "Llama4TextExperts",
    ):  # their matrices are stored the other way round
        first, last = first.T, last.T
    gate, up = linear(x, first).chunk(2, dim=-1)
    return linear(nn.functional.silu(gate) * up, last)


def shared(layer: Any, x: Tensor) -> Tensor | float:
    """What every token gets besides its experts."""
    if hasattr(layer, "shared_expert_gate"):
        return torch.sigmoid(layer.shared_expert_gate(x)) * layer.shared_expert(x)
    one = getattr(layer, "shared_experts", getattr(layer, "shared_expert", None))
    return 0.0 if one is None else one(x)


@pytest.mark.parametrize("kind", BLOCKS)
def test_the_weights_mix_the_layers_experts(kind):
    layer = BLOCKS[kind]()
    (path,) = mlp_and_experts.router_paths([layer]).values()
    router = layer.get_submodule(path)
    assert type(router).__name__ == kind
    x = torch.randn(1, 7, 8)
    with torch.no_grad():
        given = layer(x)
        given = (given[0] if isinstance(given, tuple) else given).reshape(7, 8)
        weights = mlp_and_experts.ROUTERS[kind](router(x[0]))
        n = weights.shape[1]
        assert ((weights > 0).sum(-1) == 2).all()
        if kind == "Llama4Router":
            mixed = sum(one_expert(layer.experts, e, x[0] * weights[:, e : e + 1]) for e in range(n))
        else:
            mixed = sum(weights[:, e : e + 1] * one_expert(layer.experts, e, x[0]) for e in range(n))
        assert_allclose(given, mixed + shared(layer, x[0]), atol=1e-5)


def test_gemma_4_mixes_by_the_same_weights():
    """Its router and experts stand side by side in the decoder layer."""
    config = transformers.Gemma4TextConfig(
        hidden_size=8, num_experts=5, top_k_experts=2, moe_intermediate_size=6, enable_moe_block=True
    )
    router = block("gemma4.modeling_gemma4.Gemma4TextRouter", config)
    of = block("gemma4.modeling_gemma4.Gemma4TextExperts", config)
    x = torch.randn(7, 8)
    with torch.no_grad():
        weights = mlp_and_experts.ROUTERS["Gemma4TextRouter"](router(x))
        _, given, numbers = router(x)
        gates = [linear(x, one).chunk(2, dim=-1) for one in of.gate_up_proj]
        outs = [linear(of.act_fn(g) * u, last) for (g, u), last in zip(gates, of.down_proj, strict=True)]
        mixed = sum(weights[:, e : e + 1] * outs[e] for e in range(5))
        assert_allclose(of(x, numbers, given), mixed, atol=1e-5)


def test_every_router_is_recomputed():
    assert {*BLOCKS, "Gemma4TextRouter"} == set(mlp_and_experts.ROUTERS)


def test_layers_without_experts_are_refused_by_name(mllm):
    with pytest.raises(
        SiteError, match=r"layers with experts are 1, 2; Experts names \[0, 7\].*layers=\"all\""
    ):
        mllm.trace(samples()[:1], reads=[Experts(layers=[0, 2, 7])])


def test_a_dense_model_has_no_routing():
    with pytest.raises(SiteError, match=r"no layer of this model has a router.*glm4v_moe"):
        wrap(*tiny("qwen2_vl")).trace(samples()[:1], reads=[Experts()])


def test_a_router_that_is_not_known(mllm, monkeypatch):
    (kind, *_) = [type(m).__name__ for m in mllm.hf.modules() if type(m).__name__ in mlp_and_experts.ROUTERS]
    monkeypatch.delitem(mlp_and_experts.ROUTERS, kind)
    with pytest.raises(ModelError, match=r"layer 1 \(.*\) has experts, but no router that Experts can read"):
        mlp_and_experts.router_paths(mllm.adapter.layers(mllm.hf))


def test_it_is_a_value():
    read = Experts(layers=[2, 1], tokens=interp.positions([4, 3]))
    assert read == Experts(layers=(2, 1), tokens=interp.positions([3, 4]))
    assert hash(read) == hash(Experts(layers=(2, 1), tokens=interp.positions([3, 4])))
    assert read.to_dict() == {"experts": {"layers": [2, 1], "tokens": [{"positions": [3, 4]}]}}


def test_layers_with_experts_are_read_in_the_order_asked_for():
    assert Experts().layers_of({3: "gate", 1: "gate"}) == (1, 3)
    assert Experts(layers=[3, 1]).layers_of({1, 3, 5}) == (3, 1)
