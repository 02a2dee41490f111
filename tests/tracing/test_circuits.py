"""Edges of circuits against finite differences, ablated heads, torch hooks, and TransformerLens' own patching."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose

import interp
from interp.conformance.tiny import tiny
from interp.errors import ModelError
from interp.tracing import AblateHeads, Mllm, Site, wrap
from interp.tracing.circuits import (
    EdgeGraph,
    EdgePass,
    EdgeStream,
    _run_plain,
    check_layers,
    lens_layers,
    repeat_keys,
    transformers_layers,
)
from interp.tracing.cost import Meter
from interp.tracing.layers.rope import settle
from interp.tracing.lens.bridge import build_bridge


@pytest.fixture(scope="module")
def mllm() -> Mllm:
    return interp.load("organism")


@pytest.fixture(scope="module")
def pair(mllm: Mllm) -> tuple[Any, Any]:
    """A sample, and its question on an image with another answer."""
    samples = interp.data.bundled("natural")
    one = samples[0]
    other = next(s for s in samples if s.question == one.question and s.answer != one.answer)
    return one, one.replace(image=other.images[0], boxes=(), masks=(), id=None, group=None)


@pytest.fixture(scope="module")
def passes(mllm: Mllm, pair: Any) -> dict[str, EdgePass]:
    own, other = (mllm.encode([one]) for one in pair)
    with Meter(mllm.device) as meter:
        return {against: EdgePass.of(mllm, own, other, against, meter) for against in ("image", "zero")}


def value(logits: Any, answers: tuple[int, int]) -> float:
    scores = torch.as_tensor(np.asarray(logits)).double().log_softmax(-1)
    return float(scores[answers[0]] - scores[answers[1]])


def test_edges_lead_to_what_reads_later():
    """Two layers of two heads, counted by hand: 4 · 2, 4 + … for MLPs, and the answer reads all."""
    graph = EdgeGraph(2, 2)
    assert graph.sources == ("image", "text", "L00H00", "L00H01", "L00MLP", "L01H00", "L01H01", "L01MLP")
    assert graph.receivers[-1] == "answer"
    assert graph.edges.sum(axis=0).tolist() == [2, 2, 4, 5, 5, 7, 8]
    assert not graph.edges[graph.sources.index("L01H00"), graph.receivers.index("L01H01")]


def test_all_edges_are_this_pass_and_none_the_other(mllm, pair, passes):
    found = passes["image"]
    logits = [mllm.trace([one]).logits.values[0] for one in pair]
    assert found.answers == tuple(int(one.argmax()) for one in logits)
    edges = found.graph.edges
    assert found.value(edges) == pytest.approx(value(logits[0], found.answers), abs=1e-3)
    assert found.value(np.zeros_like(edges)) == pytest.approx(value(logits[1], found.answers), abs=1e-3)


@pytest.mark.parametrize("head", [(0, 5), (1, 3), (4, 7)])
def test_a_head_without_edges_is_an_ablated_head(mllm, pair, passes, head):
    found = passes["zero"]
    kept = found.graph.edges.copy()
    kept[found.graph.sources.index(f"L{head[0]:02d}H{head[1]:02d}")] = False
    edit = AblateHeads(Site(heads=[head], queries="all"))
    logits = mllm.trace([pair[0]], edits=[edit]).logits.values[0]
    assert found.value(kept) == pytest.approx(value(logits, found.answers), abs=1e-3)


def test_a_mean_reference_is_over_all_images(mllm, pair, passes):
    own, other = (mllm.encode([one]) for one in pair)
    with Meter(mllm.device) as meter:
        turned = EdgePass.of(mllm, other, own, "image", meter)
        mean, plain = (EdgePass.of(mllm, own, other, how, meter, more=[own]) for how in ("mean", "image"))
    assert_allclose(mean.reference, (passes["image"].reference + turned.reference) / 2, atol=1e-4)
    assert_allclose(plain.reference, passes["image"].reference, atol=1e-5)


def test_a_zero_reference_holds_the_embeddings_alone(mllm, pair, passes):
    batch, reference = mllm.encode([pair[0]]), passes["zero"].reference
    of_image = np.isin(np.arange(batch.tokens[0].length), batch.tokens[0].image)
    entering = mllm.embeddings(batch)[0]
    assert_allclose(reference[0], entering * of_image[:, None], atol=1e-6)
    assert_allclose(reference[1], entering * ~of_image[:, None], atol=1e-6)
    assert not reference[2:].any()


@pytest.mark.parametrize("against", ["image", "zero"])
def test_attribution_is_the_slope_of_each_edge(passes, against):
    found, step = passes[against], 0.02
    effects, edges = found.attribution(), found.graph.edges
    order = np.argsort(-np.abs(effects), axis=None)[[0, 1, 3, 8, 30, 100]]
    slopes = []
    for place in order:
        at = [edges.astype(float) for _ in range(2)]
        at[0].flat[place] += step
        at[1].flat[place] -= step
        slopes.append((found.value(at[0]) - found.value(at[1])) / (2 * step))
    assert_allclose(effects.flat[order], slopes, rtol=0.03, atol=2e-3)
    assert (effects[~edges] == 0).all()


def test_a_patched_edge_is_a_hook_before_the_final_norm(mllm, pair, passes):
    """The head's own output and the other image's, both read by hooks, differ in the last row alone."""
    found, head = passes["image"], 3
    layer = mllm.adapter.layers(mllm.hf)[1]
    norm, unembedding = mllm.hf.get_decoder().norm, mllm.hf.get_output_embeddings()
    kept: dict[str, list[Any]] = {"z": [], "stream": []}
    handles = [
        layer.self_attn.o_proj.register_forward_pre_hook(lambda _, given: kept["z"].append(given[0][0, -1])),
        norm.register_forward_pre_hook(lambda _, given: kept["stream"].append(given[0][0, -1])),
    ]
    with torch.no_grad():
        for one in pair:
            mllm.hf(**mllm.encode([one]).inputs)
    for handle in handles:
        handle.remove()
    own = slice(head * 16, head * 16 + 16)
    with torch.no_grad():
        gone = layer.self_attn.o_proj.weight[:, own] @ (kept["z"][0] - kept["z"][1])[own]
        plain, patched = (unembedding(norm(kept["stream"][0] - less)) for less in (0 * gone, gone))
    wanted = value(plain, found.answers) - value(patched, found.answers)
    edge = (found.graph.sources.index("L01H03"), len(found.graph.receivers) - 1)
    assert abs(wanted) > 0.1
    assert_allclose(found.path_patch([edge]), [wanted], atol=1e-3)


def test_each_edge_is_patched_alone(passes):
    found = passes["image"]
    answer = len(found.graph.receivers) - 1
    edges = [(found.graph.sources.index(name), answer) for name in ("image", "text", "L02MLP")]
    together = found.path_patch(edges)
    assert_allclose(together, [found.path_patch([one])[0] for one in edges], atol=1e-5)
    assert_allclose(found.path_patch(edges[::-1]), together[::-1], atol=1e-5)


def test_what_cannot_be_a_circuit_is_refused(mllm, pair):
    own = mllm.encode([pair[0]])
    with (
        Meter(mllm.device) as meter,
        pytest.raises(ModelError, match=r"gives the same answer on both images"),
    ):
        EdgePass.of(mllm, own, own, "image", meter)
    longer = mllm.encode([pair[0].replace(question="What color is the big circle?")])
    with (
        Meter(mllm.device) as meter,
        pytest.raises(ModelError, match=r"prompts of the same length; got \d+ and \d+"),
    ):
        EdgePass.of(mllm, own, longer, "image", meter)
    with Meter(mllm.device) as meter, pytest.raises(ModelError, match="prompts of the same length"):
        EdgePass.of(mllm, own, mllm.encode([pair[1]]), "mean", meter, more=[longer])
    with pytest.raises(ModelError, match=r"layer 0 of this gemma3 is Gemma3DecoderLayer, with"):
        check_layers(wrap(*tiny("gemma3")))


FAMILIES = ("idefics3", "llava", "llava_next", "llava_onevision", "mistral3")
"""Those whose layers are the stream plus attention plus MLP, each of a norm, and whose heads TransformerLens splits."""


def swapped(one: interp.Sample, other: interp.Sample) -> interp.Sample:
    return one.replace(image=other.images[0], boxes=(), masks=(), id=None, group=None)


@pytest.fixture(scope="module")
def organism() -> Mllm:
    return interp.load("organism")


def encoded_pair(mllm: Mllm) -> tuple[Any, Any]:
    """A sample, and its question on an image with another answer."""
    samples = interp.data.bundled("natural")
    one = samples[0]
    other = next(s for s in samples if s.question == one.question and s.answer != one.answer)
    return mllm.encode([one]), mllm.encode([swapped(one, other)])


def tiny_pair(family: str, asked: str = "is it red ?") -> tuple[Mllm, Any, Any]:
    """A tiny model, a sample, and the first image of noise on which it answers a question otherwise."""
    mllm = wrap(*tiny(family), family)
    noise = [np.random.default_rng(i).integers(0, 255 // (1 + i % 3), (56, 56, 3)) for i in range(30)]
    questions = ["is it red ?"] + [asked] * (len(noise) - 1)
    samples = [
        interp.Sample(one.astype(np.uint8), question) for one, question in zip(noise, questions, strict=True)
    ]
    batches = [mllm.encode([sample]) for sample in samples]
    said = [int(mllm.trace(batch).logits.values[0].argmax()) for batch in batches]
    return mllm, batches[0], batches[next(i for i, answer in enumerate(said) if answer != said[0])]


def edge_pass(mllm: Mllm, own: Any, other: Any, run_layers: Any = None, against: Any = "image") -> EdgePass:
    with Meter(mllm.device) as meter:
        return EdgePass.of(mllm, own, other, against, meter, run_layers=run_layers)


def check_equal(here: EdgePass, there: EdgePass) -> None:
    edges = here.graph.edges
    some = edges & (np.random.default_rng(0).random(edges.shape) < 0.5)
    for kept in (edges, some, np.zeros_like(edges)):
        assert there.value(kept) == pytest.approx(here.value(kept), abs=2e-4)
    effects = here.attribution()
    assert_allclose(there.attribution(), effects, atol=1e-4)
    assert np.abs(effects).max() > 1e-3
    first = [(0, int(np.flatnonzero(edges[0])[2])), (2, edges.shape[1] - 1)]
    assert_allclose(there.path_patch(first), here.path_patch(first), atol=2e-4)


@pytest.mark.slow
@pytest.mark.parametrize("against", ["image", "zero"])
def test_edges_through_the_lens_are_those_of_plain_layers(organism, against):
    own, other = encoded_pair(organism)
    run = lens_layers(organism)
    check_equal(
        edge_pass(organism, own, other, against=against), edge_pass(organism, own, other, run, against)
    )


@pytest.mark.by_default(family="llava")
@pytest.mark.parametrize("family", FAMILIES)
def test_edges_are_equal_in_every_family_that_has_them(family):
    mllm, own, other = tiny_pair(family)
    check_equal(edge_pass(mllm, own, other), edge_pass(mllm, own, other, lens_layers(mllm)))


def test_the_biases_of_output_projections_belong_to_no_head():
    mllm = wrap(*tiny("llava"), "llava")
    draw = torch.Generator().manual_seed(0)
    for layer in mllm.adapter.layers(mllm.hf):
        project = layer.self_attn.o_proj
        project.bias = torch.nn.Parameter(torch.randn(project.out_features, generator=draw) / 4)
    batch = mllm.encode([interp.Sample(np.zeros((56, 56, 3), np.uint8), "is it red ?")])
    graph, answers = EdgeGraph(mllm.n_layers, mllm.n_heads), (3, 4)
    plain = _run_plain(mllm, batch, Meter(mllm.device))
    nothing = torch.zeros(len(graph.sources), *plain.embedding.shape[1:])
    image, wanted = torch.from_numpy(batch.tokens[0].image.copy()), mllm.trace(batch).logits.values[0]
    for run in (transformers_layers, lens_layers(mllm)):
        found = EdgePass(mllm, graph, plain, nothing, image, answers, run).value(graph.edges)
        assert found == pytest.approx(value(wanted, answers), abs=2e-4)


class Shown:
    """A bridge that sees an image with the tokens it is called with: another one at each call."""

    def __init__(self, bridge: Any, batches: list[Any]) -> None:
        self.bridge, self.batches = bridge, list(batches)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.bridge, name)

    def __call__(self, tokens: torch.Tensor) -> Any:
        batch = self.batches.pop(0)
        inputs = {**batch.inputs, "position_ids": batch.positions}
        assert torch.equal(inputs.pop("input_ids"), tokens)
        settle(self.bridge.original_model, {**inputs, "input_ids": tokens})
        return self.bridge(tokens, **inputs, use_cache=False)


def split_bridge(mllm: Mllm, batches: list[Any]) -> Shown:
    """A bridge whose heads have keys of their own, which TransformerLens' edges need."""

    def change(second: Any) -> None:
        repeat_keys(second, mllm.adapter.layers(second), mllm.n_heads)

    return Shown(build_bridge(mllm.hf, mllm.family, change), batches)


def metric_of(answers: tuple[int, int]) -> Any:
    def metric(logits: torch.Tensor) -> torch.Tensor:
        scores = logits[0, -1].log_softmax(-1)
        return scores[answers[0]] - scores[answers[1]]

    return metric


NAMES = {"embed": "text", "mlp_out": "L{:02d}MLP", "mlp_in": "L{:02d}MLP", "logits": "answer"}


def named(nodes: Any) -> tuple[str, str]:
    """Our names of the ends of an edge of TransformerLens', whichever its position and whether q, k or v."""
    source, receiver = (NAMES.get(one.kind, "L{:02d}H{:02d}").format(one.layer, one.head) for one in nodes)
    return source, receiver


def lens_scores(mllm: Mllm, own: Any, other: Any, answers: tuple[int, int]) -> dict[tuple[str, str], float]:
    """TransformerLens' own edge attribution patching, summed over positions and over q, k and v; ours has its sign."""
    from transformer_lens.tools.analysis import EdgeAttributionConfig, attribution_patch

    shown = split_bridge(mllm, [other, own])
    ids = [batch.inputs["input_ids"] for batch in (other, own)]
    found = attribution_patch(shown, *ids, metric_of(answers), EdgeAttributionConfig("edge"))
    assert not shown.batches
    scores: dict[tuple[str, str], float] = {}
    for nodes, score in found.edge_scores.items():
        edge = named(nodes)
        scores[edge] = scores.get(edge, 0.0) - score
    return scores


def check_scores(mllm: Mllm, own: Any, other: Any, least: float) -> None:
    found = edge_pass(mllm, own, other)
    effects, graph = found.attribution(), found.graph
    scores = lens_scores(mllm, own, other, found.answers)
    wanted = [
        (graph.sources[i], graph.receivers[j])
        for i, j in np.argwhere(graph.edges)
        if graph.sources[i] != "image"
    ]
    assert set(wanted) == set(scores)
    ours = [effects[graph.sources.index(source), graph.receivers.index(to)] for source, to in wanted]
    assert_allclose(ours, [scores[edge] for edge in wanted], atol=1e-4, rtol=1e-3)
    assert np.abs(ours).max() > least


def test_effects_are_transformer_lenss_attribution_patching():
    """On tiny weights, another image and another word; image embeddings are no node of TransformerLens'."""
    mllm, own, other = tiny_pair("llava", "is it left ?")
    assert own.inputs["input_ids"].shape == other.inputs["input_ids"].shape
    assert not torch.equal(own.inputs["input_ids"], other.inputs["input_ids"])
    check_scores(mllm, own, other, 0.1)


@pytest.mark.slow
def test_exact_effects_are_transformer_lenss_ablated_edges():
    """Its faithfulness with one edge left out of the circuit, at every position and of q, k and v at once."""
    from transformer_lens.tools.analysis import EdgeAttributionConfig, attribution_patch, faithfulness

    mllm, own, other = tiny_pair("llava", "is it left ?")
    found = edge_pass(mllm, own, other)
    metric, ids = metric_of(found.answers), [batch.inputs["input_ids"] for batch in (own, other)]
    shown = split_bridge(mllm, [own, other])
    every = list(attribution_patch(shown, *ids, metric, EdgeAttributionConfig("edge")).edge_scores)
    graph, values = found.graph, [found.value(found.graph.edges)]
    edges = [("L00H01", "L02H03"), ("L00MLP", "answer"), ("text", "L01MLP")]
    for edge in edges:
        shown.batches[:] = [other, other, *[own] * 9]
        kept = [nodes for nodes in every if named(nodes) != edge]
        result = faithfulness(shown, *ids, metric, kept)
        gap = result.full_metric - result.corrupt_metric
        values.append(result.recovered * gap + result.corrupt_metric)
    places = [(graph.sources.index(source), graph.receivers.index(to)) for source, to in edges]
    exact = found.path_patch(places)
    assert_allclose(exact, values[0] - np.array(values[1:]), atol=1e-4)
    assert np.abs(exact).min() > 1e-3


@pytest.mark.slow
def test_effects_on_the_organism_are_transformer_lenss(organism):
    check_scores(organism, *encoded_pair(organism), 1.0)


def test_repeated_keys_leave_the_model_as_it_was(organism):
    """The second instance attends alike; the first keeps its tensors."""
    before = {name: value.clone() for name, value in organism.hf.state_dict().items()}
    own, _ = encoded_pair(organism)
    logits = organism.trace(own).logits.values
    lens_layers(organism)
    assert all(torch.equal(value, before[name]) for name, value in organism.hf.state_dict().items())
    assert organism.n_key_value_heads == 4
    np.testing.assert_array_equal(organism.trace(own).logits.values, logits)


def test_a_family_without_an_adapter_is_refused():
    with pytest.raises(ModelError, match=r"TransformerLens has no adapter for InternVL"):
        lens_layers(wrap(*tiny("internvl"), "internvl"))
    with pytest.raises(ModelError, match=r"TransformerLens splits no inputs by head in qwen2_5_vl"):
        lens_layers(wrap(*tiny("qwen2_5_vl"), "qwen2_5_vl"))
    with pytest.raises(ModelError, match=r"layer 0 of this gemma3 is Gemma3DecoderLayer, with"):
        lens_layers(wrap(*tiny("gemma3"), "gemma3"))


IMAGE, TEXT, REFERENCE = 1.0, 10.0, 0.5
HEADS, MLPS, BIASES = (100.0, 2000.0), (1000.0, 20000.0), (3.0, 5.0)


def vector(value: float) -> torch.Tensor:
    """(row, hidden), of one row and one dimension."""
    return torch.full((1, 1), value)


def readings_of_nodes(weight: float) -> dict[str, float]:
    """What each node of two layers of one head reads when every edge has this weight."""
    graph = EdgeGraph(2, 1)
    embeddings = torch.stack([vector(IMAGE), vector(TEXT)])
    reference = torch.full((len(graph.sources), 1, 1), REFERENCE)
    stream = EdgeStream(graph, embeddings, reference, torch.full(graph.edges.shape, weight))
    found = {}
    for layer in range(2):
        found[f"head {layer}"] = stream.heads_read(layer).item()
        stream.write_heads(vector(HEADS[layer])[None], torch.tensor([BIASES[layer]]))
        found[f"MLP {layer}"] = stream.mlp_reads(layer).item()
        stream.write_mlp(vector(MLPS[layer]))
    return {**found, "answer": stream.answer_reads().item()}


def test_a_node_reads_what_was_written_before_and_biases() -> None:
    assert readings_of_nodes(1.0) == {
        "head 0": 11,
        "MLP 0": 114,
        "head 1": 1114,
        "MLP 1": 3119,
        "answer": 23119,
    }


def test_without_edges_a_node_reads_the_reference_and_biases() -> None:
    assert readings_of_nodes(0.0) == {"head 0": 1, "MLP 0": 4.5, "head 1": 5, "MLP 1": 10.5, "answer": 11}
