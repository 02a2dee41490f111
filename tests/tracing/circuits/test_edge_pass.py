"""Edges of the organism against finite differences, ablated heads, and plain torch hooks."""

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
from interp.tracing.circuits import EdgeGraph, EdgePass, check_layers
from interp.tracing.cost import Meter


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


def test_what_cannot_be_a_circuit_is_refused(mllm, pair):
    own = mllm.encode([pair[0]])
    with Meter(mllm.device) as meter, pytest.raises(ModelError, match=r"answers alike on both images"):
        EdgePass.of(mllm, own, own, "image", meter)
    longer = mllm.encode([pair[0].replace(question="What color is the big circle?")])
    with (
        Meter(mllm.device) as meter,
        pytest.raises(ModelError, match=r"prompts of one length; got \d+ and \d+"),
    ):
        EdgePass.of(mllm, own, longer, "image", meter)
    with pytest.raises(ModelError, match=r"layer 0 of this gemma3 is Gemma3DecoderLayer, with"):
        check_layers(wrap(*tiny("gemma3")))
